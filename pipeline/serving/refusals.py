"""Refusals: every answer that is not what the client hoped for, in one form that says what to do."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from prometheus_client import Counter
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

INVALID = "INVALID_PARAMETER_VALUE"
ROUTES = "POST /invocations, POST /predict, GET / /model /ping /ready /health /version /metrics /openapi.json"
CLOSE = {"connection": "close"}  # what is left of the body is not read
HEADERS = {401: {"www-authenticate": "Bearer"}, 408: CLOSE, 413: CLOSE, 503: {"retry-after": "1"}}
Handlers = dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]]


class Refusal(BaseModel):
    """The body of a refusal, as MLflow's server words it: its code, where it has one, and what to do."""

    error_code: str
    message: str


class RefusalError(Exception):
    """A request that is not answered as it hoped; the metrics know it by its `kind`."""

    def __init__(
        self, status: int, code: str, message: str, kind: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.kind, self.headers = kind or code.lower(), headers or HEADERS.get(status)

    def response(self) -> Response:
        body = Refusal(error_code=self.code, message=self.message).model_dump_json()
        return Response(body, self.status, self.headers, "application/json")


FAULT = RefusalError(500, "INTERNAL_ERROR", "the service failed; its log says why")


def handlers(errors: Counter) -> Handlers:
    """What becomes of errors within the framework: ours and its own are counted and answered in the one form."""

    async def refuse(request: Request, error: Exception) -> Response:
        refusal = error if isinstance(error, RefusalError) else _in_our_words(request, error)
        errors.labels(refusal.kind).inc()
        return refusal.response()

    async def fail(request: Request, error: Exception) -> Response:
        return FAULT.response()  # counted where it is logged: the framework raises it again

    return {RefusalError: refuse, HTTPException: refuse, RequestValidationError: refuse, Exception: fail}


def _in_our_words(request: Request, error: Exception) -> RefusalError:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return RefusalError(400, INVALID, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    assert isinstance(error, HTTPException)
    path, words, headers = request.url.path[:80], str(error.detail), {}
    if error.status_code == 404:
        words = f"no route {path}; there are {ROUTES}"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        headers = {"Allow": "GET, HEAD" if allowed == "GET" else allowed}
        words = f"{request.method} {path}: use {headers['Allow']}"
    return RefusalError(error.status_code, "BAD_REQUEST", words, f"http_{error.status_code}", headers)
