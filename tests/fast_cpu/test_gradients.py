import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.data_spec import MNIST, DataSpec
from pipeline.fast_cpu import gradients
from pipeline.fast_cpu.gradients import Backprop
from pipeline.networks.dropout import Dropout
from pipeline.networks.mlp import MLP


@pytest.fixture(autouse=True)
def nothing_was_tried(monkeypatch):
    monkeypatch.setattr(gradients, "_AGREE", {})


def twins(**knobs):
    """Two networks with the same weights and the same masks to come."""
    pair = []
    for _ in range(2):
        torch.manual_seed(3)
        network = MLP(**{"spec": MNIST, **knobs}).train()
        for index, layer in enumerate(network.modules()):
            if isinstance(layer, Dropout):
                layer.reseed(index)
        pair.append(network)
    return pair


def of(features=784, classes=10):
    """A table's spec."""
    return DataSpec("table", (features,), tuple(map(str, range(classes))))


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
    network = MLP(MNIST, hidden_units=8)
    network.layers.append(nn.Tanh())
    return network


def with_another_forward():
    network = MLP(MNIST, hidden_units=8)
    network.layers[1] = nn.LeakyReLU()
    return network


@pytest.mark.parametrize(
    "network", [Scaled(MNIST, hidden_units=8), with_another_layer(), with_another_forward(), nn.Linear(784, 10)]
)
def test_a_network_that_is_more_than_the_sample_is_left_to_autograd(network):
    assert gradients.derive(network, 128, "32-true") is None


