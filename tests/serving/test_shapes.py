"""The service takes and gives what the version takes and gives that serves, whatever its shape and classes."""

import asyncio
import base64
import io
import json
from contextvars import ContextVar
from urllib.parse import urlencode

import httpx
import jsonschema_rs
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from starlette.requests import Request

from pipeline.data import Dataset
from pipeline.data_spec import MNIST, DataSpec
from pipeline.onnx_session import open_network
from pipeline.pixels import as_pixels
from pipeline.registry import predictor
from pipeline.registry.versions import Loaded
from pipeline.serving import protocol
from pipeline.serving.middleware import MAX_BODY
from pipeline.serving.refusals import RefusalError
from pipeline.serving.schemas import Contract, contract_of
from pipeline.training.onnx_export import export_onnx
from tests.asgi import ask, counted, parts_of, scope_of
from tests.fake_service import JSON, one, service_of
from tests.own_training_code import Embedded
from tests.small_models import FLOWERS, PHOTOS, SCANS, loaded_of

SPECS = {"colour": PHOTOS, "grey": SCANS, "table": FLOWERS, "mnist": MNIST}
INVALID = "INVALID_PARAMETER_VALUE"
PNG = [("Content-Type", "image/png")]
FORM = [("Content-Type", "application/x-www-form-urlencoded")]


@pytest.mark.parametrize("route", ["/predict", "/invocations"])
def test_a_category_that_the_network_does_not_know_is_the_requests_fault(tmp_path, route):
    rows = np.array([[1.0], [7.0]] * 4), np.arange(8) % 2
    data, path = Dataset(rows, rows, table=True), tmp_path / "network.onnx"
    export_onnx(Embedded(data.spec), data.spec, path, data.test.inputs)
    session = open_network(path)
    service = service_of(Loaded("orders", "1", "run1", session, session.get_inputs()[0].name, data.spec))
    body = json.dumps({"rows": [{"x0": 30}]} if route == "/predict" else {"inputs": [[30]]}).encode()
    answer = one(service, "POST", route, JSON, body)
    assert (answer.status, answer.json["error_code"]) == (400, INVALID)
    assert "idx=30 must be within" in answer.json["message"]


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """A version of each spec."""
    folder = tmp_path_factory.mktemp("networks")
    return {kind: loaded_of(spec, folder, str(k + 1)) for k, (kind, spec) in enumerate(SPECS.items())}


def examples_of(spec, count=3):
    random = np.random.default_rng(count)
    if spec.kind == "table":
        return random.normal(size=(count, *spec.shape)).astype(np.float32)
    return random.integers(0, 256, (count, *spec.sent_shape)).astype(np.float32)


def body_of(examples, key="inputs"):
    return json.dumps({key: examples.astype(float).tolist()}).encode()


