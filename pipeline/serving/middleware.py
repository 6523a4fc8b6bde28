"""What stands before every route: host, token, the body and its time, an access log line, the count of answers."""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.serving.connections import CROWDED
from pipeline.serving.hosts import Hosts
from pipeline.serving.metrics import Telemetry

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Direct = Callable[[str, bytes], Awaitable["Answer"]]  # of content type and body

MAX_BODY = 16 * 1024 * 1024
BODY_WITHIN_S = 15.0
PROBES = {"/ping", "/health", "/ready"}  # answered to whoever asks, under any name, however crowded it is
OPEN_ROUTES = {*PROBES, "/", "/version"}  # what a browser or a probe asks without a token
PLAIN = (b"", b"identity")
log = logging.getLogger("pipeline.serving")


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
        self,
        app: App,
        direct: Mapping[tuple[str, str], Direct],
        telemetry: Telemetry,
        token: str,
        routes: set[str],
        hosts: Hosts,
    ) -> None:
        """Guard the app; (method, path) in `direct` are answered without it.

        An empty token lets everyone in who calls the service by one of its names; whoever has the token, by any name.
        """
        self.app, self.direct, self.telemetry, self.token = app, direct, telemetry, token.encode()
        self.routes, self.hosts = routes, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        status, started, facts = 500, False, {}

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
            await send(message)

        try:
            self._check(scope, headers)
            body = await _body(scope["method"], headers, receive)
            if direct := self.direct.get((scope["method"], scope["path"])):
                answer = await direct(headers.get(b"content-type", b"").decode("latin-1"), body)
                facts = answer.facts
                await _give(200, answer.body, noting, answer.headers)
            else:
                await self.app(_as_get(scope), _once(body, receive), noting)
                facts = scope.get("state", {}).get("facts", {})
        except RefusalError as refusal:
            self.telemetry.errors.labels(refusal.code.lower()).inc()
            await _refuse(refusal, noting)
        except ConnectionError:
            status = 499  # the client has gone
        except Exception:  # a fault of ours: told in the log, and to the client in the form of all refusals
            log.exception("a request failed")
            self.telemetry.errors.labels("internal_error").inc()
            if not started:
                await _refuse(RefusalError(500, "INTERNAL_ERROR", "the service failed; its log says why"), noting)
        finally:
            self._note(scope, status, time.perf_counter() - began, facts)

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Refuse what can be refused before the body is read."""
        path = scope["path"]
        if path not in PROBES:
            if CROWDED in scope.get("state", ()):
                raise RefusalError(
                    503, "TEMPORARILY_UNAVAILABLE", "too many connections are open; try again in a second"
                )
            if not self.token and not self.hosts.allows(headers.get(b"host", b"")):
                host = headers[b"host"].decode("latin-1")[:80]
                raise RefusalError(
                    403,
                    "PERMISSION_DENIED",
                    f"the service is not known as {host!r}; ask it by its address, or start it with --allowed_hosts",
                )
        self._check_token(path, headers)
        encoding = headers.get(b"content-encoding", b"").strip().lower()
        if encoding not in PLAIN:
            name = encoding.decode("latin-1")[:40]
            raise RefusalError(415, "BAD_REQUEST", f"the body is compressed ({name}); send it plain, as it is")

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


def _as_get(scope: Scope) -> Scope:
    """HEAD is GET without the body, which the server leaves out: probes and `wget --spider` ask so."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


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
    if refusal.status == 503:
        headers["retry-after"] = "1"
    await _give(refusal.status, refusal.body(), send, headers)


async def _give(status: int, body: bytes, send: Send, headers: Mapping[str, str]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    raw += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
