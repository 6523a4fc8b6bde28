"""The service's routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from pipeline.registry.versions import Loaded
from pipeline.serving import protocol
from pipeline.serving.alias_watcher import Follower
from pipeline.serving.batching import Batcher
from pipeline.serving.hosts import Hosts
from pipeline.serving.metrics import Telemetry
from pipeline.serving.middleware import Answer, Direct, Gate, RefusalError
from pipeline.serving.protocol import refusals

PAGE = Path(__file__).parent / "page.html"
SMALL_BODY = 256 * 1024  # a larger one is parsed beside the event loop, so that small ones need not wait for it
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)


class Exposition(PlainTextResponse):
    """Prometheus' text format."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"


def make_app(follower: Follower, telemetry: Telemetry, token: str = "", hosts: Hosts | None = None) -> Gate:
    """The service as an ASGI application.

    Args:
        follower: knows the version that serves.
        telemetry: counts.
        token: what clients must send; empty: nothing.
        hosts: the names it may be called by; None: those that nobody can take over.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        follower.start()
        yield
        follower.stop()
        telemetry.access.flush()

    app = FastAPI(
        title="Digits",
        description="What digit does an image show? MLflow's scoring protocol, and image files as they are.",
        version=metadata.version("mlflow"),
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    batcher = Batcher(follower)
    invoke = _invoker(batcher, telemetry)
    _add_predictions(app, batcher, telemetry, invoke)
    _add_facts(app, follower, telemetry, batcher)
    _add_refusals(app, telemetry)
    routes = {path for route in app.routes if (path := getattr(route, "path", ""))}
    return Gate(app, {("POST", "/invocations"): invoke}, telemetry, token, routes, hosts or Hosts())


def _invoker(batcher: Batcher, telemetry: Telemetry) -> Direct:
    """The answer to /invocations, which the gate gives itself: FastAPI's routing would take a third of its time."""

    async def invoke(content_type: str, body: bytes) -> Answer:
        batcher.serving()
        if len(body) <= SMALL_BODY:
            images = protocol.images_of_json(content_type, body)
        else:
            images = await to_thread.run_sync(protocol.images_of_json, content_type, body)
        loaded, probabilities = await batcher.predict(images)
        telemetry.predicted(probabilities)
        return _answer(protocol.predictions_as_json(probabilities), loaded, len(images))

    return invoke


def _answer(body: bytes, loaded: Loaded, images: int) -> Answer:
    headers = {"x-model-name": loaded.name, "x-model-version": loaded.version}
    return Answer(body, headers, {"version": loaded.version, "images": images})


def _add_predictions(app: FastAPI, batcher: Batcher, telemetry: Telemetry, invoke: Direct) -> None:
    def respond(request: Request, answer: Answer) -> Response:
        request.scope.setdefault("state", {})["facts"] = answer.facts
        return Response(answer.body, media_type="application/json", headers=answer.headers)

    @app.post("/invocations", openapi_extra=protocol.INVOCATIONS, responses=refusals(400, 401, 403, 408, 413, 415, 503))
    async def invocations(request: Request) -> Response:
        """Probabilities of raw pixels, as `mlflow models serve` gives them; X-Model-Version says whose."""
        return respond(request, await invoke(request.headers.get("content-type", ""), await request.body()))

    @app.post("/predict", openapi_extra=protocol.PREDICT, responses=refusals(400, 401, 403, 408, 413, 415, 503))
    async def predict(request: Request, show: bool = False) -> Response:
        """The digit of a PNG or JPEG, or of several; `show=true`: with the 28x28 that the model saw."""
        batcher.serving()
        names, seen = await protocol.images_of_files(request)
        loaded, probabilities = await batcher.predict(seen)
        telemetry.predicted(probabilities)
        body = protocol.digits_as_json(names, seen, probabilities, loaded, show)
        return respond(request, _answer(body, loaded, len(seen)))


def _add_facts(app: FastAPI, follower: Follower, telemetry: Telemetry, batcher: Batcher) -> None:
    @app.get("/ping", response_class=PlainTextResponse)
    async def ping() -> Response:
        """200 while the process lives."""
        return PlainTextResponse("\n")

    @app.get("/ready", responses=refusals(503))
    async def ready() -> dict[str, str]:
        """200 once a model is loaded."""
        loaded = batcher.serving()
        return {"model": loaded.name, "version": loaded.version}

    @app.get("/health", responses=refusals(503))
    async def health() -> dict[str, Any]:
        """Which version serves, and what is in the way of following the alias, if anything."""
        loaded = batcher.serving()
        return {
            "status": "following" if follower.trouble is None else "not following",
            "model": loaded.name,
            "alias": follower.alias,
            "version": loaded.version,
            "run_id": loaded.run_id,
            "trouble": follower.trouble,
        }

    @app.get("/version", response_class=PlainTextResponse, responses=refusals(403, 503))
    async def version() -> Response:
        """MLflow's version, as its own server answers."""
        return PlainTextResponse(metadata.version("mlflow"))

    @app.get("/metrics", response_class=Exposition, responses=refusals(401, 403, 503))
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Exposition(telemetry.exposition())

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
            allowed = "GET, HEAD" if allowed == "GET" else allowed
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
