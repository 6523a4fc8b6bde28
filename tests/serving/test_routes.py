"""Whatever happens beside it, every client gets the answer to its own images, of the one version that it names."""

import asyncio
import base64
import io

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data_spec import MNIST
from pipeline.serving import app as module
from pipeline.serving import protocol
from pipeline.serving.middleware import WholeBody
from pipeline.serving.schemas import contract_of
from tests.asgi import ask, counted
from tests.fake_service import JSON, Model, file_of, form_of, image, one, pixels_of, probabilities_of, service_of


async def invoke(service, marks):
    """Ask for raw pixels; the answer must be that of these marks by the version that it names."""
    answer = await ask(service, "POST", "/invocations", JSON, pixels_of(marks))
    version = dict(answer.headers)["x-model-version"]
    right = probabilities_of(np.stack([image(mark) for mark in marks]), version).astype(float)
    assert answer.json == {"predictions": right.tolist()}
    assert dict(answer.headers)["x-model-name"] == "mnist-mlp"
    return version


async def predict(service, marks):
    """The same with files."""
    answer = await ask(service, "POST", "/predict", *form_of(marks))
    version = dict(answer.headers)["x-model-version"]
    right = probabilities_of(np.stack([image(mark) for mark in marks]), version).astype(float).tolist()
    found = answer.json
    assert (found["model"], found["version"]) == ("mnist-mlp", version)
    assert [each["name"] for each in found["predictions"]] == [f"{mark}.png" for mark in marks]
    assert [each["class"] for each in found["predictions"]] == [str(mark % 10) for mark in marks]
    assert [each["probabilities"] for each in found["predictions"]] == right
    return version


@pytest.mark.parametrize("ask_for", [invoke, predict])
def test_an_alias_that_moves_in_the_middle_of_a_request_changes_neither_its_answer_nor_the_version_named(ask_for):
    class Moving(Model):
        def predict(self, images):
            service.watcher.current = Model(2)
            return super().predict(images)

    service = service_of(Moving(1))
    assert [asyncio.run(ask_for(service, [101, 202])) for _ in range(2)] == ["1", "2"]
    assert [line["version"] for line in service.lines] == ["1", "2"]


MARKS = st.lists(st.integers(100, 255), min_size=1, max_size=3)
CLIENTS = st.tuples(
    st.sampled_from([invoke, predict, "moves"]), MARKS, st.integers(0, 6), st.none() | st.integers(0, 9)
)


@settings(max_examples=40, phases=[Phase.generate])  # to shrink what fails takes minutes, for the files' threads
@given(st.lists(CLIENTS, min_size=1, max_size=8))
def test_each_gets_the_answer_to_its_own_images_by_the_version_it_names_whatever_happens_beside_it(clients):
    """Clients come after so many turns of the event loop, some leave after so many more; in between the alias moves."""
    models = {str(version): Model(version) for version in range(1, 12)}
    service = service_of(models["1"])

    async def client(kind, marks, before, patience):
        for _ in range(before):
            await asyncio.sleep(0)
        if kind == "moves":
            service.watcher.current = models[str(int(service.watcher.current.version) + 1)]
            return None
        asking = asyncio.ensure_future(kind(service, marks))
        if patience is not None:
            for _ in range(patience):
                await asyncio.sleep(0)
            asking.cancel()
        return await asking

    async def all_of_them():
        return await asyncio.gather(*(client(*each) for each in clients), return_exceptions=True)

    for found, (kind, _, _, patience) in zip(asyncio.run(all_of_them()), clients, strict=True):
        if isinstance(found, asyncio.CancelledError):
            assert patience is not None
        else:
            assert found is None if kind == "moves" else found in models


def test_requests_of_one_moment_are_one_batch_and_each_is_counted_alone():
    service = service_of(Model(1))

    async def all_of_them():
        await asyncio.gather(*(invoke(service, [100 + 3 * k, 200 - k][: 1 + k % 2]) for k in range(6)))

    asyncio.run(all_of_them())
    assert service.watcher.current.batches == [9]
    assert counted(service, "batch_examples_count") == {"": 6}
    assert counted(service, "batch_examples_sum") == {"": 9}
    assert sum(counted(service, "predicted_class_total").values()) == 9
    assert counted(service, "requests_total") == {'{route="/invocations",status="200"}': 6}
    assert [(line["version"], line["examples"]) for line in service.lines] == [("1", 1), ("1", 2)] * 3


def test_an_example_that_a_model_fails_at_fails_its_own_request_and_none_of_its_batch_or_the_next(caplog):
    service = service_of(Model(1))

    async def post(marks):
        return await ask(service, "POST", "/invocations", JSON, pixels_of(marks))

    async def all_of_them():
        return await asyncio.gather(post([100]), post([13]), post([120, 130]))

    before, failed, after = asyncio.run(all_of_them())
    assert failed.refusal == (500, "INTERNAL_ERROR", "the service failed; its log says why")
    assert (before.status, after.status) == (200, 200)
    assert asyncio.run(invoke(service, [100, 13 + 100])) == "1"
    assert counted(service, "errors_total") == {'{kind="internal_error"}': 1}
    assert sum(counted(service, "predicted_class_total").values()) == 1 + 2 + 2


