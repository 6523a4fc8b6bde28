import logging

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pipeline.data_spec import MNIST
from pipeline.networks.mlp import MLP
from pipeline.training import onnx_export


@pytest.fixture
def exported(tmp_path):
    torch.manual_seed(0)
    network = MLP(MNIST, hidden_units=32, dropout=0.5).train()
    path = tmp_path / "network.onnx"
    onnx_export.export_onnx(network, MNIST, path)
    return network, path


IMAGES = np.random.RandomState(0).randint(0, 256, (1000, 28, 28)).astype(np.uint8)


def test_the_exported_network_answers_as_the_trained_one_without_dropout(exported):
    network, path = exported
    onnx_export.check_same(path, network, MNIST, IMAGES)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(IMAGES).unsqueeze(1).float() / 255).softmax(1).numpy()
    assert np.abs(onnx_export.predict(path, IMAGES) - expected).max() < 1e-6


class Doubled(MLP):
    def forward(self, pixels):
        return 2 * super().forward(pixels)


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 5), nn.Flatten(), nn.Linear(1152, 10))

    def forward(self, images):
        return self.layers(images)


def squashed():
    network = MLP(MNIST, hidden_units=32)
    network.layers[1] = nn.Tanh()
    return network


@pytest.mark.parametrize(
    "make",
    [lambda: Doubled(MNIST, hidden_units=32), Convolved, squashed],
    ids=["another forward", "other layers", "another activation"],
)
def test_a_network_that_was_changed_is_exported_as_it_is_now(make, tmp_path):
    torch.manual_seed(0)
    network = make()
    path = tmp_path / "network.onnx"
    onnx_export.export_onnx(network, MNIST, path)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(IMAGES).unsqueeze(1).float() / 255).softmax(1).numpy()
    assert np.abs(onnx_export.predict(path, IMAGES) - expected).max() < 1e-6


@pytest.mark.parametrize("hidden_layers", [0, 1, 3])
def test_the_graph_is_what_torch_s_exporter_makes_of_the_network(hidden_layers, tmp_path):
    torch.manual_seed(0)
    network = MLP(MNIST, hidden_units=32, hidden_layers=hidden_layers)
    own, traced = tmp_path / "own.onnx", tmp_path / "traced.onnx"
    onnx_export.export_onnx(network, MNIST, own)
    onnx_export._trace(network, MNIST, traced)
    assert (onnx_export.predict(own, IMAGES) == onnx_export.predict(traced, IMAGES)).all()
    for kind in ("input", "output"):
        one, other = ([(v.name, v.type) for v in getattr(onnx.load(path).graph, kind)] for path in (own, traced))
        assert one == other
    onnx.checker.check_model(own, full_check=True)


@pytest.mark.parametrize("size", [1, 7])
def test_the_batch_size_is_free_and_changes_nothing(exported, size):
    _, path = exported
    whole = onnx_export.predict(path, IMAGES)
    parts = np.concatenate([onnx_export.predict(path, IMAGES[k : k + size]) for k in range(0, 70, size)])
    assert np.abs(parts - whole[: len(parts)]).max() < 1e-6


def test_a_network_that_answers_otherwise_is_not_let_through(exported):
    network, path = exported
    with torch.no_grad():
        network.layers[0].weight.add_(0.1)
    with pytest.raises(RuntimeError, match="the exported network differs from the trained one by"):
        onnx_export.check_same(path, network, MNIST, IMAGES)


class Bag(nn.Module):
    """Of which the exporter's optimizer says what it passes over."""

    def __init__(self):
        super().__init__()
        self.vectors = nn.EmbeddingBag(2, 10, mode="mean")

    def forward(self, pixels):
        return self.vectors((pixels.flatten(1)[:, :5] > 0.5).long())


def test_the_exporter_says_nothing_of_its_own(tmp_path, caplog):
    onnx_export.export_onnx(Bag(), MNIST, tmp_path / "network.onnx", IMAGES[:2])
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []
