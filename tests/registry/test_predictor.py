"""The served model takes raw pixels and nothing else, and answers with probabilities."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException

from pipeline.data_spec import MNIST, DataSpec
from pipeline.networks.mlp import MLP
from pipeline.registry.predictor import Expected, Predictor, check_inputs
from pipeline.training.onnx_export import Probabilities, export_onnx

DRAWINGS = Expected((28, 28), drawing=True)
SEND = "send raw pixels: float32 of shape (N, 28, 28), each in 0..255, 0 the background, 255 the stroke"

DIGIT = np.zeros((28, 28), np.float32)
DIGIT[5:20, 14] = 200


def check_drawings(images):
    return check_inputs(images, DRAWINGS)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "f2", "u1", ">u2", "<i8", ">i8"])
def test_raw_pixels_of_any_number_type_become_float32(dtype):
    images = np.stack([DIGIT, DIGIT]).astype(dtype)
    checked = check_drawings(images)
    assert checked.dtype == np.float32
    assert checked.dtype.isnative
    assert np.array_equal(checked, np.stack([DIGIT, DIGIT]))


def test_blank_images_and_no_images_are_allowed():
    assert check_drawings(np.zeros((3, 28, 28))).shape == (3, 28, 28)
    assert check_drawings(np.zeros((0, 28, 28))).shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (DIGIT, "found shape (28, 28)"),
        (np.zeros((2, 784)), "found shape (2, 784)"),
        (np.zeros((2, 27, 28)), "found shape (2, 27, 28)"),
        (np.zeros((1, 28, 28, 1)), "found shape (1, 28, 28, 1)"),
        (np.where(DIGIT == 0, np.nan, DIGIT)[None], "found NaN"),
        (DIGIT[None] - 1, "found values from -1 to 199"),
        (DIGIT[None] * 2, "found values from 0 to 400"),
        (DIGIT[None] * 1.2775, "found values from 0 to 255.5"),
        (np.where(DIGIT > 0, np.inf, DIGIT)[None], "found values from 0 to inf"),
        (np.where(DIGIT == 0, -0.5, DIGIT)[None], "found values from -0.5 to 200"),
        (np.concatenate([np.zeros((9, 28, 28)), [DIGIT * 2]]), "found values from 0 to 400"),
        (np.concatenate([np.zeros((9, 28, 28)), [DIGIT * np.nan]]), "found NaN"),
        (
            np.stack([DIGIT, DIGIT / 255, DIGIT / 400]),
            "found an image whose brightest pixel is 0.5, so scaled to 0..1 already",
        ),
        (np.stack([DIGIT, DIGIT / 255]), "found an image whose brightest pixel is 0.784314, so scaled to 0..1 already"),
    ],
)
def test_anything_else_is_refused_with_what_was_found_and_what_to_send(images, found):
    with pytest.raises(ValueError, match="send raw pixels") as caught:
        check_drawings(images)
    assert str(caught.value) == f"{found}; {SEND}"


@pytest.mark.parametrize("images", ["seven", [[1, 2], [3]], None, [{"a": 1}]])
def test_what_is_not_numbers_is_refused(images):
    with pytest.raises(ValueError, match="send raw pixels: float32 of shape"):
        check_drawings(images)


def test_the_very_words_for_what_is_not_numbers():
    with pytest.raises(ValueError, match="numbers") as caught:
        check_drawings("seven")
    assert str(caught.value) == f"the images are not numbers of one shape (they are text); {SEND}"


@pytest.mark.parametrize(
    ("images", "found"),
    [
        ([["7"]], "text"),
        ([b"7"], "text"),
        ([[1, 2], [3, None]], "null"),
        ([[[1]], {"a": 1}], "objects"),
        ([[1, [2, ["7"]]]], "text"),
        (([1], ("7", None)), "null and text"),
        ([[None], "7"], "text"),  # the first of the outermost
        ([[True]], "bool"),
    ],
)
def test_what_is_no_number_is_told_by_its_kind(images, found):
    with pytest.raises(ValueError, match="numbers") as caught:
        check_drawings(images)
    assert str(caught.value) == f"the images are not numbers of one shape (they are {found}); {SEND}"


def test_texts_take_no_room_times_the_longest_of_them():
    images = [["7"] * 1000, ["7" * 50_000]]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="they are text"):
            check_drawings(images)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000


def test_numbers_without_room_for_them_are_refused_as_well(monkeypatch):
    def no_room(inputs):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(np, "asarray", no_room)
    with pytest.raises(ValueError, match=r"not numbers of one shape \(Unable to allocate 9 TiB\); send"):
        check_drawings([[1]])


def test_the_edges_of_the_range_are_allowed_and_what_is_over_float32_is_told():
    edges = np.stack([DIGIT, DIGIT])
    edges[0, 0, 0], edges[1, 0, 0] = 255, 0
    assert np.array_equal(check_drawings(edges), edges)
    assert np.array_equal(check_drawings(edges.astype(np.uint8)), edges)
    beyond = np.stack([DIGIT, np.where(DIGIT > 0, np.nextafter(np.float32(255), np.float32(256)), DIGIT)])
    with pytest.raises(ValueError, match="found values from 0 to 255; send raw pixels"):
        check_drawings(beyond)
    with pytest.raises(ValueError, match="found values from 0 to inf; send raw pixels"):
        check_drawings(np.where(DIGIT > 0, 1e300, DIGIT.astype(np.float64))[None])


def test_float32_is_taken_without_a_copy():
    images = DIGIT[None]
    assert check_drawings(images) is images


@pytest.mark.parametrize(("brightest", "allowed"), [(1, False), (0.004, False), (1.001, True), (1.5, True), (2, True)])
def test_an_image_whose_brightest_pixel_is_at_most_1_was_scaled_already(brightest, allowed):
    images = np.stack([DIGIT, (DIGIT > 0) * np.float32(brightest), 0 * DIGIT])
    if allowed:
        assert np.array_equal(check_drawings(images), images)
    else:
        with pytest.raises(ValueError, match=f"brightest pixel is {brightest:g}, so scaled to 0..1 already"):
            check_drawings(images)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A network of random weights, and the predictor that opened its exported file."""
    torch.manual_seed(0)
    network, path = MLP(MNIST, 8).eval(), tmp_path_factory.mktemp("model") / "network.onnx"
    export_onnx(network, MNIST, path)
    predictor = Predictor()
    predictor.load_context(SimpleNamespace(artifacts={"network": str(path)}))
    return network, predictor