def file_of(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def row_of(**changes):
    """A row that is right but for the changes; None takes a feature away."""
    row = {"petal length (cm)": 1.5, "class": -2, "x": 3e5} | changes
    return {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("whole", [True, False])
def test_raw_examples_of_every_shape_are_answered_by_all_classes(versions, kind, whole):
    loaded = versions[kind]
    examples = examples_of(loaded.spec)
    sent = examples.astype(int) if whole else examples
    answer = one(service_of(loaded), "POST", "/invocations", JSON, json.dumps({"inputs": sent.tolist()}).encode())
    assert answer.json == {"predictions": loaded.predict(sent.astype(np.float32)).astype(float).tolist()}


@pytest.mark.parametrize("kind", SPECS)
def test_what_another_version_takes_is_refused_with_what_this_one_does(versions, kind):
    loaded = versions[kind]
    service = service_of(loaded)
    for other in SPECS.keys() - {kind}:
        answer = one(service, "POST", "/invocations", JSON, body_of(examples_of(SPECS[other], 2)))
        found = (2, *SPECS[other].sent_shape)
        assert answer.refusal == (400, INVALID, f"found shape {found}; {contract_of(loaded.spec).expected.send}")


@pytest.mark.parametrize("kind", ["colour", "grey"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_an_image_file_is_what_it_would_have_been_in_training(versions, kind, mode):
    loaded = versions[kind]
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
    image = Image.fromarray(noise).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    answer = one(service_of(loaded), "POST", "/predict", PNG, buffer.getvalue(), query=b"show=true").json
    pixels = as_pixels(image, loaded.spec.sent_shape[:2], loaded.spec.shape[0])
    (found,) = answer["predictions"]
    (right,) = loaded.predict(pixels[None].astype(np.float32))
    assert found["probabilities"] == right.astype(float).tolist()
    assert found["class"] == loaded.spec.classes[right.argmax()]
    assert found["confidence"] == max(found["probabilities"])
    assert (answer["classes"], answer["version"]) == (list(loaded.spec.classes), loaded.version)
    seen = base64.b64decode(found["seen"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(seen))), pixels)


def test_only_a_drawing_is_centred_and_only_a_blank_drawing_is_refused(versions):
    blank = file_of(np.full((28, 28), 255))
    assert (
        one(service_of(versions["mnist"]), "POST", "/predict", PNG, blank).refusal[2].startswith("the image is blank")
    )
    assert one(service_of(versions["grey"]), "POST", "/predict", PNG, blank).status == 200


def test_what_is_no_image_is_told_without_a_word_of_digits_where_there_are_none(versions):
    answer = one(service_of(versions["colour"]), "POST", "/predict", PNG, b"seven")
    send = "send a PNG or JPEG file, at most 16 megapixels"
    assert answer.refusal == (400, INVALID, f"this is neither PNG nor JPEG; {send}")


def test_rows_are_taken_by_the_names_of_their_features_in_any_order(versions):
    loaded = versions["table"]
    rows = [row_of(), {"x": 5, "petal length (cm)": -0.5, "class": 2.5}]
    answer = one(
        service_of(loaded), "POST", "/predict", JSON, json.dumps({"rows": rows}).encode(), query=b"show=1"
    ).json
    right = loaded.predict(np.float32([[1.5, -2, 3e5], [-0.5, 2.5, 5]])).astype(float)
    assert answer == {
        "predictions": [
            {
                "name": f"row {number}",
                "class": FLOWERS.classes[row.argmax()],
                "confidence": row.max(),
                "probabilities": row.tolist(),
            }
            for number, row in enumerate(right, 1)
        ],
        "classes": list(FLOWERS.classes),
        "model": "pets",
        "version": "3",
    }


def test_one_row_may_come_as_a_form_of_either_type(versions):
    service = service_of(versions["table"])
    fields = {"petal length (cm)": " 1.5", "class": "-2", "x": "3e5"}
    right = one(service, "POST", "/predict", JSON, json.dumps({"rows": [row_of()]}).encode()).json
    assert one(service, "POST", "/predict", FORM, urlencode(fields).encode()).json == right
    made = httpx.Request("POST", "http://x", files={name: (None, value) for name, value in fields.items()})
    answer = one(service, "POST", "/predict", [("Content-Type", made.headers["content-type"])], made.read())
    assert answer.json == right


BAD_ROWS = {
    "missing": ([row_of(), row_of(x=None)], "row 2 lacks the feature x"),
    "unknown": ([row_of(colour=3)], "row 1 has colour, which is none of the features"),
    "text": ([row_of(x="5")], "row 1, x: found '5', expected a number"),
    "truth": ([row_of(x=True)], "row 1, x: found True, expected a number"),
    "null": ([{**row_of(), "class": None}], "row 1, class: found None, expected a number"),
    "a list": ([row_of(x=[1])], "row 1, x: found [1], expected a number"),
    "too large": ([row_of(x=1e39)], "row 1, x: found 1e+39, expected a number of float32"),
    "not by name": ([[1, 2, 3]], "row 1: found [1, 2, 3], expected {feature: number, ...}"),
    "none": ([], "found 0 rows; send 1 to 1024 at a time"),
    "too many": ([row_of()] * 1025, "found 1025 rows; send 1 to 1024 at a time"),
    "one without a list": (row_of(), "found no list of rows"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_wrong_row_is_refused_by_what_is_wrong_with_it(versions, case):
    rows, words = BAD_ROWS[case]
    answer = one(service_of(versions["table"]), "POST", "/predict", JSON, json.dumps({"rows": rows}).encode())
    assert answer.refusal[:2] == (400, INVALID)
    end = "; the features: petal length (cm), class, x"
    assert answer.refusal[2].startswith(words)
    assert answer.refusal[2].endswith(end) != ("at a time" in words)


@pytest.mark.parametrize("route", ["/invocations", "/predict"])
def test_a_row_that_becomes_infinite_within_the_network_is_refused_by_its_number_and_not_counted(versions, route):
    service = service_of(versions["table"])
    row = [3e38, -3e38, 3e38]
    content = (
        {"inputs": [[1, 2, 3], row]}
        if route == "/invocations"
        else {"rows": [row_of(), dict(zip(FLOWERS.features, row, strict=True))]}
    )
    answer = one(service, "POST", route, JSON, json.dumps(content).encode())
    words = "the model has no answer to row 2: its numbers are too large; send such as it was trained with"
    assert answer.refusal == (400, INVALID, words)
    assert counted(service, "predicted_class_total") == {}


BAD_FORMS = {
    "missing": ("petal+length+%28cm%29=1&class=2", "the row lacks the feature x"),
    "unknown": ("petal+length+%28cm%29=1&class=2&x=3&y=4", "the row has y, which is none of the features"),
    "text": ("petal+length+%28cm%29=1&class=2&x=many", "the row, x: found 'many', expected a number"),
    "empty": ("petal+length+%28cm%29=1&class=2&x=", "the row, x: found '', expected a number"),
    "infinite": ("petal+length+%28cm%29=1&class=2&x=inf", "the row, x: found inf, expected a number of float32"),
    "twice": ("petal+length+%28cm%29=1&class=2&x=3&x=4", "found a field more than once"),
}


@pytest.mark.parametrize("case", BAD_FORMS)
def test_a_wrong_form_is_refused_by_what_is_wrong_with_it(versions, case):
    body, words = BAD_FORMS[case]
    answer = one(service_of(versions["table"]), "POST", "/predict", FORM, body.encode())
    assert answer.refusal[:2] == (400, INVALID)
    assert answer.refusal[2].startswith(f"{words}; send ")


def table_of(*features):
    """The contract of a table with these features."""
    ones = (1.0,) * len(features)
    return Contract(DataSpec("table", (len(features),), ("a", "b"), features, ones, ones))


def read_form(contract, body, kind="application/x-www-form-urlencoded"):
    """The row that a form brings."""
    messages = iter(parts_of(body))

    async def receive():
        return next(messages)

    request = Request(scope_of("POST", "/predict", [("Content-Type", kind)]), receive)
    return asyncio.run(protocol.examples_of(request, contract))[1].tolist()


def refused_form(contract, body):
    """Status, code and words of the refusal."""
    with pytest.raises(RefusalError) as told:
        read_form(contract, body)
    return told.value.status, told.value.code, told.value.message


GREEK = table_of("größe", "μήκος & x")
FIELDS = {"μήκος & x": " 2.5", "größe": "1.75"}


def test_a_form_names_features_of_any_script_as_they_are_or_escaped():
    made = httpx.Request("POST", "http://x", files={name: (None, value) for name, value in FIELDS.items()})
    assert read_form(GREEK, made.read(), made.headers["content-type"]) == [[1.75, 2.5]]
    assert read_form(GREEK, urlencode(FIELDS).encode()) == [[1.75, 2.5]]
    assert read_form(GREEK, "größe=1.75&μήκος+%26 x=2.5".encode()) == [[1.75, 2.5]]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"gr\xf6\xdfe=1", "'utf-8' codec can't decode byte 0xf6 in position 2: invalid start byte"),
        (b"gr%F6%DFe=1", "'utf-8' codec can't decode byte 0xf6 in position 2: invalid start byte"),
        (b"x=1&" * 66 + b"x=1", "Max number of fields exceeded"),
    ],
)
def test_a_form_that_is_no_utf8_or_has_many_fields_is_refused_with_the_reason(body, reason):
    words = f"the form cannot be read ({reason}); {GREEK.send_rows}"
    assert refused_form(GREEK, body) == (400, "BAD_REQUEST", words)


def test_as_many_fields_as_features_and_64_are_looked_at():
    words = f"found a field more than once; {GREEK.send_rows}"
    assert refused_form(GREEK, b"x=1&" * 65 + b"x=1") == (400, INVALID, words)


def test_a_feature_or_a_field_may_be_called_rows():
    rows = table_of("rows", "x")
    assert read_form(rows, b"x=1&rows=2") == [[2, 1]]
    assert refused_form(rows, b"x=1") == (400, INVALID, f"the row lacks the feature rows; {rows.send_rows}")
    words = f"the row, rows: found 'two', expected a number; {rows.send_rows}"
    assert refused_form(rows, b"x=1&rows=two") == (400, INVALID, words)
    words = f"the row has rows, which is none of the features; {GREEK.send_rows}"
    assert refused_form(GREEK, "größe=1&μήκος %26 x=2&rows=3".encode()) == (400, INVALID, words)


def test_of_many_wrong_rows_the_first_alone_is_looked_into():
    rows = table_of(*(f"f{number}" for number in range(20)))
    with pytest.raises(ValidationError) as caught:
        rows.rows.validate_python({"rows": [{}] * 1000}, strict=True)
    assert caught.value.error_count() == 20


def test_of_many_features_that_are_none_the_first_alone_is_told(versions, monkeypatch):
    monkeypatch.setattr(protocol, "_validated", None)
    wrong = dict.fromkeys(("x", "y", *(f"y{number}" for number in range(10_000))), 1)
    answer = one(
        service_of(versions["table"]), "POST", "/predict", JSON, json.dumps({"rows": [row_of(), wrong]}).encode()
    )
    words = f"row 2 has y, which is none of the features; {Contract(FLOWERS).send_rows}"
    assert answer.refusal == (400, INVALID, words)


def test_an_image_is_no_row_and_a_row_no_image(versions):
    answer = one(service_of(versions["table"]), "POST", "/predict", PNG, file_of(np.zeros((9, 9))))
    assert answer.refusal == (415, "BAD_REQUEST", f"found content type 'image/png'; {Contract(FLOWERS).send_rows}")
    answer = one(service_of(versions["colour"]), "POST", "/predict", JSON, json.dumps({"rows": [row_of()]}).encode())
    assert answer.refusal == (415, "BAD_REQUEST", f"found content type 'application/json'; {protocol.SEND_FILES}")


def test_the_model_says_what_it_takes_to_whom_the_service_answers(versions):
    facts = {kind: one(service_of(loaded), path="/model").json for kind, loaded in versions.items()}
    assert facts["colour"] == {
        "model": "pets",
        "version": "1",
        "kind": "image",
        "shape": [6, 9, 3],
        "classes": ["cat", "cow", "dog"],
        "features": [],
        "drawing": "",
    }
    assert (facts["mnist"]["shape"], facts["mnist"]["drawing"]) == ([28, 28], "mnist")
    assert (facts["table"]["kind"], facts["table"]["shape"]) == ("table", [3])
    assert facts["table"]["features"] == ["petal length (cm)", "class", "x"]
    service = service_of(versions["colour"], "t0ken")
    assert one(service, path="/model").status == 401
    assert one(service, path="/model", headers=[("Authorization", "Bearer t0ken")]).status == 200


@pytest.mark.parametrize("route", ["/invocations", "/predict"])
def test_an_alias_that_moves_to_another_shape_between_reading_and_answering_changes_no_answer(
    versions, monkeypatch, route
):
    old, new = versions["grey"], versions["table"]
    service = service_of(old)

    def moving(function):
        def moved(*arguments):
            service.watcher.current = new
            return function(*arguments)

        return moved

    monkeypatch.setattr(protocol, "examples_of_json", moving(protocol.examples_of_json))
    monkeypatch.setattr(protocol, "read_image", moving(protocol.read_image))
    examples = examples_of(SCANS, 1)
    sent = (JSON, body_of(examples)) if route == "/invocations" else (PNG, file_of(examples[0]))
    answer = one(service, "POST", route, *sent)
    assert dict(answer.headers)["x-model-version"] == old.version
    (found,) = answer.json["predictions"]
    right = old.predict(examples)[0].astype(float).tolist()
    assert (found if route == "/invocations" else found["probabilities"]) == right
    assert service.watcher.current is new


def test_requests_of_one_moment_for_versions_of_different_shapes_are_each_answered_by_its_own(versions):
    kinds = list(SPECS) * 3
    service, its_own = service_of(versions["colour"]), ContextVar("the version that serves as a request comes")
    service.watcher.serving = its_own.get

    async def client(turn, kind):
        for _ in range(turn % 2):
            await asyncio.sleep(0)
        its_own.set(versions[kind])
        examples = examples_of(SPECS[kind], 1 + turn % 3)
        answer = await ask(service, "POST", "/invocations", JSON, body_of(examples))
        assert dict(answer.headers)["x-model-version"] == versions[kind].version
        right = versions[kind].predict(examples)
        assert np.abs(np.array(answer.json["predictions"]) - right).max() < 1e-6

    async def all_of_them():
        await asyncio.gather(*(client(turn, kind) for turn, kind in enumerate(kinds)))

    asyncio.run(all_of_them())
    assert counted(service, "requests_total") == {'{route="/invocations",status="200"}': len(kinds)}


def schema_of(service, route, kind="application/json"):
    """A schema that stands for itself, of a body that the route takes."""
    document = one(service, path="/openapi.json").json
    schema = document["paths"][route]["post"]["requestBody"]["content"][kind]["schema"]
    return {**schema, "components": document["components"]}


def is_taken(service, route, content):
    answer = one(service, "POST", route, JSON, json.dumps(content).encode())
    assert answer.status in (200, 400)
    return answer.status == 200


@pytest.mark.parametrize("kind", SPECS)
def test_the_description_of_raw_examples_allows_what_is_taken_and_forbids_what_is_not(versions, kind):
    spec, service = SPECS[kind], service_of(versions[kind])
    check = jsonschema_rs.Draft202012Validator(schema_of(service, "/invocations"))
    right = examples_of(spec, 2).astype(float).tolist()
    changed = json.loads(json.dumps(right))
    deepest = changed[1]
    while isinstance(deepest[-1], list):
        deepest = deepest[-1]
    sent = [{"inputs": right}, {"instances": right}, {"inputs": right, "instances": right}, {}, {"inputs": []}]
    sent += [{"inputs": right[0]}, {"inputs": (right * 600)[: contract_of(spec).most + 1]}, {"inputs": [right]}]
    sent += [{"inputs": examples_of(other).astype(float).tolist()} for other in SPECS.values()]
    for wrong in ("5", None, -1, 256, 1e39, [1]):
        deepest[-1] = wrong
        sent.append({"inputs": json.loads(json.dumps(changed))})
    sent.append({"inputs": (np.zeros((1, *spec.sent_shape)) + 0.5).tolist()})
    sent.append({"inputs": np.zeros((1, *spec.sent_shape)).tolist()})
    taken = [is_taken(service, "/invocations", content) for content in sent]
    assert [check.is_valid(content) for content in sent] == taken
    assert (taken[:5], taken[-1]) == ([True, True, False, False, False], True)


def test_the_description_of_rows_allows_what_is_taken_and_forbids_what_is_not(versions):
    service = service_of(versions["table"])
    check = jsonschema_rs.Draft202012Validator(schema_of(service, "/predict"))
    sent = [{"rows": rows} for rows, _ in BAD_ROWS.values()] + [{}, {"rows": [row_of()], "more": 1}, [row_of()]]
    assert not any(check.is_valid(content) or is_taken(service, "/predict", content) for content in sent)
    right = {"rows": [row_of(), row_of(x=0)]}
    assert check.is_valid(right)
    assert is_taken(service, "/predict", right)


@pytest.mark.parametrize("kind", SPECS)
def test_answers_are_as_described_and_those_of_other_classes_are_not(versions, kind):
    loaded = versions[kind]
    service = service_of(loaded)
    document = one(service, path="/openapi.json").json
    check = {
        name: jsonschema_rs.Draft202012Validator({**document["components"]["schemas"][name], **document})
        for name in ("Answer", "Predictions")
    }
    raw = one(service, "POST", "/invocations", JSON, body_of(examples_of(loaded.spec))).json
    pixels = np.zeros((28, 28))
    pixels[8:20, 12:15] = 255
    sent = (JSON, json.dumps({"rows": [row_of()]}).encode()) if kind == "table" else (PNG, file_of(pixels))
    answer = one(service, "POST", "/predict", *sent).json
    assert check["Predictions"].is_valid(raw)
    assert check["Answer"].is_valid(answer)
    answer["predictions"][0]["class"] = "unheard of"
    raw["predictions"][1].append(0)
    assert not check["Predictions"].is_valid(raw)
    assert not check["Answer"].is_valid(answer)


def test_the_description_follows_the_version_that_serves_and_before_one_does_has_no_shape(versions):
    service = service_of(None)
    unknown = schema_of(service, "/invocations")
    assert {key: value for key, value in unknown.items() if key != "components"} == {"type": "object"}
    for kind in ("colour", "table", "mnist", "colour"):
        service.watcher.current = versions[kind]
        inputs = schema_of(service, "/invocations")["properties"]["inputs"]
        for length in SPECS[kind].sent_shape:
            inputs = inputs["items"]
            assert (inputs["minItems"], inputs["maxItems"]) == (length, length)
        document = one(service, path="/openapi.json").json
        assert document["info"]["summary"] == SPECS[kind].in_words()
        kinds = document["paths"]["/predict"]["post"]["requestBody"]["content"].keys()
        assert ("application/json" in kinds, "image/png" in kinds) == (kind == "table", kind != "table")


SIZES = {(1, 28, 28): (1024, 64), (3, 64, 64): (341, 64), (3, 224, 224): (27, 27), (3, 3000, 3000): (1, 1)}


@pytest.mark.parametrize("shape", SIZES)
def test_large_images_are_fewer_a_request_and_one_is_always_taken(shape):
    contract = Contract(DataSpec("image", shape, ("a", "b")))
    assert (contract.most, contract.files) == SIZES[shape]
    documented = contract.bodies["/invocations"]["content"]["application/json"]["schema"]["properties"]["inputs"]
    form = contract.bodies["/predict"]["content"]["multipart/form-data"]["schema"]
    assert documented["maxItems"] == contract.most
    assert form["properties"]["file"]["maxItems"] == contract.files
    assert f"at most {contract.files};" in form["description"]


def test_as_many_small_photographs_as_a_request_may_bring_fit_into_a_body():
    """64x64 colours of two digits a level, as JavaScript writes them."""
    image = json.dumps(np.full((64, 64, 3), 99).tolist(), separators=(",", ":"))
    assert len(image) * Contract(DataSpec("image", (3, 64, 64), ("a", "b"))).most < MAX_BODY


@pytest.mark.parametrize("kind", SPECS)
def test_what_is_enforced_is_what_the_models_own_check_takes(versions, kind):
    assert contract_of(SPECS[kind]).expected == predictor.expected_by(versions[kind].session)


def test_predictions_are_counted_by_the_names_of_the_classes(versions):
    loaded = versions["colour"]
    service = service_of(loaded)
    examples = examples_of(PHOTOS, 9)
    one(service, "POST", "/invocations", JSON, body_of(examples))
    best = [PHOTOS.classes[number] for number in loaded.predict(examples).argmax(axis=1)]
    right = {f'{{class="{name}"}}': best.count(name) for name in best}
    assert counted(service, "predicted_class_total") == right
