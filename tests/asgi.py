"""One request to an ASGI application without a server, and an event loop whose clock jumps instead of waiting."""

import asyncio
import itertools
import json
import selectors
from dataclasses import dataclass

from prometheus_client.exposition import generate_latest


class _Jumping(selectors.DefaultSelector):
    """Where a selector would wait for a timer, the clock is put forward to it."""

    now = 0.0

    def select(self, timeout=None):
        if timeout is not None and timeout > 0:
            self.now += timeout
            timeout = 0
        return super().select(timeout)


class FastLoop(asyncio.SelectorEventLoop):
    """Seconds pass at once, to the exact instant of the next timer. Not for what waits for threads."""

    def __init__(self):
        self.clock = _Jumping()
        super().__init__(self.clock)

    def time(self):
        return self.clock.now


def run_fast(coroutine):
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return runner.run(coroutine)


async def turns(count=20):
    """Let everything that is ready have its turn."""
    for _ in range(count):
        await asyncio.sleep(0)


@dataclass
class Answered:
    """What the client got; status 0: nothing."""

    status: int
    headers: list
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def refusal(self):
        """The refusal, in the form of all."""
        found = self.json
        assert list(found) == ["error_code", "message"]
        return self.status, found["error_code"], found["message"]


def scope_of(method, path, headers=(), query=b"", **others):
    raw = [(name.lower().encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path}
    scope |= {"raw_path": path.encode(), "query_string": query, "root_path": "", "scheme": "http", "headers": raw}
    scope |= {"client": ("192.0.2.1", 1234), "server": ("127.0.0.1", 80), "state": {}}
    return scope | others


def parts_of(*parts, more=False):
    """The messages of a body in parts; `more`: its end does not come."""
    last = len(parts) - 1
    return [{"type": "http.request", "body": part, "more_body": more or k < last} for k, part in enumerate(parts)]


NO_PAUSES = itertools.repeat(0)
LEFT = {"type": "http.disconnect"}


async def ask(app, method="GET", path="/", headers=(), body=b"", messages=None, pauses=NO_PAUSES, **scope):
    """Send a request; a body as bytes, or message by message, each some seconds after the one before it."""
    waiting = zip(parts_of(body) if messages is None else messages, pauses, strict=False)

    async def receive():
        for message, pause in waiting:
            await asyncio.sleep(pause)
            return message
        return await asyncio.Event().wait()  # nothing ever comes

    status, raw, content = 0, [], b""

    async def send(message):
        nonlocal status, raw, content
        if message["type"] == "http.response.start":
            assert status == 0, "a second answer"
            status, raw = message["status"], [(name.decode(), value.decode()) for name, value in message["headers"]]
        else:
            assert status, "a body before its status"
            assert message["type"] == "http.response.body"
            content += message.get("body", b"")

    await app(scope_of(method, path, headers, **scope), receive, send)
    return Answered(status, raw, content)


def counted(service, name):
    """The counters of that name that are not zero, without their prefix."""
    registry = service.telemetry.registry
    told = generate_latest(registry.restricted_registry([f"pipeline_{name}"])) or generate_latest(registry)
    lines = told.decode().splitlines()
    found = (line.rsplit(" ", 1) for line in lines if line.startswith(f"pipeline_{name}"))
    return {labels.removeprefix(f"pipeline_{name}"): float(value) for labels, value in found if float(value)}
