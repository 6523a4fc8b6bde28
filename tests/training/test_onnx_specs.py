"""Any data, any network: what is exported answers as torch does and says what its data are."""

import numpy as np
import onnx
import pytest
import torch

from pipeline.config import RunConfig
from pipeline.data.datamodule import DataModule, ExampleTensors
from pipeline.data.dataset import Dataset
from pipeline.data_spec import DataSpec
from pipeline.networks.cnn import CNN
from pipeline.networks.mlp import MLP
from pipeline.onnx_session import open_network
from pipeline.training import fit, onnx_export
from pipeline.training.classifier import Classifier
from tests.own_training_code import Network, Viewed


def dataset(kind, train=40, test=24):
    """Small data of that kind, three classes."""
    random = np.random.RandomState(0)
    shapes = {"grey": (12, 15), "colour": (14, 11, 3), "table": (5,)}

    def part(size):
        if kind == "table":
            return random.normal(3, [1, 2, 3, 4, 5], (size, 5)), np.arange(size) % 3
        return random.randint(0, 256, (size, *shapes[kind])).astype(np.uint8), np.arange(size) % 3

    return Dataset(part(train), part(test), classes=["ash", "oak", "elm"], table=kind == "table").named(kind, "made")


@pytest.mark.parametrize(
    ("kind", "network"),
    [*((kind, MLP) for kind in ("grey", "colour", "table")), ("grey", CNN), ("colour", CNN), ("table", Network)],
)
def test_the_exported_network_answers_raw_examples_as_torch_answers_scaled_ones(tmp_path, kind, network):
    data, path = dataset(kind), tmp_path / "network.onnx"
    torch.manual_seed(0)
    module = network(data.spec).eval()
    onnx_export.export_onnx(module, data.spec, path)
    scaled = ExampleTensors(data.test, data.spec)
    with torch.no_grad():
        expected = module(scaled.__getitems__([*range(24)])[0]).softmax(dim=1).numpy()
    found = onnx_export.check_same(path, module, data.spec, data.test.inputs)
    assert np.abs(found - expected).max() < 1e-5
    assert found.shape == (24, 3)
    assert np.abs(onnx_export.predict(path, data.test.inputs[:1]) - expected[:1]).max() < 1e-5


def test_a_network_that_views_its_maps_as_rows_is_exported_for_colours_too(tmp_path):
    """`view` takes no channels that lie last in memory, as those of images that are sent do."""
    data, path = dataset("colour"), tmp_path / "network.onnx"
    module = Viewed(data.spec).eval()
    found = onnx_export.export_onnx(module, data.spec, path, data.test.inputs)
    scaled = ExampleTensors(data.test, data.spec)
    with torch.no_grad():
        expected = module(scaled.__getitems__([*range(24)])[0]).softmax(dim=1).numpy()
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "network"), [("grey", MLP), ("colour", CNN), ("table", MLP), ("colour", MLP), ("grey", CNN)]
)
def test_it_carries_the_spec_and_takes_examples_as_they_are_sent(tmp_path, kind, network):
    spec, path = dataset(kind).spec, tmp_path / "network.onnx"
    onnx_export.export_onnx(network(spec), spec, path)
    session = open_network(path)
    assert DataSpec.of_network(session.get_modelmeta().custom_metadata_map) == spec
    assert session.get_inputs()[0].shape[1:] == list(spec.sent_shape)
    assert session.get_outputs()[0].shape[1:] == [3]
    onnx.checker.check_model(path, full_check=True)


def trained(kind, **knobs):
    source = dataset(kind)
    data = DataModule(batch_size=8, seed=1)
    data.source = source
    return fit.fit(RunConfig(**{"epochs": 3, "batch_size": 8, "accelerator": "cpu", **knobs}), data=data)


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_a_cnn_trains_by_the_plain_path(kind):
    result = trained(kind, network="cnn", channels=4, dropout=0.0, learning_rate=0.01)
    assert type(result.classifier) is Classifier
    assert result.history[3]["train_loss"] < result.history[1]["train_loss"]


@pytest.mark.parametrize("kind", ["grey", "colour", "table"])
def test_an_mlp_trains_by_the_fast_path_to_the_plain_ones_numbers(kind):
    result = trained(kind, hidden_units=8)
    assert type(result.classifier) is fit.FastClassifier
    assert result.history[3]["train_loss"] < result.history[1]["train_loss"]


def test_a_network_of_ones_own_trains():
    result = trained("table", network="tests.own_training_code:Network", learning_rate=0.01)
    assert type(result.classifier) is Classifier
    assert result.history[3]["train_loss"] < result.history[1]["train_loss"]


@pytest.mark.parametrize(("kind", "words"), [("table", "takes images"), ("small", "at least 10x10, not 9x12")])
def test_a_cnn_refuses_what_it_cannot_take(kind, words):
    spec = DataSpec("image", (1, 9, 12), ("a", "b")) if kind == "small" else dataset(kind).spec
    with pytest.raises(ValueError, match=words):
        CNN(spec)
