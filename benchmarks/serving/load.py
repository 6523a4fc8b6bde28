"""A load generator: raw HTTP/1.1 over kept connections, as fast as the answers come or at a constant rate.

At a constant rate the latency of a request is counted from the instant it was due, so that a server that stalls cannot
hide the requests that had to wait (coordinated omission).
"""

import asyncio
import time

import uvloop


def request(path, body, content_type="application/json", host="127.0.0.1"):
    """The bytes of a POST."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def exchange(reader, writer, message):
    """Send a request; returns (status, headers in lower case, body)."""
    writer.write(message)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.split(b"content-length:")[1].split(b"\r\n")[0]
    body = await reader.readexactly(int(length))
    return int(head[9:12]), head, body


def as_fast_as_possible(port, message, connections, seconds):
    """Requests answered per second, over so many connections that each wait for their answer."""

    async def client(until):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        count = 0
        while time.perf_counter() < until:
            status, _, _ = await exchange(reader, writer, message)
            assert status == 200, status
            count += 1
        writer.close()
        return count

    async def all_clients():
        began = time.perf_counter()
        counts = await asyncio.gather(*[client(began + seconds) for _ in range(connections)])
        return sum(counts) / (time.perf_counter() - began)

    return uvloop.run(all_clients())


def at_a_rate(port, message, rate, seconds, connections=64):
    """Latencies in seconds of requests that are due at a constant rate."""

    async def client(first, step, latencies):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        due = first
        until = first + seconds
        while due < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            status, _, _ = await exchange(reader, writer, message)
            assert status == 200, status
            latencies.append(time.perf_counter() - due)
            due += step
        writer.close()

    async def all_clients():
        latencies = []
        began = time.perf_counter() + 0.2
        step = connections / rate
        await asyncio.gather(*[client(began + k / rate, step, latencies) for k in range(connections)])
        return sorted(latencies)

    return uvloop.run(all_clients())
