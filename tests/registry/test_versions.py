"""A version opened: only what gives ten probabilities for an image is, and what is not there is told."""

import re
from types import SimpleNamespace

import mlflow
import numpy as np
import onnx
import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from onnx import TensorProto, helper, numpy_helper

from pipeline import onnx_session
from pipeline.data import Dataset
from pipeline.registry.versions import NotServableError, UnknownAliasError, UnknownModelError, load, version_by_alias
from pipeline.training.onnx_export import export_onnx
from tests.fake_model_registry import FakeRegistry, missing
from tests.own_training_code import Embedded

MLMODEL = "flavors: {python_function: {artifacts: {network: {path: artifacts/network.onnx}}}}\n"


def network(path, bias, last="Softmax", weight=1.0):
    """(N, 28, 28) -> the bias plus the weighted sum of the pixels for class 3, through the last layer."""
    classes = len(bias)
    weights = np.zeros((784, classes), np.float32)
    weights[:, 3] = weight
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["sums"]),
        helper.make_node("Add", ["sums", "bias"], ["logits"]),
        helper.make_node(last, ["logits"], ["answer"], **({"axis": 1} if "Softmax" in last else {})),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 28, 28])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", classes])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.asarray(bias, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A model's folder as the registry would give it, whatever is asked for; what was asked for."""
    root, asked = tmp_path / "model", []
    root.mkdir()
    (root / "MLmodel").write_text(MLMODEL)

    def download_artifacts(artifact_uri, dst_path):
        asked.append((artifact_uri, dst_path))
        return str(root)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download_artifacts)
    return root, asked


def opened(tmp_path):
    return load("models:/m/7", "m", "7", "run7", tmp_path / "there")


def test_a_network_that_gives_probabilities_is_opened_under_its_name(stored, tmp_path):
    root, asked = stored
    network(root / "artifacts/network.onnx", np.zeros(10))
    loaded = opened(tmp_path)
    assert (loaded.name, loaded.version, loaded.run_id, loaded.input) == ("m", "7", "run7", "images")
    assert asked == [("models:/m/7", str(tmp_path / "there"))]
    images = np.zeros((2, 28, 28), np.float32)
    images[1, 5, 5] = 4
    expected = np.full((2, 10), 0.1)
    expected[1] = np.exp(4 * (np.arange(10) == 3)) / (9 + np.exp(4))
    np.testing.assert_allclose(loaded.predict(images), expected, rtol=1e-5)
    assert loaded.predict(images).dtype == np.float32


def test_a_network_that_knows_only_the_categories_of_its_table_is_opened(stored, tmp_path):
    rows = np.array([[1.0], [7.0]] * 4), np.arange(8) % 2
    data = Dataset(rows, rows, table=True)
    path = stored[0] / "artifacts/network.onnx"
    path.parent.mkdir()
    export_onnx(Embedded(data.spec), data.spec, path, data.test.inputs)
    assert opened(tmp_path).predict(data.test.inputs).shape == (8, 2)


def test_it_is_opened_on_one_thread_of_the_cpu_whatever_else_there_is(stored, tmp_path, monkeypatch):
    network(stored[0] / "artifacts/network.onnx", np.zeros(10))
    real, given = onnx_session.onnxruntime.InferenceSession, []

    def spy(*words, providers=None):
        given.append(providers)
        return real(*words, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnx_session.onnxruntime, "InferenceSession", spy)
    session = opened(tmp_path).session
    assert given == [["CPUExecutionProvider"]]
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


NO_PROBABILITIES = "m version 7 does not give 10 probabilities for an example"


@pytest.mark.parametrize(
    ("bias", "last", "weight"),
    [
        (np.zeros(10), "Identity", 0.0),
        (np.arange(10.0), "Identity", 0.0),
        (np.arange(10.0), "LogSoftmax", 0.0),
        (np.full(10, 0.11), "Identity", 0.0),
        (np.full(10, 0.1002), "Identity", 0.0),
        (np.full(10, np.nan), "Softmax", 0.0),
        ([3.0, -2.0, *[0.0] * 8], "Identity", 0.0),
        (np.full(10, 0.1), "Identity", 1e-4),
        (np.zeros(9), "Softmax", 0.0),
        (np.zeros(11), "Softmax", 0.0),
    ],
    ids=[
        "zeros",
        "logits",
        "logarithms",
        "shares of 1.1",
        "shares of 1.002",
        "nan",
        "logits whose sum is 1",
        "logits whose sum is 1 for a black image",
        "nine",
        "eleven",
    ],
)
def test_what_gives_no_ten_probabilities_is_not_opened(stored, tmp_path, bias, last, weight):
    network(stored[0] / "artifacts/network.onnx", bias, last, weight)
    with pytest.raises(NotServableError, match=f"^{NO_PROBABILITIES}$"):
        opened(tmp_path)


def test_rounding_makes_no_other_probabilities(stored, tmp_path):
    network(stored[0] / "artifacts/network.onnx", np.full(10, 0.100009), "Identity", weight=0.0)
    assert opened(tmp_path).version == "7"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "FileNotFoundError: "),
        ("{", "ParserError: "),
        ("flavors: {}", "KeyError: 'python_function'"),
        (MLMODEL, "NoSuchFile: "),
    ],
)
def test_files_that_are_no_model_of_this_project_are_told_in_one_line(stored, tmp_path, content, words):
    root, _ = stored
    (root / "MLmodel").unlink()
    if content is not None:
        (root / "MLmodel").write_text(content)
    with pytest.raises(NotServableError) as error:
        opened(tmp_path)
    assert str(error.value).startswith(f"m version 7 cannot be opened ({words}")
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__