def test_the_predictor_answers_with_the_network_s_probabilities_of_each_image(opened):
    network, predictor = opened
    images = np.stack([DIGIT, DIGIT.T, 0 * DIGIT])
    with torch.no_grad():
        expected = Probabilities(network, MNIST)(torch.from_numpy(images)).numpy()
    found = predictor.predict(None, images.astype(np.uint8))
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)
    assert predictor.session.get_providers() == ["CPUExecutionProvider"]


def test_an_answer_are_ten_probabilities_also_where_the_logits_are_large(tmp_path):
    torch.manual_seed(0)
    network, path = MLP(MNIST, 8), tmp_path / "network.onnx"
    with torch.no_grad():
        network.layers[-1].weight.mul_(50)
    export_onnx(network, MNIST, path)
    predictor = Predictor()
    predictor.load_context(SimpleNamespace(artifacts={"network": str(path)}))
    for images in (np.stack([DIGIT, DIGIT.T, 0 * DIGIT]), DIGIT[None]):
        found = predictor.predict(None, images)
        assert found.shape == (len(images), 10)
        assert found.min() >= 0
        assert np.abs(found.sum(axis=1) - 1).max() < 1e-6
        assert found.max() > 0.5
    assert predictor.predict(None, np.zeros((0, 28, 28))).shape == (0, 10)


def test_only_the_cpu_is_asked_also_where_there_is_more(monkeypatch):
    asked = []

    def session(*arguments, **options):
        asked.append((arguments, options))
        about = SimpleNamespace(custom_metadata_map={})
        names = [SimpleNamespace(name="images"), SimpleNamespace(name="other")]
        return SimpleNamespace(get_inputs=lambda: names, get_modelmeta=lambda: about)

    monkeypatch.setattr("pipeline.registry.predictor.onnxruntime.InferenceSession", session)
    predictor = Predictor()
    predictor.load_context(SimpleNamespace(artifacts={"network": "there", "other": "elsewhere"}))
    assert asked == [(("there",), {"providers": ["CPUExecutionProvider"]})]
    assert predictor.input == "images"


def test_the_predictor_refuses_as_a_server_passes_it_on(opened):
    with pytest.raises(MlflowException) as caught:
        opened[1].predict(None, np.zeros((2, 784)))
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert caught.value.message == f"found shape (2, 784); {SEND}"


COLOUR = DataSpec("image", (3, 4, 5), ("rose", "tulip"))
TABLE = DataSpec("table", (2,), ("a", "b", "c"), ("width", "height"), (1.0, 2.0), (0.5, 4.0))


@pytest.mark.parametrize(
    ("spec", "raw", "wrong", "words"),
    [
        (COLOUR, np.full((2, 4, 5, 3), 200), np.zeros((2, 4, 5)), "shape (N, 4, 5, 3), each in 0..255"),
        (TABLE, np.array([[-3.5, 1e6]]), np.zeros((2, 3)), "shape (N, 2), the columns width, height"),
    ],
)
def test_a_network_of_another_shape_takes_that_shape_and_says_so(tmp_path, spec, raw, wrong, words):
    torch.manual_seed(0)
    network = MLP(spec, 8).eval()
    export_onnx(network, spec, tmp_path / "network.onnx")
    predictor = Predictor()
    predictor.load_context(SimpleNamespace(artifacts={"network": str(tmp_path / "network.onnx")}))
    with torch.no_grad():
        expected = Probabilities(network, spec)(torch.from_numpy(raw.astype(np.float32))).numpy()
    assert np.allclose(predictor.predict(None, raw), expected, atol=1e-6)
    with pytest.raises(MlflowException, match="found shape") as caught:
        predictor.predict(None, wrong)
    assert words in str(caught.value)


def test_a_table_takes_any_finite_number():
    rows = Expected((2,), ("x", "y"))
    assert np.array_equal(check_inputs([[-1e30, 0.5]], rows), np.array([[-1e30, 0.5]], np.float32))
    for value, found in ((np.nan, "NaN"), (np.inf, "an infinite number"), (1e300, "an infinite number")):
        with pytest.raises(ValueError, match=f"found {found}; send rows of numbers"):
            check_inputs([[value, 0.0]], rows)
