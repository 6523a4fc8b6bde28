"""What stands before every route: token, body size, time to send it, an access log line, the count of answers."""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import orjson
from starlette.responses import Response

from pipeline.serving.telemetry import Telemetry

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Direct = Callable[[Scope, bytes], Awaitable[Response]]

MAX_BODY = 16 * 1024 * 1024
BODY_WITHIN_S = 15.0
OPEN_ROUTES = {"/", "/ping", "/health", "/ready", "/version"}  # what a browser or a probe asks without a token
access = logging.getLogger("pipeline.access")


class RefusalError(Exception):
    """A request that is not answered as it hoped; becomes a JSON body that says what to send."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Give HTTP status, error code (MLflow's, where it has one) and what to do."""
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def body(self) -> bytes:
        """As MLflow's server words it."""
        return orjson.dumps({"error_code": self.code, "message": self.message})


class Gate:
    """ASGI middleware around the whole service."""

    def __init__(
        self,
        app: App,
        direct: Mapping[tuple[str, str], Direct],
        telemetry: Telemetry,
        token: str,
        routes: set[str],
        log_access: bool,
    ) -> None:
        """Guard the app; (method, path) in `direct` are answered without it; an empty token lets everyone in."""
        self.app, self.direct, self.telemetry, self.token = app, direct, telemetry, token.encode()
        self.routes, self.log_access = routes, log_access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check_token(scope)
            body = await _body(scope, receive)
            if direct := self.direct.get((scope["method"], scope["path"])):
                response = await direct(scope, body)
                await response(scope, receive, noting)
            else:
                await self.app(scope, _once(body, receive), noting)
        except RefusalError as refusal:
            self.telemetry.errors.labels(refusal.code.lower()).inc()
            await _answer(refusal, noting)
        except ConnectionError:
            status = 499  # the client has gone
        finally:
            self._note(scope, status, time.perf_counter() - began)

    def _check_token(self, scope: Scope) -> None:
        if not self.token or scope["path"] in OPEN_ROUTES:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, b"Bearer " + self.token):
            raise RefusalError(401, "UNAUTHENTICATED", "send the service's token: Authorization: Bearer TOKEN")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope["path"] if scope["path"] in self.routes else "(other)"
        self.telemetry.answered(route, status, seconds)
        if self.log_access:
            client = scope.get("client")
            facts = {
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "ms": round(seconds * 1000, 2),
                "client": client[0] if client else "",
                **scope.get("state", {}).get("facts", {}),
            }
            access.info("request", extra={"facts": facts})


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The whole body, if it is not too large and comes in time.

    Raises:
        RefusalError: 413 or 408.
        ConnectionError: if the client leaves.
    """
    if scope["method"] in ("GET", "HEAD"):
        return b""
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > MAX_BODY:
        raise _too_large()
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError("the client left")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MAX_BODY:
                    raise _too_large()
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise RefusalError(
            408, "REQUEST_TIMEOUT", f"the body did not come within {BODY_WITHIN_S:.0f} s; send it at once"
        ) from None


def _too_large() -> RefusalError:
    return RefusalError(
        413, "BAD_REQUEST", f"the body is larger than {MAX_BODY >> 20} MiB; send fewer images at a time"
    )


def _once(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was read already, then whatever comes."""
    given = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(refusal: RefusalError, send: Send) -> None:
    body = refusal.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status in (408, 413):
        headers.append((b"connection", b"close"))  # what is left of the body is not read
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
