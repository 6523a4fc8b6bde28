import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from pipeline.data_spec import MNIST
from pipeline.networks.mlp import MLP
from pipeline.training.onnx_export import Probabilities


def linears(network):
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_the_sample_is_784_512_512_10():
    network = MLP(MNIST)
    assert [(layer.in_features, layer.out_features) for layer in linears(network)] == [
        (784, 512),
        (512, 512),
        (512, 10),
    ]
    assert sum(weights.numel() for weights in network.parameters()) == 669_706  # what Keras' model.summary() counts
    assert network(torch.rand(7, 784)).shape == (7, 10)


@pytest.mark.parametrize(("units", "layers"), [(32, 1), (16, 3), (8, 0)])
def test_hidden_units_and_layers_shape_the_network(units, layers):
    widths = [784, *[units] * layers, 10]
    shapes = [(layer.in_features, layer.out_features) for layer in linears(MLP(MNIST, units, layers))]
    assert shapes == list(pairwise(widths))


def test_kernels_are_glorot_uniform_and_biases_zero():
    torch.manual_seed(0)
    for layer in linears(MLP(MNIST)):
        limit = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert layer.weight.abs().max() <= limit
        assert layer.weight.abs().max() > 0.99 * limit
        assert layer.weight.var().item() == pytest.approx(limit**2 / 3, rel=0.05)
        assert not layer.bias.any()


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    network, pixels = MLP(MNIST, dropout=0.5), torch.rand(4, 784)
    assert not torch.equal(network.train()(pixels), network.train()(pixels))
    assert torch.equal(network.eval()(pixels), network.eval()(pixels))


def test_probabilities_are_the_softmax_of_the_scaled_pixels():
    torch.manual_seed(0)
    network = MLP(MNIST, hidden_units=8).eval()
    images = torch.randint(0, 256, (3, 28, 28)).float()
    expected = network(images.reshape(3, 784) / 255).softmax(1)
    probabilities = Probabilities(network, MNIST)(images)
    assert torch.equal(probabilities, expected)
    assert torch.allclose(probabilities.sum(1), torch.ones(3))
