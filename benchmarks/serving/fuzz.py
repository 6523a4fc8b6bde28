"""10,000 malformed requests: from the OpenAPI description, torn, mutated and hand-picked. No 5xx, no crash, no leak."""

import asyncio
import collections
import io
import json
import random
import struct
import urllib.request
import zlib

import numpy as np
from PIL import Image

from benchmarks.serving import servers

REQUESTS, AT_ONCE, SLOW = 10_000, 16, 8
TYPES = ["application/json", "image/png", "image/jpeg", "multipart/form-data; boundary=b", "text/plain", "", "a/b;;;"]
SCALARS = [None, True, False, "", "7", -1, 256, 1e308, -0.5, 0.5, 10**30, [], {}, [[]], "\x00", "𝟟" * 50]


def image_bytes(kind, side=40):
    """A valid image file, to be damaged."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def bomb(width, height):
    """A PNG whose header promises more pixels than it holds."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")


def nested(choose, depth=0):
    """Some JSON that nobody meant."""
    kind = choose.random()
    if depth > 5 or kind < 0.4:
        return choose.choice(SCALARS)
    if kind < 0.8:
        return [nested(choose, depth + 1) for _ in range(choose.randrange(4))]
    return {choose.choice(["inputs", "instances", "x", ""]): nested(choose, depth + 1) for _ in range(2)}


def almost_right(choose):
    """One image as the description asks for it, but for one thing."""
    image = [[choose.randrange(256) for _ in range(28)] for _ in range(28)]
    row, column = choose.randrange(28), choose.randrange(28)
    change = choose.randrange(4)
    if change == 0:
        image[row][column] = choose.choice(SCALARS[3:8] + SCALARS[10:])
    elif change == 1:
        image[row] = image[row][:column]
    elif change == 2:
        image = image[:row]
    else:
        return json.dumps({"inputs": [image], "inputz": 1}).encode()[: -choose.randrange(1, 900)]
    return json.dumps({"inputs": [image]}).encode()


def mutated(choose, content):
    """The bytes with some of them changed, cut or doubled."""
    content = bytearray(content)
    for _ in range(choose.randrange(1, 12)):
        content[choose.randrange(len(content))] = choose.randrange(256)
    if choose.random() < 0.5:
        content = content[: choose.randrange(len(content))]
    return bytes(content)


def form(choose, content):
    """A multipart body that may be torn."""
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.png"\r\n\r\n' + content + b"\r\n--b--\r\n"
    return mutated(choose, part) if choose.random() < 0.7 else part * choose.randrange(1, 3)


def malformed(choose, operations, files):
    """One request: (method, path, content type, body)."""
    path, method = choose.choice(operations)
    kind = choose.choice(TYPES)
    what = choose.randrange(6)
    if what == 0:
        body = json.dumps(nested(choose)).encode("utf-8", "surrogatepass")
    elif what == 1:
        path, method, kind, body = "/invocations", "POST", "application/json", almost_right(choose)
    elif what == 2:
        path, method, kind = "/predict", "POST", choose.choice(TYPES[1:3])
        body = mutated(choose, choose.choice(files))
    elif what == 3:
        path, method, kind = "/predict", "POST", TYPES[3]
        body = form(choose, choose.choice(files))
    elif what == 4:
        body = choose.randbytes(choose.randrange(300))
    else:
        path += choose.choice(["?show=2", "?show=", "/", "%00", "?" + "a" * 3000, "/../x"])
        method, body = choose.choice(["POST", "GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]), b"{}"
    return method, path, kind, body


HAND_PICKED = [
    ("POST", "/invocations", "application/json", b"[" * 200_000),
    ("POST", "/invocations", "application/json", b'{"inputs":' * 50_000),
    ("POST", "/invocations", "application/json", b'{"inputs": [[[NaN]]]}'),
    ("POST", "/invocations", "application/json", b'{"inputs": [[[' + b"9" * 5000 + b"]]]}"),
    ("POST", "/invocations", "application/json", json.dumps({"inputs": [[[1e39] * 28] * 28]}).encode()),
    ("POST", "/invocations", "application/json", json.dumps({"inputs": [[0]] * 5000}).encode()),
    ("POST", "/invocations", "application/json", b"\xff\xfe" * 100),
    ("POST", "/invocations", "application/json", b" " * (17 << 20)),
    ("POST", "/predict", "image/png", bomb(60_000, 60_000)),
    ("POST", "/predict", "image/png", bomb(4_000, 4_000)),
    ("POST", "/predict", "image/png", bomb(0, 0)),
    ("POST", "/predict", "image/png", b"\x89PNG\r\n\x1a\n"),
    ("POST", "/predict", "multipart/form-data", b"--"),
]


async def ask(port, method, path, kind, body):
    """The status of the answer; 0 where the server hung up on bytes that are no HTTP."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: {kind}\r\n"
        writer.write(head.encode("latin-1", "replace") + f"Content-Length: {len(body)}\r\n\r\n".encode())
        writer.write(body)
        answer = await asyncio.wait_for(reader.read(), 60)
        status = int(answer[9:12]) if answer else 0
        told = b'"message"' in answer or status < 400 or method == "HEAD"
        return status, told
    except (ConnectionError, ValueError):
        return 0, True
    finally:
        writer.close()


async def slowly(port):
    """A body that comes a byte a second, until the server has had enough."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
    answer = asyncio.ensure_future(reader.read(600))
    for _ in range(40):
        if answer.done():
            break
        try:
            writer.write(b"[")
            await writer.drain()
        except ConnectionError:
            break
        await asyncio.sleep(1)
    status = int((await answer)[9:12])
    writer.close()
    return status


async def _send_all(port, requests, statuses, untold):
    queue = collections.deque(requests)

    async def client():
        while queue:
            request = queue.popleft()
            status, told = await ask(port, *request)
            statuses[status] += 1
            if not told:
                untold.append((request[0], request[1], status))

    await asyncio.gather(*[client() for _ in range(AT_ONCE)])


def run(uri, folder, count=REQUESTS):
    """Send them all; returns what came back."""
    server = servers.ours(uri, folder)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    operations = [(path, method.upper()) for path, methods in paths.items() for method in methods]
    choose = random.Random(2026)
    files = [image_bytes("PNG"), image_bytes("JPEG"), image_bytes("PNG", 28), bomb(200, 200)]
    statuses, untold, memory = collections.Counter(), [], []
    requests = [malformed(choose, operations, files) for _ in range(count - len(HAND_PICKED))] + HAND_PICKED
    for part in range(4):
        asyncio.run(_send_all(server.port, requests[part::4], statuses, untold))
        memory.append(round(server.memory_mb(), 1))
    slow = asyncio.run(_all_slow(server.port))
    alive = server.process.poll() is None
    server.stop()
    return {
        "requests": len(requests),
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "untold": untold[:5],
        "slow": slow,
        "memory_mb": memory,
        "alive": alive,
    }


async def _all_slow(port):
    return list(await asyncio.gather(*[slowly(port) for _ in range(SLOW)]))


def words(found):
    """What came back, in a line."""
    five = sum(number for status, number in found["statuses"].items() if status.startswith("5"))
    answers = ", ".join(f"{number} x {status}" for status, number in found["statuses"].items())
    process = "the process lives" if found["alive"] else "the process died"
    return (
        f"{found['requests']:,} malformed requests: {five} answers of 5xx, {process}; "
        f"{answers}; refusals that do not say what to send: {len(found['untold'])}; slow bodies: {found['slow']}; "
        f"memory after each quarter: {found['memory_mb']} MB"
    )