@pytest.mark.parametrize("key", ["inputs", "instances"])
def test_raw_pixels_are_answered_under_either_key(key):
    answer = one(service_of(Model(3)), "POST", "/invocations", JSON, pixels_of([107, 204], key))
    assert [[row.index(max(row)), max(row)] for row in answer.json["predictions"]] == [[7, 0.59375], [4, 0.59375]]
    assert [name for name, _ in answer.headers] == [
        "x-model-name",
        "x-model-version",
        "content-type",
        "content-length",
    ]
    assert dict(answer.headers)["content-type"] == "application/json"


def test_a_large_body_is_parsed_beside_the_event_loop_and_a_small_one_in_it(monkeypatch):
    aside = []

    async def run_sync(function, *arguments):
        aside.append(len(arguments[2]))
        return function(*arguments)

    monkeypatch.setattr(module.to_thread, "run_sync", run_sync)
    service = service_of(Model(1))
    small = pixels_of([100, 200]).ljust(256 * 1024)
    for body in (small, small + b" "):
        answer = one(service, "POST", "/invocations", JSON, body)
        assert [row.index(max(row)) for row in answer.json["predictions"]] == [0, 0]
    assert aside == [256 * 1024 + 1]


@pytest.mark.parametrize("show", ["", "?show=false", "?show=true"])
def test_a_file_is_answered_and_shown_if_asked_for(show):
    service = service_of(Model(2))
    query = show.removeprefix("?").encode()
    answer = one(service, "POST", "/predict", [("Content-Type", "image/png")], file_of(123), query=query)
    assert answer.status == 200
    (found,) = answer.json["predictions"]
    assert (found["name"], found["class"], found["confidence"]) == ("image", "3", 0.5625)
    assert (answer.json["version"], dict(answer.headers)["x-model-version"]) == ("2", "2")
    if show.endswith("true"):
        seen = base64.b64decode(found["seen"].removeprefix("data:image/png;base64,"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(seen))), image(123))
    else:
        assert "seen" not in found
    (line,) = service.lines
    assert (line["version"], line["examples"], line["path"]) == ("2", 1, "/predict")
    assert counted(service, "batch_examples_sum") == {"": 1}
    assert counted(service, "requests_total") == {'{route="/predict",status="200"}': 1}


NAMES = {
    "mnist-mlp": "mnist-mlp",
    "50 % off, a+b/~": "50 % off, a+b/~",
    "数字-mlp": "%E6%95%B0%E5%AD%97-mlp",
    "größe 1": "gr%C3%B6%C3%9Fe 1",
    "two\r\nlines": "two%0D%0Alines",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("route", ["/invocations", "/predict"])
def test_a_model_may_have_a_name_that_no_header_takes(route, name):
    model = Model(1)
    model.name = name
    sent = (JSON, pixels_of([123])) if route == "/invocations" else ([("Content-Type", "image/png")], file_of(123))
    answer = one(service_of(model), "POST", route, *sent)
    assert (answer.status, dict(answer.headers)["x-model-name"]) == (200, NAMES[name])
    assert answer.json.get("model", name) == name


def test_a_flag_that_is_none_is_refused_by_its_name():
    service = service_of(Model(1))
    answer = one(service, "POST", "/predict", [("Content-Type", "image/png")], file_of(123), query=b"show=perhaps")
    words = "query.show: Input should be a valid boolean, unable to interpret input"
    assert answer.refusal == (400, "INVALID_PARAMETER_VALUE", words)
    assert counted(service, "errors_total") == {'{kind="invalid_parameter_value"}': 1}


@pytest.mark.parametrize("path", ["/invocations", "/predict"])
def test_what_cannot_be_read_is_refused_and_counted_once(path):
    service = service_of(Model(1))
    answer = one(service, "POST", path, [("Content-Type", "text/x")], b"seven")
    send = contract_of(MNIST).send_json if path == "/invocations" else protocol.SEND_FILES
    assert answer.refusal == (415, "BAD_REQUEST", f"found content type 'text/x'; {send}")
    assert counted(service, "errors_total") == {'{kind="bad_request"}': 1}
    assert counted(service, "predicted_class_total") == {}


def test_the_short_cut_leads_to_the_route_that_the_framework_describes_and_knows():
    service = service_of(Model(1))
    (route,) = [route for route in service.framework.routes if route.path == "/invocations"]
    for app in (service, WholeBody(service.framework), WholeBody(route.app)):
        answer = one(app, "POST", "/invocations", JSON, pixels_of([107, 204]))
        assert [row.index(max(row)) for row in answer.json["predictions"]] == [7, 4]
        assert dict(answer.headers)["content-type"] == "application/json"
        assert dict(answer.headers)["x-model-version"] == "1"
    for headers, status in ((JSON, 400), ([("Content-Type", "text/x")], 415)):
        assert one(service, "POST", "/invocations", headers, b"[]").status == status
        assert one(WholeBody(service.framework), "POST", "/invocations", headers, b"[]").status == status
