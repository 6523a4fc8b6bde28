"""What stands before every route: token, body size, time to send it, an access log line, the count of answers."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.serving.telemetry import Telemetry

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Direct = Callable[[str, bytes], Awaitable["Answer"]]  # of content type and body

MAX_BODY = 16 * 1024 * 1024
BODY_WITHIN_S = 15.0
OPEN_ROUTES = {"/", "/ping", "/health", "/ready", "/version"}  # what a browser or a probe asks without a token


class RefusalError(Exception):
    """A request that is not answered as it hoped; becomes a JSON body that says what to send."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Give HTTP status, error code (MLflow's, where it has one) and what to do."""
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def body(self) -> bytes:
        """As MLflow's server words it."""
        return orjson.dumps({"error_code": self.code, "message": self.message})


@dataclass(frozen=True)
class Answer:
    """What a direct route answers.

    Attributes:
        body: JSON.
        headers: besides type and length.
        facts: for the access log.
    """

    body: bytes
    headers: dict[str, str]
    facts: dict[str, Any]


class Gate:
    """ASGI middleware around the whole service."""

    def __init__(
        self, app: App, direct: Mapping[tuple[str, str], Direct], telemetry: Telemetry, token: str, routes: set[str]
    ) -> None:
        """Guard the app; (method, path) in `direct` are answered without it; an empty token lets everyone in."""
        self.app, self.direct, self.telemetry, self.token = app, direct, telemetry, token.encode()
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        status, facts = 500, {}

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check_token(scope["path"], headers)
            body = await _body(scope["method"], headers, receive)
            if direct := self.direct.get((scope["method"], scope["path"])):
                answer = await direct(headers.get(b"content-type", b"").decode("latin-1"), body)
                facts = answer.facts
                await _give(200, answer.body, noting, answer.headers)
            else:
                await self.app(scope, _once(body, receive), noting)
                facts = scope.get("state", {}).get("facts", {})
        except RefusalError as refusal:
            self.telemetry.errors.labels(refusal.code.lower()).inc()
            await _refuse(refusal, noting)
        except ConnectionError:
            status = 499  # the client has gone
        finally:
            self._note(scope, status, time.perf_counter() - began, facts)

    def _check_token(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        if not self.token or path in OPEN_ROUTES:
            return
        if not hmac.compare_digest(headers.get(b"authorization", b""), b"Bearer " + self.token):
            raise RefusalError(401, "UNAUTHENTICATED", "send the service's token: Authorization: Bearer TOKEN")

    def _note(self, scope: Scope, status: int, seconds: float, facts: dict[str, Any]) -> None:
        path, client = scope["path"], scope.get("client")
        self.telemetry.answered(path if path in self.routes else "(other)", status, seconds)
        self.telemetry.access.write(
            {
                "message": "request",
                "method": scope["method"],
                "path": path[:200],
                "status": status,
                "ms": round(seconds * 1000, 2),
                "client": client[0] if client else "",
                **facts,
            }
        )


async def _body(method: str, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    """The whole body, if it is not too large and comes in time.

    Raises:
        RefusalError: 413 or 408.
        ConnectionError: if the client leaves.
    """
    if method in ("GET", "HEAD"):
        return b""
    announced = headers.get(b"content-length", b"0")
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


async def _refuse(refusal: RefusalError, send: Send) -> None:
    headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
    if refusal.status in (408, 413):
        headers["connection"] = "close"  # what is left of the body is not read
    await _give(refusal.status, refusal.body(), send, headers)


async def _give(status: int, body: bytes, send: Send, headers: Mapping[str, str]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    raw += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