def test_a_long_reason_is_cut(stored, tmp_path, monkeypatch):
    (stored[0] / "MLmodel").write_text(MLMODEL)

    def refuse(*words, **options):
        raise RuntimeError("so\n  it " + "x" * 500)

    monkeypatch.setattr(onnx_session.onnxruntime, "InferenceSession", refuse)
    with pytest.raises(NotServableError) as error:
        opened(tmp_path)
    assert str(error.value) == f"m version 7 cannot be opened (RuntimeError: so it {'x' * 154})"


class ResourceNotFoundError(Exception):
    """As Azure's client has it: none of requests', and no OSError."""

    def __init__(self, status):
        super().__init__("the client's own words")
        self.response = SimpleNamespace(status_code=status)


def answer(status):
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("an answer", response=response)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (answer(404), "the server does not have its files"),
        (ResourceNotFoundError(404), "the server does not have its files"),
        (missing("\n Model 'm-1' "), "Model 'm-1' not found"),
        (RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "x" * 500}), None),
        (FileNotFoundError(2, "No such file", "a  b"), "FileNotFoundError: [Errno 2] No such file: 'a b'"),
        (PermissionError("y" * 500), f"PermissionError: {'y' * 160}"),
    ],
)
def test_files_that_are_not_there_are_the_versions_fault(monkeypatch, tmp_path, error, reason):
    def refuse(**words):
        raise error

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", refuse)
    reason = reason or " ".join(str(error).split())[:160]
    with pytest.raises(NotServableError, match=f"^{re.escape(f'm version 7 cannot be fetched ({reason})')}$"):
        opened(tmp_path)


SECRET = "of http://bob:" + "pw" * 50 + "@host/x "


def test_a_secret_in_the_reason_is_taken_out_before_it_is_cut_in_half(stored, monkeypatch, tmp_path):
    def refuse(*words, **options):
        raise OSError(f"the file {SECRET * 4}")

    reason = f"(OSError: {('the file ' + 'of http://host/x ' * 4).strip()})"
    (stored[0] / "MLmodel").write_text(MLMODEL)
    monkeypatch.setattr(onnx_session.onnxruntime, "InferenceSession", refuse)
    with pytest.raises(NotServableError) as error:
        opened(tmp_path)
    assert str(error.value) == f"m version 7 cannot be opened {reason}"
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", refuse)
    with pytest.raises(NotServableError) as error:
        opened(tmp_path)
    assert str(error.value) == f"m version 7 cannot be fetched {reason}"


OTHERS = [
    *(answer(500), answer(403), ResourceNotFoundError(503), requests.HTTPError("no answer at all")),
    *(requests.ConnectionError("no"), MlflowException("dead"), RuntimeError("No such file or directory")),
]


@pytest.mark.parametrize("error", OTHERS)
def test_a_server_that_does_not_answer_is_no_version_that_is_broken(monkeypatch, tmp_path, error):
    def refuse(**words):
        raise error

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", refuse)
    with pytest.raises(type(error)) as found:
        opened(tmp_path)
    assert found.value is error


# By alias


def test_the_version_that_has_the_alias_is_found():
    registry = FakeRegistry("m", 3, champion="2")
    assert version_by_alias(registry, "m", "champion").version == 2


@pytest.mark.parametrize(
    ("names", "asked", "words"),
    [
        ([], "m", "no registered model 'm' (models there: none; make train registers the first)"),
        (["a", "b", "c"], "m", "no registered model 'm' (models there: a, b, c; --model names one)"),
        (
            ["mnist-mlp"],
            "mnist-mpl",
            "no registered model 'mnist-mpl'; did you mean 'mnist-mlp'? (models there: mnist-mlp; --model names one)",
        ),
    ],
)
def test_a_model_that_there_is_not_is_told_with_those_that_there_are(names, asked, words):
    registry = FakeRegistry()
    registry.aliases = {name: {} for name in names}
    with pytest.raises(UnknownModelError, match=f"^{re.escape(words)}$") as error:
        version_by_alias(registry, asked, "champion")
    assert not isinstance(error.value, UnknownAliasError)


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        ({}, "model m has no alias 'champion' (aliases: none)"),
        ({"previous": "1", "best": "2"}, "model m has no alias 'champion' (aliases: best, previous)"),
        ({"champions": "1"}, "model m has no alias 'champion'; did you mean 'champions'? (aliases: champions)"),
    ],
)
def test_an_alias_that_there_is_not_is_told_with_those_that_there_are(aliases, words):
    registry = FakeRegistry("other", 3)
    registry.aliases["m"] = aliases
    words = f"{words}; python -m pipeline promote --model m gives it one"
    with pytest.raises(UnknownAliasError, match=f"^{re.escape(words)}$"):
        version_by_alias(registry, "m", "champion")


def test_a_registry_that_does_not_answer_is_no_alias_that_is_missing(monkeypatch):
    def dead(*words):
        raise MlflowException("API request to http://registry failed with exception Connection refused")

    registry = FakeRegistry("m", 1)
    monkeypatch.setattr(registry, "get_model_version_by_alias", dead)
    with pytest.raises(MlflowException, match="Connection refused"):
        version_by_alias(registry, "m", "champion")
