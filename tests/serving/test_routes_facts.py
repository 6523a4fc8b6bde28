"""What the service tells of itself, what it refuses and how it describes itself, to the letter."""

from importlib import metadata

import pytest
from starlette.exceptions import HTTPException

from pipeline.serving import app as module
from pipeline.serving.hosts import Hosts
from pipeline.serving.refusals import RefusalError
from tests.asgi import counted
from tests.fake_service import Model, one, service_of

ROUTES = "POST /invocations, POST /predict, GET / /model /ping /ready /health /version /metrics /openapi.json"
BUSY = "no model serves yet (it is being loaded); ask /ready, try again later"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/invocations"), ("POST", "/predict"), ("GET", "/ready"), ("GET", "/health"), ("GET", "/model")],
)
def test_before_a_version_serves_all_but_ping_are_refused_with_the_reason(method, path):
    service = service_of(None)
    answer = one(service, method, path, body=b"what is sent does not matter yet" if method == "POST" else b"")
    assert answer.refusal == (503, "TEMPORARILY_UNAVAILABLE", BUSY)
    assert counted(service, "errors_total") == {'{kind="temporarily_unavailable"}': 1}
    assert one(service, path="/ping").status == 200
    away = service_of(None, trouble="the registry is away")
    assert one(away, method, path).json["message"] == BUSY.replace("it is being loaded", "the registry is away")


def test_facts_are_told_as_they_are():
    service = service_of(Model(7))
    assert one(service, path="/ping").body == b"\n"
    assert one(service, path="/ready").json == {"model": "mnist-mlp", "version": "7"}
    facts = {"status": "following", "model": "mnist-mlp", "alias": "champion", "version": "7", "run_id": "run7"}
    assert one(service, path="/health").json == {**facts, "trouble": None}
    service.watcher.trouble = "no answer"
    assert one(service, path="/health").json == {**facts, "status": "not following", "trouble": "no answer"}
    assert one(service, path="/version").body.decode() == metadata.version("mlflow")
    metrics = one(service, path="/metrics")
    assert dict(metrics.headers)["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b'pipeline_requests_total{route="/health",status="200"} 2.0' in metrics.body
    assert one(service, path="/metrics").body.count(b"\npipeline_requests_total{") == 5


def test_the_page_is_given_with_a_policy_that_lets_it_load_nothing_from_elsewhere():
    page = one(service_of(None), path="/")
    assert page.body == module.PAGE.read_bytes()
    assert dict(page.headers)["content-type"] == "text/html; charset=utf-8"
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; "
    assert dict(page.headers)["content-security-policy"] == policy + "connect-src 'self'"


@pytest.mark.parametrize("path", ["/predictions", "/ping/", "/docs", "/redoc", "/" + "a" * 100])
def test_a_path_that_is_no_route_is_refused_with_those_that_are(path):
    service = service_of(Model(1))
    answer = one(service, path=path)
    assert answer.refusal == (404, "BAD_REQUEST", f"no route {path[:80]}; there are {ROUTES}")
    assert dict(answer.headers)["content-type"] == "application/json"
    assert counted(service, "errors_total") == {'{kind="http_404"}': 1}
    assert counted(service, "requests_total") == {'{route="(other)",status="404"}': 1}


METHODS = {("GET", "/invocations"): "POST", ("PUT", "/predict"): "POST", ("DELETE", "/ping"): "GET, HEAD"}


@pytest.mark.parametrize(("method", "path"), METHODS)
def test_another_method_is_refused_with_the_one_that_is_allowed(method, path):
    service, allowed = service_of(Model(1)), METHODS[method, path]
    answer = one(service, method, path)
    assert answer.refusal == (405, "BAD_REQUEST", f"{method} {path}: use {allowed}")
    assert dict(answer.headers)["allow"] == allowed
    assert counted(service, "errors_total") == {'{kind="http_405"}': 1}
    assert counted(service, "requests_total") == {f'{{route="{path}",status="405"}}': 1}


def test_the_frameworks_other_refusals_have_the_form_of_all():
    service = service_of(Model(1))

    @service.framework.get("/teapot")
    async def teapot():
        raise HTTPException(418, "short and stout")

    @service.framework.get("/forbidden")
    async def forbidden():
        raise HTTPException(405, headers={})

    assert one(service, path="/teapot").refusal == (418, "BAD_REQUEST", "short and stout")
    assert counted(service, "errors_total") == {'{kind="http_418"}': 1}
    assert one(service, path="/forbidden").refusal == (405, "BAD_REQUEST", "GET /forbidden: use another method")


def test_a_refusal_from_within_a_route_keeps_status_and_code():
    service = service_of(Model(1))

    @service.framework.get("/refused")
    async def refused():
        raise RefusalError(409, "SOME_CODE", "not now")

    answer = one(service, path="/refused")
    assert answer.refusal == (409, "SOME_CODE", "not now")
    assert dict(answer.headers)["content-type"] == "application/json"
    assert counted(service, "errors_total") == {'{kind="some_code"}': 1}


def test_a_fault_within_the_framework_is_told_as_all_are_and_counted_once():
    service = service_of(Model(1))

    @service.framework.get("/broken")
    async def broken():
        raise ZeroDivisionError

    answer = one(service, path="/broken")
    assert answer.refusal == (500, "INTERNAL_ERROR", "the service failed; its log says why")
    assert counted(service, "errors_total") == {'{kind="internal_error"}': 1}


def test_token_and_names_are_those_that_were_given():
    service = service_of(Model(1), "t0ken")
    assert one(service, path="/metrics").status == 401
    assert one(service, path="/metrics", headers=[("Authorization", "Bearer t0ken")]).status == 200
    evil = [("Host", "evil.example")]
    assert one(service_of(Model(1)), path="/", headers=evil).status == 403
    assert one(service_of(Model(1), hosts=Hosts(["evil.example"])), path="/", headers=evil).status == 200


def test_each_route_is_counted_under_its_own_name():
    service = service_of(Model(1))
    for path in ("/", "/model", "/ping", "/ready", "/health", "/version", "/metrics", "/openapi.json"):
        one(service, path=path)
    assert sorted(counted(service, "requests_total")) == sorted(
        f'{{route="{path}",status="200"}}'
        for path in ("/", "/model", "/ping", "/ready", "/health", "/version", "/metrics", "/openapi.json")
    )


def test_the_description_names_routes_refusals_and_what_they_are_for():
    described = one(service_of(None), path="/openapi.json").json
    words = "A registered model's predictions: MLflow's scoring protocol, and image files or rows as they are."
    assert described["info"] == {
        "title": "Model service",
        "description": words,
        "version": metadata.version("mlflow"),
    }
    found = {
        path: {m: sorted(each["responses"]) for m, each in ways.items()} for path, ways in described["paths"].items()
    }
    asked = ["200", "400", "401", "403", "408", "413", "415", "4XX", "503"]
    assert found["/invocations"].keys() == found["/predict"].keys() == {"post"}
    assert found["/invocations"]["post"] == asked
    assert found["/predict"]["post"] == asked
    assert found["/ping"] == {"get": ["200"]}
    assert found["/ready"] == found["/health"] == {"get": ["200", "503"]}
    assert found["/version"] == {"get": ["200", "403", "503"]}
    assert found["/metrics"] == {"get": ["200", "401", "403", "503"]}
    assert found["/model"] == {"get": ["200", "401", "403", "503"]}
    assert len(found) == 8
    paths = described["paths"]
    assert list(paths["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain; version=0.0.4; charset=utf-8"]
    assert list(paths["/ping"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
