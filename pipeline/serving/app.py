"""The service's routes."""

import copy
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from prometheus_client.exposition import generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.data_spec import DataSpec
from pipeline.registry.versions import Loaded
from pipeline.serving import protocol, schemas
from pipeline.serving.alias_watcher import AliasWatcher
from pipeline.serving.batching import Batcher
from pipeline.serving.hosts import Hosts
from pipeline.serving.metrics import Telemetry
from pipeline.serving.middleware import Admission, Observed, WholeBody
from pipeline.serving.refusals import handlers
from pipeline.serving.schemas import contract_of, refusals

PAGE = Path(__file__).parent / "page.html"
PRINTABLE = "".join(map(chr, range(32, 127)))  # what a header takes as it is
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


def make_app(watcher: AliasWatcher, telemetry: Telemetry, token: str = "", hosts: Hosts | None = None) -> ASGIApp:
    """The service as an ASGI application.

    Without `token` clients need none; without `hosts` it may be called by names that nobody can take over.
    """
    app = FastAPI(
        title="Model service",
        description="A registered model's predictions: MLflow's scoring protocol, and image files or rows as they are.",
        version=metadata.version("mlflow"),
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=handlers(telemetry.errors),
    )
    _add_predictions(app, watcher, telemetry)
    _add_facts(app, watcher, telemetry)
    _describe(app, watcher)
    routes = {path for route in app.routes if (path := getattr(route, "path", ""))}
    return Observed(Admission(WholeBody(ShortCut(app)), token, hosts or Hosts()), telemetry, routes)


def _describe(app: FastAPI, watcher: AliasWatcher) -> None:
    """Let /openapi.json tell what the version takes and gives that serves at the moment."""

    @lru_cache(maxsize=8)
    def described(spec: DataSpec) -> dict[str, Any]:
        document, contract = copy.deepcopy(FastAPI.openapi(app)), contract_of(spec)
        document["info"]["summary"] = spec.in_words()
        document["components"]["schemas"] |= contract.components
        for path, body in contract.bodies.items():
            document["paths"][path]["post"]["requestBody"] = body
        return document

    def openapi() -> dict[str, Any]:
        loaded = watcher.current
        return described(loaded.spec) if loaded else FastAPI.openapi(app)

    app.openapi = openapi  # type: ignore[method-assign]


def _add_predictions(app: FastAPI, watcher: AliasWatcher, telemetry: Telemetry) -> None:
    batcher = Batcher()
    described: dict[str, Any] = {"methods": ["POST"], "response_description": "the predictions"}
    described["responses"] = refusals(400, 401, 403, 408, 413, 415, 503, "4XX")  # the last in place of FastAPI's 422

    async def predicted(
        scope: Scope, loaded: Loaded, examples: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], Headers]:
        try:
            probabilities = await batcher.predict(loaded, examples)
        except InvalidArgument as error:  # shape and type are what it takes, so a value is none
            raise protocol.not_taken(error) from None
        if loaded.spec.kind == "table":
            protocol.check_probabilities(probabilities)
        telemetry.predicted(probabilities, loaded.spec.classes)
        scope["state"]["facts"] = {"version": loaded.version, "examples": len(examples)}
        headers = {"x-model-name": quote(loaded.name, PRINTABLE), "x-model-version": loaded.version}
        return probabilities, {**headers, "content-type": "application/json"}

    async def invocations(scope: Scope, receive: Receive, send: Send) -> None:
        """Probabilities of raw examples, as `mlflow models serve` gives them; X-Model-Version says whose."""
        loaded = watcher.serving()
        contract = contract_of(loaded.spec)
        kind = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
        body = (await receive())["body"]
        if len(body) <= SMALL_BODY:
            examples = protocol.examples_of_json(contract, kind, body)
        else:
            examples = await to_thread.run_sync(protocol.examples_of_json, contract, kind, body)
        probabilities, headers = await predicted(scope, loaded, examples)
        content = protocol.predictions_as_json(probabilities)
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        raw.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": content})

    app.router.add_api_route(
        "/invocations",
        invocations,
        response_model=schemas.Predictions,
        openapi_extra=schemas.UNKNOWN_EXAMPLES,
        route_class_override=AsgiRoute,
        **described,
    )

    @app.api_route("/predict", response_model=schemas.Answer, openapi_extra=schemas.UNKNOWN_FILES, **described)
    async def predict(request: Request, show: bool = False) -> Response:
        """The class of each image file, or of each row of a table; `show=true`: with the image that the model saw."""
        loaded = watcher.serving()
        contract = contract_of(loaded.spec)
        names, examples = await protocol.examples_of(request, contract)
        probabilities, headers = await predicted(request.scope, loaded, examples)
        answer = protocol.answer_of(names, examples, probabilities, loaded, contract, show)
        return Response(answer.model_dump_json(), headers=headers)


def _add_facts(app: FastAPI, watcher: AliasWatcher, telemetry: Telemetry) -> None:
    @app.get("/ping", response_class=PlainTextResponse)
    async def ping() -> Response:
        """200 while the process lives."""
        return PlainTextResponse("\n")

    @app.get("/ready", responses=refusals(503))
    async def ready() -> schemas.Ready:
        """200 once a model is loaded."""
        loaded = watcher.serving()
        return schemas.Ready(model=loaded.name, version=loaded.version)

    @app.get("/health", responses=refusals(503))
    async def health() -> schemas.Health:
        """Which version serves, and what is in the way of following the alias, if anything."""
        loaded = watcher.serving()
        return schemas.Health(
            status="following" if watcher.trouble is None else "not following",
            model=loaded.name,
            alias=watcher.alias,
            version=loaded.version,
            run_id=loaded.run_id,
            trouble=watcher.trouble,
        )

    @app.get("/model", responses=refusals(401, 403, 503))
    async def model() -> schemas.Model:
        """What the version that serves takes, and its classes."""
        loaded = watcher.serving()
        spec = loaded.spec
        return schemas.Model(
            model=loaded.name,
            version=loaded.version,
            kind=spec.kind,
            shape=list(spec.sent_shape),
            classes=list(spec.classes),
            features=list(spec.features),
            drawing=spec.drawing,
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
        """The page."""
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})
