"""MLflow's scoring protocol: each image read exactly, each answer given exactly, each refusal in words."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data_spec import MNIST, DataSpec
from pipeline.registry import predictor
from pipeline.registry.predictor import Expected
from pipeline.serving import protocol, schemas
from pipeline.serving.refusals import RefusalError
from pipeline.serving.schemas import Contract

SEND = "send raw pixels: float32 of shape (N, 28, 28), each in 0..255, 0 the background, 255 the stroke"
SEND_JSON = f'send {{"inputs": [image, ...]}} as application/json; {SEND}'
INVALID = "INVALID_PARAMETER_VALUE"
CONTRACT = Contract(MNIST)
check_images = partial(predictor.check_inputs, expected=CONTRACT.expected)


def images_of(count, first=0):
    """Images of which no two are alike, each with every level from 0 to 255."""
    levels = np.arange(28 * 28).reshape(28, 28)
    return np.stack([(levels * 3 + 7 * number) % 256 for number in range(first, first + count)])


def read(content, kind="application/json"):
    return protocol.examples_of_json(
        CONTRACT, kind, content if isinstance(content, bytes) else json.dumps(content).encode()
    )


def refused(content, kind="application/json"):
    """Status, code and words of the refusal."""
    with pytest.raises(RefusalError) as told:
        read(content, kind)
    return told.value.status, told.value.code, told.value.message


@pytest.mark.parametrize("key", ["inputs", "instances"])
@pytest.mark.parametrize("fraction", [0, 0.25])
def test_every_pixel_of_every_image_arrives_in_its_place(key, fraction):
    images = (images_of(5) + fraction).clip(0, 255)
    found = read({key: images.tolist()})
    assert (found.dtype, found.shape) == (np.float32, (5, 28, 28))
    assert np.array_equal(found, images)


@pytest.mark.parametrize(
    "kind", ["application/json", "", " ", "Application/JSON", "application/json; charset=utf-8", " application/json ;x"]
)
def test_a_type_of_json_or_none_is_taken(kind):
    assert np.array_equal(read({"inputs": images_of(1).tolist()}, kind), images_of(1))


@pytest.mark.parametrize("kind", ["text/csv", "application/jsonl", "application/x; application/json", "x" * 100])
def test_another_type_is_refused_by_its_name(kind):
    words = f"found content type {kind[:80]!r}; {SEND_JSON}"
    assert refused({"inputs": images_of(1).tolist()}, kind) == (415, "BAD_REQUEST", words)


def test_what_is_no_json_is_refused_with_the_parsers_reason():
    reason = "unexpected character, expected a JSON value: line 1 column 2 (char 1)"
    assert refused(b"[x]") == (400, "BAD_REQUEST", f"the body is not JSON ({reason}); {SEND_JSON}")


def test_a_parsers_reason_is_cut_short(monkeypatch):
    class Parser:
        JSONDecodeError = json.JSONDecodeError

        @staticmethod
        def loads(body):
            raise json.JSONDecodeError("x" * 200, "", 0)

    monkeypatch.setattr(protocol, "orjson", Parser)
    assert refused(b"") == (400, "BAD_REQUEST", f"the body is not JSON ({'x' * 120}); {SEND_JSON}")


FORMS = {
    "dataframe_split": ({"dataframe_split": {"columns": [], "data": []}}, "the keys ['dataframe_split']"),
    "dataframe_records": ({"dataframe_records": [{}]}, "the keys ['dataframe_records']"),
    "no inputs": ({"b": 1, "a": 2}, "the keys ['a', 'b']"),
    "nothing": ({}, "the keys []"),
    "null": ({"inputs": None}, "the keys ['inputs']"),
    "many keys": (dict.fromkeys("gfedcba", 1), "the keys ['a', 'b', 'c', 'd', 'e']"),
    "a long key": ({"k" * 200: 1}, f"the keys ['{'k' * 200}"[:120]),
    "a list": ([1], "list"),
    "text": ("inputs", "str"),
    "a number": (5, "int"),
    "truth": (True, "bool"),
    "none": (None, "NoneType"),
}


@pytest.mark.parametrize("form", FORMS)
def test_another_form_is_refused_by_what_was_found(form):
    content, found = FORMS[form]
    assert refused(content) == (400, "BAD_REQUEST", f"found {found}; {SEND_JSON}")


@pytest.mark.parametrize("values", [(1, 2), (None, 2), (1, None), (None, None)])
def test_both_keys_are_refused_whatever_they_hold(values):
    content = dict(zip(("inputs", "instances"), values, strict=True))
    assert refused(content) == (400, "BAD_REQUEST", f"found both inputs and instances; {SEND_JSON}")


def test_other_keys_beside_the_images_are_no_matter():
    found = read({"inputs": images_of(1).tolist(), "params": {}, "signature_name": "x"})
    assert np.array_equal(found, images_of(1))


def test_1024_images_are_taken_and_one_more_is_not():
    images = images_of(1).tolist() * 1024
    assert read({"inputs": images}).shape == (1024, 28, 28)
    told = (400, INVALID, "found 1025 images; send at most 1024 at a time")
    assert refused({"inputs": [0] * 1025}) == refused({"instances": [0] * 1025}) == told


def with_pixel(value, count=2):
    """Images of which the last has one pixel of that value, among black ones."""
    images = images_of(count).tolist()
    images[-1] = [[0] * 28 for _ in range(28)]
    images[-1][27][27] = value
    return {"inputs": images}


@pytest.mark.parametrize("value", [0, 1.5, 2, 2.0, 254, 255, 255.0, 254.99])
def test_an_image_is_taken_up_to_the_last_level(value):
    assert read(with_pixel(value))[1, 27, 27] == np.float32(value)


OUTSIDE = {256: "0 to 256", 255.5: "0 to 255.5", -1: "-1 to 255", -0.5: "-0.5 to 255", 1e300: "0 to inf"}


@pytest.mark.parametrize("value", OUTSIDE)
def test_a_level_outside_is_refused(value):
    assert refused(with_pixel(value)) == (400, INVALID, f"found values from {OUTSIDE[value]}; {SEND}")


@pytest.mark.parametrize("value", [1, 1.0, 0.5, 1e-3])
def test_one_image_that_was_scaled_is_refused_among_others_that_were_not(value):
    found = f"found an image whose brightest pixel is {value:g}, so scaled to 0..1 already"
    assert refused(with_pixel(value)) == (400, INVALID, f"{found}; {SEND}")


def shaped(*shape):
    return np.full(shape, 9).tolist()


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        ([], "(0,)"),
        (shaped(28, 28), "(28, 28)"),
        (shaped(2, 27, 28), "(2, 27, 28)"),
        (shaped(2, 28, 27), "(2, 28, 27)"),
        (shaped(2, 28, 29), "(2, 28, 29)"),
        (shaped(2, 29, 28), "(2, 29, 28)"),
        (shaped(2, 784), "(2, 784)"),
        (shaped(1, 28, 28, 1), "(1, 28, 28, 1)"),
        (7, "()"),
    ],
)
def test_another_shape_is_refused_by_its_name(images, shape):
    assert refused({"inputs": images}) == (400, INVALID, f"found shape {shape}; {SEND}")


ROW, IMAGE = [9] * 28, [[9] * 28] * 28


@pytest.mark.parametrize(
    "images",
    [
        [IMAGE, [ROW] * 27],
        [[*[ROW] * 27, ROW[:27]]],
        [[*[ROW] * 27, [*ROW, 9]]],
        [IMAGE, [*[ROW] * 27, None]],
        [[*[ROW] * 27, [*ROW[:27], None]]],
        [[*[ROW] * 27, [*ROW[:27], "9"]]],
        [[*[ROW] * 27, {str(number): 9 for number in range(28)}]],
        [[*[ROW] * 27, "9" * 28]],
        [[[True] * 28] * 28],
        {"a": 1},
        "seven",
    ],
)
def test_what_is_ragged_or_no_number_is_refused(images):
    status, code, words = refused({"inputs": images})
    assert (status, code) == (400, INVALID)
    assert words.startswith("the images are not numbers of one shape (")
    assert words == told_by(check_images, images)[:500]


def test_a_long_reason_is_cut_short(monkeypatch):
    def check(images, expected):
        raise ValueError("x" * 600)

    monkeypatch.setattr(schemas, "check_inputs", check)
    assert refused({"inputs": 1}) == (400, INVALID, "x" * 500)


def told_by(function, *arguments):
    """What it gives, or the words of its refusal."""
    try:
        return function(*arguments)
    except (ValueError, RefusalError) as error:
        return str(error)


LEVELS = st.sampled_from([0, 1, 2, 255, 256, -1, 0.5, 1.5, 255.0, True, False, None, "3", [3], [], {}])
CONTRACTS = [CONTRACT, Contract(DataSpec("image", (1, 3, 2), ("a", "b"))), Contract(DataSpec("image", (3, 3, 2), "ab"))]
PLACES = st.lists(st.integers(0, 27), min_size=1, max_size=4)


@settings(max_examples=150)
@given(
    st.sampled_from(CONTRACTS),
    st.integers(0, 3),
    st.sampled_from([0, 1, 9]),
    st.lists(st.tuples(PLACES, LEVELS), max_size=4),
)
def test_whole_numbers_read_fast_are_read_as_all_others_are(contract, count, level, changes):
    """Whatever the images, and whatever stands in place of a pixel, a row or an image."""
    images = np.full((count, *contract.expected.shape), level).tolist()
    for place, value in changes:
        inner = images
        for number in place[:-1]:
            if isinstance(inner, list) and inner and isinstance(inner[number % len(inner)], list):
                inner = inner[number % len(inner)]
        if isinstance(inner, list) and inner:
            inner[place[-1] % len(inner)] = value
    body = json.dumps({"inputs": images}).encode()
    found = told_by(protocol.examples_of_json, contract, "", body)
    right = told_by(predictor.check_inputs, images, contract.expected)
    if isinstance(right, str):
        assert found == right[:500]
    else:
        assert (found.dtype, found.tolist()) == (np.float32, right.tolist())


@pytest.mark.parametrize("shape", [(28, 28), (7, 5), (5, 7, 3)])
def test_whole_numbers_are_read_without_the_slow_check(monkeypatch, shape):
    monkeypatch.setattr(schemas, "check_inputs", None)
    images = np.random.default_rng(0).integers(0, 256, (3, *shape))
    assert np.array_equal(schemas.read_examples(Expected(shape), 3, images.tolist()), images)


def test_predictions_are_written_in_full_and_in_order():
    probabilities = np.float32([[0.1, 1e-30], [0.9, 1]])
    body = protocol.predictions_as_json(probabilities)
    assert body == b'{"predictions":[[0.10000000149011612,1.0000000031710769e-30],[0.8999999761581421,1.0]]}'


def test_classes_are_written_each_with_its_name_and_what_the_model_saw(monkeypatch):
    monkeypatch.setattr(protocol, "as_png", lambda pixels: b"png %d" % pixels[0, 0])
    contract = Contract(replace(MNIST, classes=("cat", "cow", "dog")))
    probabilities = np.float32([[0, 0.25, 0.75], [0.625, 0.375, 0]])
    seen = np.float32([np.full((28, 28), 1), np.full((28, 28), 2)])
    loaded = SimpleNamespace(name="pets", version="7")

    def written(names, probabilities, show):
        answer = protocol.answer_of(names, seen, probabilities, loaded, contract, show)
        return json.loads(answer.model_dump_json())

    url = "data:image/png;base64,"
    assert written(["a", "b"], probabilities, True) == {
        "predictions": [
            {
                "name": "a",
                "class": "dog",
                "confidence": 0.75,
                "probabilities": [0, 0.25, 0.75],
                "seen": url + "cG5nIDE=",
            },
            {
                "name": "b",
                "class": "cat",
                "confidence": 0.625,
                "probabilities": [0.625, 0.375, 0],
                "seen": url + "cG5nIDI=",
            },
        ],
        "classes": ["cat", "cow", "dog"],
        "model": "pets",
        "version": "7",
    }
    without = written(["a", "b"], probabilities, False)
    assert [list(each) for each in without["predictions"]] == [["name", "class", "confidence", "probabilities"]] * 2
    with pytest.raises(ValueError, match="argument 2 is longer"):
        written(["a"], probabilities, False)
    with pytest.raises(ValueError, match="argument 3 is longer"):
        written(["a", "b"], probabilities[:1].repeat(3, axis=0), False)
