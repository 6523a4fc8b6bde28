"""The service's routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from pipeline.serving import protocol
from pipeline.serving.follower import Follower
from pipeline.serving.gate import Direct, Gate, RefusalError, Scope
from pipeline.serving.protocol import refusals
from pipeline.serving.telemetry import Telemetry
from pipeline.versions import Loaded

PAGE = Path(__file__).parent / "page.html"
SMALL_BODY = 128 * 1024  # a larger one is parsed beside the event loop, so that small ones need not wait for it
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)


def make_app(follower: Follower, telemetry: Telemetry, token: str = "", log_access: bool = True) -> Gate:
    """The service as an ASGI application.

    Args:
        follower: knows the version that serves.
        telemetry: counts.
        token: what clients must send; empty: nothing.
        log_access: write a line for each request.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        follower.start()
        yield
        follower.stop()

    app = FastAPI(
        title="Digits",
        description="What digit does an image show? MLflow's scoring protocol, and image files as they are.",
        version=metadata.version("mlflow"),
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    invoke = _invoker(follower, telemetry)
    _add_predictions(app, follower, telemetry, invoke)
    _add_facts(app, follower, telemetry)
    _add_refusals(app, telemetry)
    routes = {path for route in app.routes if (path := getattr(route, "path", ""))}
    return Gate(app, {("POST", "/invocations"): invoke}, telemetry, token, routes, log_access)


def _serving(follower: Follower) -> Loaded:
    if follower.current is None:
        reason = follower.trouble or "it is being loaded"
        raise RefusalError(
            503, "TEMPORARILY_UNAVAILABLE", f"no model serves yet ({reason}); ask /ready, try again later"
        )
    return follower.current


def _note(scope: Scope, loaded: Loaded, images: int) -> None:
    scope.setdefault("state", {})["facts"] = {"version": loaded.version, "images": images}


def _answer(body: bytes, loaded: Loaded) -> Response:
    headers = {"X-Model-Name": loaded.name, "X-Model-Version": loaded.version}
    return Response(body, media_type="application/json", headers=headers)


def _invoker(follower: Follower, telemetry: Telemetry) -> Direct:
    """The answer to /invocations, which the gate gives itself: FastAPI's routing would take a third of its time."""

    def score(loaded: Loaded, content_type: str, body: bytes) -> tuple[bytes, NDArray[np.float32]]:
        probabilities = loaded.predict(protocol.images_of_json(content_type, body))
        return protocol.predictions_as_json(probabilities), probabilities

    async def invoke(scope: Scope, body: bytes) -> Response:
        loaded = _serving(follower)
        content_type = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
        if len(body) <= SMALL_BODY:
            answer, probabilities = score(loaded, content_type, body)
        else:
            answer, probabilities = await to_thread.run_sync(score, loaded, content_type, body)
        telemetry.predicted(probabilities)
        _note(scope, loaded, len(probabilities))
        return _answer(answer, loaded)

    return invoke


def _add_predictions(app: FastAPI, follower: Follower, telemetry: Telemetry, invoke: Direct) -> None:
    @app.post("/invocations", openapi_extra=protocol.INVOCATIONS, responses=refusals(400, 401, 408, 413, 415, 503))
    async def invocations(request: Request) -> Response:
        """Probabilities of raw pixels, as `mlflow models serve` gives them; X-Model-Version says whose."""
        return await invoke(request.scope, await request.body())

    @app.post("/predict", openapi_extra=protocol.PREDICT, responses=refusals(400, 401, 408, 413, 415, 503))
    async def predict(request: Request, show: bool = False) -> Response:
        """The digit of a PNG or JPEG, or of several; `show=true`: with the 28x28 that the model saw."""
        loaded = _serving(follower)
        names, seen = await protocol.images_of_files(request)
        probabilities = loaded.predict(seen)
        telemetry.predicted(probabilities)
        _note(request.scope, loaded, len(probabilities))
        return _answer(protocol.digits_as_json(names, seen, probabilities, loaded, show), loaded)


def _add_facts(app: FastAPI, follower: Follower, telemetry: Telemetry) -> None:
    @app.get("/ping")
    async def ping() -> Response:
        """200 while the process lives."""
        return Response("\n", media_type="application/json")

    @app.get("/ready", responses=refusals(503))
    async def ready() -> dict[str, str]:
        """200 once a model is loaded."""
        loaded = _serving(follower)
        return {"model": loaded.name, "version": loaded.version}

    @app.get("/health", responses=refusals(503))
    async def health() -> dict[str, Any]:
        """Which version serves, and what is in the way of following the alias, if anything."""
        loaded = _serving(follower)
        return {
            "status": "following" if follower.trouble is None else "not following",
            "model": loaded.name,
            "alias": follower.alias,
            "version": loaded.version,
            "run_id": loaded.run_id,
            "trouble": follower.trouble,
        }

    @app.get("/version")
    async def version() -> Response:
        """MLflow's version, as its own server answers."""
        return Response(metadata.version("mlflow"), media_type="text/plain")

    @app.get("/metrics", responses=refusals(401))
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(telemetry.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    page = PAGE.read_bytes()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        """The page to draw on."""
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})


def _add_refusals(app: FastAPI, telemetry: Telemetry) -> None:
    """Every error in one form: a code and what to do."""

    def as_response(refusal: RefusalError) -> Response:
        return Response(refusal.body(), refusal.status, media_type="application/json")

    @app.exception_handler(RefusalError)
    async def refused(request: Request, error: RefusalError) -> Response:
        telemetry.errors.labels(error.code.lower()).inc()
        return as_response(error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        routes = "POST /invocations, POST /predict, GET / /ping /ready /health /version /metrics /openapi.json"
        path = request.url.path[:80]
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            response = as_response(RefusalError(405, "BAD_REQUEST", f"{request.method} {path}: use {allowed}"))
            response.headers["Allow"] = allowed
            return response
        telemetry.errors.labels(f"http_{error.status_code}").inc()
        words = f"no route {path}; there are {routes}" if error.status_code == 404 else str(error.detail)
        return as_response(RefusalError(error.status_code, "BAD_REQUEST", words))

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return as_response(RefusalError(400, protocol.INVALID, f"{where}: {first['msg']}"))
