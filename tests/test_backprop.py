import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline import backprop, training
from pipeline.backprop import Backprop
from pipeline.config import RunConfig
from pipeline.dropout import Dropout
from pipeline.network import MLP


def twins(**knobs):
    """Two networks with the same weights and the same masks to come."""
    pair = []
    for _ in range(2):
        torch.manual_seed(3)
        network = MLP(**knobs).train()
        for index, layer in enumerate(network.modules()):
            if isinstance(layer, Dropout):
                layer.reseed(index)
        pair.append(network)
    return pair


def batch(size=128):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(size, 784, generator=generator), torch.randint(10, (size,), generator=generator)


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize(("dtype", "dropout"), [(torch.float32, 0.2), (torch.float32, 0.0), (torch.bfloat16, 0.3)])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_loss_logits_and_gradients_are_autograds_to_the_last_bit(layers, dtype, dropout, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    by_hand, by_autograd = twins(hidden_units=64, hidden_layers=layers, dropout=dropout)
    derive = Backprop(by_hand, 128, dtype)
    for size in (128, 96, 128):  # the last batch of an epoch is smaller
        pixels, labels = batch(size)
        loss, logits = derive(pixels, labels)
        by_autograd.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            expected = by_autograd(pixels)
            expected_loss = F.cross_entropy(expected, labels)
        expected_loss.backward()
        assert torch.equal(loss, expected_loss)
        assert torch.equal(logits, expected.float())
        for one, other in zip(by_hand.parameters(), by_autograd.parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)
            assert one.grad.abs().max() > 0
    torch.set_float32_matmul_precision(before)


def test_the_gradients_are_those_of_finite_differences():
    network, _ = twins(hidden_units=16, dropout=0.0)
    pixels, labels = batch(32)
    Backprop(network, 32)(pixels, labels)
    weight = network.layers[0].weight
    row, column = divmod(weight.grad.abs().argmax().item(), 784)
    exact = weight.grad[row, column].item()
    network.double()
    losses = []
    with torch.no_grad():
        for step in (1e-4, -2e-4):
            weight[row, column] += step
            losses.append(F.cross_entropy(network(pixels.double()), labels).item())
    assert (losses[0] - losses[1]) / 2e-4 == pytest.approx(exact, rel=1e-4)


class Scaled(MLP):
    def forward(self, pixels):
        return super().forward(pixels) * 2


def with_another_layer():
    network = MLP(hidden_units=8)
    network.layers.append(nn.Tanh())
    return network


def with_another_forward():
    network = MLP(hidden_units=8)
    network.layers[1] = nn.LeakyReLU()
    return network


@pytest.mark.parametrize(
    "network", [Scaled(hidden_units=8), with_another_layer(), with_another_forward(), nn.Linear(784, 10)]
)
def test_a_network_that_is_more_than_the_sample_is_left_to_autograd(network):
    assert backprop.derive(network, 128, "32-true") is None


@pytest.mark.parametrize("classes", [2, 3, 10, 47])
def test_a_network_of_any_number_of_classes_is_derived_by_hand_bit_for_bit(classes):
    by_hand, by_autograd = twins(hidden_units=16, classes=classes)
    derive = backprop.derive(by_hand, 128, "32-true")
    pixels, labels = batch()
    loss, _ = derive(pixels, labels % classes)
    expected = F.cross_entropy(by_autograd(pixels), labels % classes)
    expected.backward()
    assert torch.equal(loss, expected)
    for one, other in zip(by_hand.parameters(), by_autograd.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_other_number_formats_are_left_to_autograd():
    assert backprop.derive(MLP(hidden_units=8), 128, "64-true") is None
    assert backprop.derive(MLP(hidden_units=8), 128, "32-true") is not None


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_training_by_hand_is_bit_for_bit_the_one_by_autograd(monkeypatch, precision):
    config = RunConfig(dataset="digits", epochs=2, precision=precision, hidden_units=64, accelerator="cpu")
    by_hand = training.fit(config)
    assert by_hand.classifier.by_hand is not None
    monkeypatch.setattr(backprop, "derive", lambda *_: None)
    by_autograd = training.fit(config)
    assert by_autograd.classifier.by_hand is None
    for one, other in zip(by_hand.classifier.parameters(), by_autograd.classifier.parameters(), strict=True):
        assert torch.equal(one, other)
    assert by_hand.test == by_autograd.test