@pytest.mark.parametrize("classes", [2, 3, 10, 47])
def test_a_network_of_any_number_of_classes_is_derived_by_hand_bit_for_bit(classes):
    by_hand, by_autograd = twins(hidden_units=16, spec=of(classes=classes))
    derive = gradients.derive(by_hand, 128, "32-true")
    pixels, labels = batch()
    loss, _ = derive(pixels, labels % classes)
    expected = F.cross_entropy(by_autograd(pixels), labels % classes)
    expected.backward()
    assert torch.equal(loss, expected)
    for one, other in zip(by_hand.parameters(), by_autograd.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("precision", ["64-true", "16-mixed", "bf16-true", "16-true"])
def test_other_number_formats_are_left_to_autograd(precision):
    assert gradients.derive(MLP(MNIST, hidden_units=8), 128, precision) is None


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
@pytest.mark.parametrize("knobs", [{"dropout": 0.4}, {"hidden_layers": 0}, {"spec": of(features=9, classes=3)}])
def test_the_sample_is_derived_by_hand_in_float32_and_bfloat16(precision, dtype, knobs):
    network = MLP(**{"spec": MNIST, "hidden_units": 8, **knobs})
    derive = gradients.derive(network, 6, precision)
    assert derive.dtype == dtype
    assert derive.linear == [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    sizes = [(6, layer.out_features) for layer in derive.linear[:-1]]
    for memory in (derive.outputs, derive.errors):
        assert [(tuple(each.shape), each.dtype) for each in memory] == [(size, dtype) for size in sizes]


@pytest.mark.parametrize("training", [True, False])
def test_trying_it_leaves_the_network_as_it_is(training):
    network, untouched = twins(hidden_units=8, dropout=0.5)
    network.train(training)
    gradients.derive(network, 128, "32-true")
    assert network.training is training
    for one, other in zip(network.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.grad is None
    pixels, _ = batch(4)
    assert torch.equal(network.train()(pixels), untouched(pixels))  # the same masks to come


def without_bias():
    network = MLP(MNIST, hidden_units=8)
    network.layers[3] = nn.Linear(8, 8, bias=False)
    return network


def with_convolutions():
    network = MLP(of(features=676), hidden_units=8)
    network.layers = nn.Sequential(nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 1, 3), nn.Flatten(), *network.layers)
    return network


def with_no_linear_layer():
    network = MLP(MNIST, hidden_units=8)
    network.layers = nn.Sequential(nn.Unflatten(1, (16, 49)), nn.AdaptiveAvgPool1d(10), nn.Flatten(), nn.LazyLinear(10))
    network.layers.pop(3)
    return network


def with_dropout_in_another_place():
    network = MLP(MNIST, hidden_units=8)
    network.layers = nn.Sequential(*[network.layers[k] for k in (0, 2, 1, 3, 4, 5, 6)], nn.Sequential())
    return network


def with_one_dropout_less():
    network = MLP(MNIST, hidden_units=8)
    del network.layers[2]
    return network


def of_double_precision():
    return MLP(MNIST, hidden_units=8).double()


@pytest.mark.parametrize(
    "network", [without_bias, with_convolutions, with_no_linear_layer, with_one_dropout_less, of_double_precision]
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_network_of_other_layers_is_left_to_autograd_whatever_is_in_it(network, precision):
    """AttributeError, RuntimeError, IndexError: the try itself failed, and with it the training."""
    assert gradients.derive(network(), 128, precision) is None


def test_relu_and_dropout_may_change_places_which_changes_no_number():
    assert gradients.derive(with_dropout_in_another_place(), 128, "32-true") is not None


def frozen():
    network = MLP(MNIST, hidden_units=8)
    network.layers[0].weight.requires_grad_(False)
    return network


def with_a_forward_of_its_own():
    network = MLP(MNIST, hidden_units=8)
    layer = network.layers[1]
    layer.forward = lambda values: values.clamp(0, 1)
    return network


@pytest.mark.parametrize("change", [frozen, with_a_forward_of_its_own, without_bias, with_one_dropout_less])
def test_what_is_known_of_the_sample_is_not_taken_for_one_that_was_changed(change):
    assert gradients.derive(MLP(MNIST, hidden_units=8), 128, "32-true") is not None
    assert gradients.derive(change(), 128, "32-true") is None


def test_networks_of_the_same_layers_are_tried_once(monkeypatch):
    tried, agrees = [], gradients._agrees
    monkeypatch.setattr(gradients, "_agrees", lambda network, dtype: tried.append(dtype) or agrees(network, dtype))
    for knobs in ({}, {}, {"dropout": 0.5}, {}, {"hidden_units": 9}):
        assert gradients.derive(MLP(MNIST, **{"hidden_units": 8, **knobs}), 128, "32-true") is not None
    assert len(tried) == 3
    assert gradients.derive(MLP(MNIST, hidden_units=8), 128, "bf16-mixed") is not None
    assert tried[3] == torch.bfloat16


@pytest.mark.parametrize("wrong", ["weight", "bias"])
def test_a_gradient_that_differs_by_one_bit_is_not_taken(monkeypatch, wrong):
    propagate = Backprop._propagate

    def off_by_a_bit(self, error, inputs):
        propagate(self, error, inputs)
        gradient = getattr(self.linear[1], wrong).grad.view(-1)
        at = gradient.abs().argmax()
        gradient[at] = torch.nextafter(gradient[at], torch.tensor(9.0))

    monkeypatch.setattr(Backprop, "_propagate", off_by_a_bit)
    assert gradients.derive(MLP(MNIST, hidden_units=8), 128, "32-true") is None


def test_the_gradients_belong_to_the_step_and_lie_where_they_lay():
    """A step overwrites them: nothing has to be set to zero, and nothing new is taken from the memory."""
    network, _ = twins(hidden_units=8)
    derive = Backprop(network, 16)
    derive(*batch(16))
    first = [each.grad for each in network.parameters()]
    before = [each.clone() for each in first]
    pixels, labels = batch(8)
    loss, logits = derive(pixels, labels)
    assert all(one is each.grad for one, each in zip(first, network.parameters(), strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(first, before, strict=True))
    assert (loss.dtype, logits.dtype, loss.requires_grad, logits.requires_grad) == (
        torch.float32,
        torch.float32,
        False,
        False,
    )
