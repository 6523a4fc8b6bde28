"""What stands before every route, each an ASGI application around the next."""

import asyncio
import hmac
import logging
import time
from collections.abc import Collection, Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving.connections import CROWDED
from pipeline.serving.hosts import Hosts
from pipeline.serving.metrics import Telemetry
from pipeline.serving.refusals import FAULT, RefusalError

MAX_BODY = 16 * 1024 * 1024
BODY_WITHIN_S = 15.0
TOO_LARGE = f"the body is larger than {MAX_BODY >> 20} MiB; send fewer examples at a time"
TOO_SLOW = f"the body did not come within {BODY_WITHIN_S:.0f} s; send it at once"
PROBES = {"/ping", "/health", "/ready"}  # answered to whoever asks, under any name, however crowded it is
OPEN_ROUTES = {"/", "/version"}  # what a browser asks without a token
CLIENT_LEFT = 499  # as nginx counts it
log = logging.getLogger("pipeline.serving")


class Observed:
    """Counts, times and notes every request, and answers what was refused on its way or failed."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry, routes: Collection[str]) -> None:
        self.app, self.telemetry, self.routes = app, telemetry, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except ClientDisconnect:
            status = status or CLIENT_LEFT
        except Exception as error:
            refusal = error if isinstance(error, RefusalError) else FAULT
            if refusal is FAULT:
                log.exception("a request failed")
            self.telemetry.errors.labels(refusal.kind).inc()
            if not status:
                await refusal.response()(scope, receive, noting)
        finally:
            self._note(scope, status or 500, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path, client = scope["path"], scope["client"]
        self.telemetry.answered(path if path in self.routes else "(other)", status, seconds)
        facts = scope["state"].get("facts", {})
        self.telemetry.access.write(
            {
                "method": scope["method"],
                "path": path[:200],
                "status": status,
                "ms": round(seconds * 1000, 2),
                "client": client[0] if client else "",
                **facts,
            }
        )


class Admission:
    """Refuses who may not ask, before the body is read: crowded out, by a foreign name, without the token.

    Without a token everyone is let in who calls the service by one of its names; whoever has the token, by any name.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Hosts) -> None:
        self.app, self.token, self.hosts = app, token.encode(), hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in PROBES:
            self._check(scope, dict(scope["headers"]))
        await self.app(scope, receive, send)

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        if CROWDED in scope["state"]:
            raise RefusalError(503, "TEMPORARILY_UNAVAILABLE", "too many connections are open; try again in a second")
        if not self.token and not self.hosts.allows(headers.get(b"host", b"")):
            host = headers[b"host"].decode("latin-1")[:80]
            words = f"the service is not known as {host!r}; ask it by its address, or start it with --allowed_hosts"
            raise RefusalError(403, "PERMISSION_DENIED", words)
        if self.token and scope["path"] not in OPEN_ROUTES:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self.token):
                raise RefusalError(401, "UNAUTHENTICATED", "send the service's token: Authorization: Bearer TOKEN")


class WholeBody:
    """Reads the body before a route is asked, if it is plain, not too large and comes in time.

    HEAD is GET without the body, which the server leaves out: probes and `wget --spider` ask so.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        encoding = headers.get(b"content-encoding", b"").strip().lower()
        if encoding not in (b"", b"identity"):
            name = encoding.decode("latin-1")[:40]
            raise RefusalError(415, "BAD_REQUEST", f"the body is compressed ({name}); send it plain, as it is")
        body = b""
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        elif scope["method"] != "GET":
            body = await _in_time(headers.get(b"content-length", b""), receive)
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def once() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, once, send)


async def _in_time(announced: bytes, receive: Receive) -> bytes:
    """The whole body; this is `asyncio.timeout`, which would take 4 % of the time of a request for one image.

    Raises:
        RefusalError: 413 or 408.
        ClientDisconnect: if the client leaves.
    """
    task = asyncio.current_task()
    assert task
    timer = asyncio.get_running_loop().call_later(BODY_WITHIN_S, task.cancel, TOO_SLOW)
    try:
        return await _read(announced, receive)
    except asyncio.CancelledError as cancelled:
        if cancelled.args != (TOO_SLOW,) or task.uncancel():
            raise
        raise RefusalError(408, "REQUEST_TIMEOUT", TOO_SLOW) from None
    finally:
        timer.cancel()


async def _read(announced: bytes, receive: Receive) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        if size > MAX_BODY or (not parts and announced.isdigit() and int(announced) > MAX_BODY):
            break
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
    if more or size > MAX_BODY:
        raise RefusalError(413, "BAD_REQUEST", TOO_LARGE)
    return b"".join(parts)
