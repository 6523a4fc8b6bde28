"""The service's routes."""

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from numpy.typing import NDArray
from prometheus_client.exposition import generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.registry.versions import Loaded
from pipeline.serving import protocol, schemas
from pipeline.serving.alias_watcher import Follower
from pipeline.serving.batching import Batcher
from pipeline.serving.hosts import Hosts
from pipeline.serving.metrics import Telemetry
from pipeline.serving.middleware import Admission, Observed, WholeBody
from pipeline.serving.refusals import handlers
from pipeline.serving.schemas import refusals

PAGE = Path(__file__).parent / "page.html"
SMALL_BODY = 256 * 1024  # a larger one is parsed beside the event loop, so that small ones need not wait for it
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)

Headers = dict[str, str]


class Exposition(PlainTextResponse):
    """Prometheus' text format."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"


class AsgiRoute(APIRoute):
    """A route that FastAPI describes and an ASGI application answers."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, lambda: None, **{**options, "name": endpoint.__name__, "description": endpoint.__doc__})
        self.app = endpoint


class ShortCut:
    """The way to the route of /invocations past FastAPI, which takes 1.2 times the processor's time for one image.

    Median of 60 interleaved pairs of half a second on two busy cores, quartiles 1.05 and 1.46.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.straight = {("POST", route.path): route.app for route in app.routes if isinstance(route, AsgiRoute)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.straight.get((scope["method"], scope["path"]), self.app)(scope, receive, send)


def make_app(follower: Follower, telemetry: Telemetry, token: str = "", hosts: Hosts | None = None) -> ASGIApp:
    """The service as an ASGI application.

    Without `token` clients need none; without `hosts` it may be called by names that nobody can take over.
    """
    app = FastAPI(
        title="Digits",
        description="What digit does an image show? MLflow's scoring protocol, and image files as they are.",
        version=metadata.version("mlflow"),
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=handlers(telemetry.errors),
    )
    batcher = Batcher(follower)
    _add_predictions(app, batcher, telemetry)
    _add_facts(app, follower, telemetry, batcher)
    routes = {path for route in app.routes if (path := getattr(route, "path", ""))}
    return Observed(Admission(WholeBody(ShortCut(app)), token, hosts or Hosts()), telemetry, routes)


def _add_predictions(app: FastAPI, batcher: Batcher, telemetry: Telemetry) -> None:
    described: dict[str, Any] = {"methods": ["POST"], "response_description": "the predictions"}
    described["responses"] = refusals(400, 401, 403, 408, 413, 415, 503, "4XX")  # the last in place of FastAPI's 422

    async def predicted(scope: Scope, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], Loaded, Headers]:
        loaded, probabilities = await batcher.predict(images)
        telemetry.predicted(probabilities)
        scope["state"]["facts"] = {"version": loaded.version, "images": len(images)}
        headers = {"x-model-name": loaded.name, "x-model-version": loaded.version, "content-type": "application/json"}
        return probabilities, loaded, headers

    async def invocations(scope: Scope, receive: Receive, send: Send) -> None:
        """Probabilities of raw pixels, as `mlflow models serve` gives them; X-Model-Version says whose."""
        batcher.serving()
        kind = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
        body = (await receive())["body"]
        if len(body) <= SMALL_BODY:
            images = protocol.images_of_json(kind, body)
        else:
            images = await to_thread.run_sync(protocol.images_of_json, kind, body)
        probabilities, _, headers = await predicted(scope, images)
        content = protocol.predictions_as_json(probabilities)
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        raw.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": content})

    app.router.add_api_route(
        "/invocations",
        invocations,
        response_model=schemas.Predictions,
        openapi_extra=schemas.PIXELS_SENT,
        route_class_override=AsgiRoute,
        **described,
    )

    @app.api_route("/predict", response_model=schemas.Digits, openapi_extra=schemas.FILES_SENT, **described)
    async def predict(request: Request, show: bool = False) -> Response:
        """The digit of a PNG or JPEG, or of several; `show=true`: with the 28x28 that the model saw."""
        batcher.serving()
        names, seen = await protocol.images_of_files(request)
        probabilities, loaded, headers = await predicted(request.scope, seen)
        digits = protocol.digits_of(names, seen, probabilities, loaded, show)
        return Response(digits.model_dump_json(), headers=headers)


def _add_facts(app: FastAPI, follower: Follower, telemetry: Telemetry, batcher: Batcher) -> None:
    @app.get("/ping", response_class=PlainTextResponse)
    async def ping() -> Response:
        """200 while the process lives."""
        return PlainTextResponse("\n")

    @app.get("/ready", responses=refusals(503))
    async def ready() -> schemas.Ready:
        """200 once a model is loaded."""
        loaded = batcher.serving()
        return schemas.Ready(model=loaded.name, version=loaded.version)

    @app.get("/health", responses=refusals(503))
    async def health() -> schemas.Health:
        """Which version serves, and what is in the way of following the alias, if anything."""
        loaded = batcher.serving()
        return schemas.Health(
            status="following" if follower.trouble is None else "not following",
            model=loaded.name,
            alias=follower.alias,
            version=loaded.version,
            run_id=loaded.run_id,
            trouble=follower.trouble,
        )

    @app.get("/version", response_class=PlainTextResponse, responses=refusals(403, 503))
    async def version() -> Response:
        """MLflow's version, as its own server answers."""
        return PlainTextResponse(metadata.version("mlflow"))

    @app.get("/metrics", response_class=Exposition, responses=refusals(401, 403, 503))
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Exposition(generate_latest(telemetry.registry))

    page = PAGE.read_bytes()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        """The page to draw on."""
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})
