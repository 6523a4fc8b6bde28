import copy
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.config.own_code import OwnCodeError
from pipeline.data import datasets
from pipeline.data_spec import MNIST
from pipeline.fast_cpu import process
from pipeline.networks.mlp import MLP
from pipeline.optim.optimizers import RMSprop, make_optimizer
from tests.conftest import ROOT

GOLDEN = ROOT.parent / "shared/reference/keras_golden_trajectory.json"


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip("no shared/reference beside the project")
    return json.loads(GOLDEN.read_text())


@pytest.fixture
def fastest_exact_products():
    """The matrix products of the default, matmul_precision auto."""
    before = torch.get_float32_matmul_precision()
    process.set_matmul_precision("auto")
    yield
    torch.set_float32_matmul_precision(before)


def trajectory(make, mnist_dir, steps):
    """The losses of the reference's README: everything fixed by formula."""
    images = datasets.load("mnist", mnist_dir).train
    network = MLP(MNIST, dropout=0.0)
    kernels = [weights for weights in network.parameters() if weights.ndim == 2]
    with torch.no_grad():
        for k, kernel in enumerate(kernels, start=1):
            fan_out, fan_in = kernel.shape
            limit = np.sqrt(6 / (fan_in + fan_out))
            drawn = np.random.RandomState(k).uniform(-limit, limit, (fan_in, fan_out)).astype(np.float32)
            kernel.copy_(torch.from_numpy(drawn.T))
    optimizer, losses = make(network.parameters()), []
    for t in range(steps):
        rows = slice(128 * t, 128 * t + 128)
        pixels = torch.from_numpy(images.inputs[rows].reshape(128, 784).astype(np.float32) / 255)
        loss = F.cross_entropy(network(pixels), torch.from_numpy(images.labels[rows].astype(np.int64)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def test_rmsprop_reproduces_keras_golden_trajectory(mnist_dir, golden, fastest_exact_products):
    """As far as it can be followed: at step 52 a ReLU is at its kink, where other float32 kernels go another way."""
    losses = trajectory(RMSprop, mnist_dir, 50)
    assert np.abs(losses - golden["loss"][:50]).max() < 1e-5


def test_torchs_own_rmsprop_does_not(mnist_dir, golden):
    def torchs(parameters):
        return torch.optim.RMSprop(parameters, lr=1e-3, alpha=0.9, eps=1e-7)

    losses = trajectory(torchs, mnist_dir, 10)
    assert np.abs(losses - golden["loss"][:10]).max() > 0.1


def test_one_step_is_the_formula():
    weight = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    optimizer = RMSprop([weight], lr=0.1, rho=0.8, epsilon=0.01)
    expected, average = np.array([1.0, -2.0, 3.0]), np.zeros(3)
    for gradient in (np.array([0.5, 0.0, -4.0]), np.array([0.1, 1.0, 2.0])):
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        average = 0.8 * average + 0.2 * gradient**2
        expected = expected - 0.1 * gradient / np.sqrt(average + 0.01)
    assert weight.detach().numpy() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("epsilon", [1e-7, 1e-25])
@pytest.mark.parametrize("rho", [0.0, 1e-300, 1e-30, 1e-8, 1e-3, 0.5, 0.9, 0.999])
def test_every_rho_is_keras_formula_also_where_the_gradient_is_zero(monkeypatch, rho, epsilon, fused):
    """Both ways of computing it, with gradients that are zero always, sometimes and never, against float64 NumPy."""
    if not fused:
        monkeypatch.setattr("pipeline.optim.optimizers.FUSED_FROM_RHO", 2)
    weight = torch.full((4,), 1.0, dtype=torch.float64, requires_grad=True)
    optimizer = RMSprop([weight], lr=1e-3, rho=rho, epsilon=epsilon)
    expected, average = np.ones(4), np.zeros(4)
    for step in range(6):
        gradient = np.array([0.0, 0.3 if step % 2 else 0.0, 0.0 if step else -2.0, 0.1 * (step + 1)])
        weight.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        average = rho * average + (1 - rho) * gradient**2
        expected = expected - 1e-3 * gradient / np.sqrt(average + epsilon)
    assert weight.detach().numpy() == pytest.approx(expected, rel=1e-12)
    assert weight[0].item() == 1


@pytest.mark.parametrize("rho", [0.0, 1e-30])
def test_without_memory_single_precision_stays_finite_where_no_gradient_is(rho):
    weight = torch.ones(2, requires_grad=True)
    optimizer = RMSprop([weight], lr=0.1, rho=rho)
    for gradient in ([0.0, 1.0], [0.0, 0.0], [0.0, -1.0]):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    assert weight.tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("knob", ["momentum", "rho", "epsilon", "weight_decay", "learning_rate"])
@pytest.mark.parametrize("name", ["rmsprop", "sgd", "nesterov", "adagrad", "adadelta", "adam", "adamw"])
def test_a_knob_reaches_the_optimizers_that_its_meaning_names(name, knob):
    names = {
        "rho": ("rmsprop", "adadelta"),
        "epsilon": ("rmsprop", "adagrad", "adadelta", "adam", "adamw"),
        "momentum": ("sgd", "nesterov"),
        "weight_decay": ("adamw",),
    }

    def two_steps(**knobs):
        weight = torch.ones(1, requires_grad=True)
        optimizer = make_optimizer(name, [weight], **{"learning_rate": 0.1, "momentum": 0.2, **knobs})
        for gradient in (1.0, 0.25):
            weight.grad = torch.tensor([gradient])
            optimizer.step()
        return weight.item()

    assert (two_steps(**{knob: 0.5}) != two_steps()) == (name in names.get(knob, (name,)))


def steps(network, optimizer, n):
    for k in range(n):
        torch.manual_seed(k)
        optimizer.zero_grad()
        network(torch.rand(4, 784)).square().mean().backward()
        optimizer.step()


def test_the_state_survives_saving_and_loading_bit_for_bit():
    network = MLP(MNIST, hidden_units=8, dropout=0.0)
    optimizer = RMSprop(network.parameters())
    steps(network, optimizer, 3)
    twin = copy.deepcopy(network)
    other = RMSprop(twin.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(network, optimizer, 2)
    steps(twin, other, 2)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


def test_parameter_groups_have_their_own_rate_and_no_gradient_means_no_step():
    slow, fast, still = (torch.ones(1, requires_grad=True) for _ in range(3))
    optimizer = RMSprop([{"params": [slow, still]}, {"params": [fast], "lr": 0.1}], lr=0.01)
    slow.grad, fast.grad = torch.ones(1), torch.ones(1)
    optimizer.step()
    assert (1 - fast).item() == pytest.approx(10 * (1 - slow).item(), rel=1e-5)
    assert still.item() == 1


def test_a_closure_is_called_with_gradients_and_its_loss_returned():
    weight = torch.ones(1, requires_grad=True)
    optimizer = RMSprop([weight])

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 1.0
    assert weight.item() < 1


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"rho": 1.0}, {"rho": -0.1}, {"epsilon": -1e-9}])
def test_values_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="RMSprop needs lr >= 0, epsilon >= 0 and 0 <= rho < 1"):
        RMSprop([torch.ones(1)], **wrong)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rmsprop", RMSprop),
        ("sgd", torch.optim.SGD),
        ("adagrad", torch.optim.Adagrad),
        ("adadelta", torch.optim.Adadelta),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
    ],
)
def test_every_name_makes_its_optimizer_with_the_rate(name, kind):
    optimizer = make_optimizer(name, [torch.ones(1, requires_grad=True)], learning_rate=0.5)
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_an_unknown_name_is_told():
    with pytest.raises(ValueError, match="unknown optimizer 'lion': rmsprop, sgd, nesterov, adagrad, adadelta, "):
        make_optimizer("lion", [], learning_rate=1)


def test_nothing_moves_at_rate_zero_and_epsilon_may_be_zero():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    optimizer = RMSprop([weight], lr=0, epsilon=0)
    weight.grad = torch.tensor([0.5, -3.0])
    optimizer.step()
    assert weight.tolist() == [1.0, 2.0]
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert weight.tolist() != [1.0, 2.0]


@pytest.mark.parametrize(
    ("rho", "devices", "fused"),
    [
        (0.9, "cpu", True),
        (1e-3, "cpu", True),
        (9.9e-4, "cpu", False),
        (0.9, "meta", False),  # whatever is no CPU, a GPU say
        (0.9, "cpu meta", False),
    ],
)
def test_the_fused_update_is_the_cpus_alone(monkeypatch, rho, devices, fused):
    weights, used = [torch.ones(2, requires_grad=True, device=device) for device in devices.split()], []
    monkeypatch.setattr(
        "pipeline.optim.optimizers._adam_without_momentum", lambda weights, *_: used.append(len(weights))
    )
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    monkeypatch.setattr(torch, "_foreach_mul_", lambda *_: used.append("foreach"))
    monkeypatch.setattr(torch, "_foreach_addcdiv_", lambda *_, value: None)
    RMSprop(weights, rho=rho).step()
    assert used == ([1] if fused else ["foreach"])


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_both_ways_go_against_the_gradient_by_the_same_steps(monkeypatch, rho):
    """The way of a GPU, taken on the CPU."""
    found = []
    for fused_from in (1e-3, 2):
        monkeypatch.setattr("pipeline.optim.optimizers.FUSED_FROM_RHO", fused_from)
        weights = [torch.ones(3, requires_grad=True), torch.zeros(2, 2, requires_grad=True)]
        optimizer = RMSprop(weights, lr=0.1, rho=rho, epsilon=1e-3)
        for step in range(4):
            for weight in weights:
                weight.grad = torch.linspace(1, 2 + step, weight.numel()).reshape(weight.shape)
            optimizer.step()
        found.append(torch.cat([weight.detach().flatten() for weight in weights]))
    assert torch.allclose(*found, rtol=1e-5)
    assert (found[1][:3] < 1).all()
    assert (found[1][3:] < 0).all()


SET = {"learning_rate": 0.03, "rho": 0.7, "epsilon": 0.004, "momentum": 0.6, "weight_decay": 0.2}
DEFAULTS = {"learning_rate": 0.03, "rho": 0.9, "epsilon": 1e-7, "momentum": 0.0, "weight_decay": 0.01}  # RunConfig's
NAMES = {
    "rmsprop": {"lr": "learning_rate", "rho": "rho", "epsilon": "epsilon"},
    "sgd": {"lr": "learning_rate", "momentum": "momentum"},
    "adagrad": {"lr": "learning_rate", "eps": "epsilon"},
    "adadelta": {"lr": "learning_rate", "rho": "rho", "eps": "epsilon"},
    "adam": {"lr": "learning_rate", "eps": "epsilon"},
    "adamw": {"lr": "learning_rate", "eps": "epsilon", "weight_decay": "weight_decay"},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("knobs", "values"), [(SET, SET), ({"learning_rate": 0.03}, DEFAULTS)])
def test_every_knob_arrives_with_its_value(name, knobs, values):
    parameters = [torch.ones(1, requires_grad=True), torch.ones(2, requires_grad=True)]
    (group,) = make_optimizer(name, parameters, **knobs).param_groups
    assert {key: group[key] for key in NAMES[name]} == {key: values[knob] for key, knob in NAMES[name].items()}
    assert [id(each) for each in group["params"]] == [id(each) for each in parameters]


def test_rmsprop_alone_has_keras_defaults():
    (group,) = RMSprop([torch.ones(1, requires_grad=True)]).param_groups
    assert (group["lr"], group["rho"], group["epsilon"]) == (1e-3, 0.9, 1e-7)


def test_nesterov_looks_ahead_by_the_momentum():
    """w <- w - lr * (g + momentum * v), v <- momentum * v + g, as torch has it."""
    weight = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = make_optimizer("nesterov", [weight], learning_rate=0.1, momentum=0.5)
    expected = velocity = 0.0
    for gradient in (2.0, -1.0):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        velocity = 0.5 * velocity + gradient
        expected -= 0.1 * (gradient + 0.5 * velocity)
    assert weight.item() == pytest.approx(1 + expected, abs=1e-15)


def test_adamw_shrinks_the_weights_by_a_share_of_the_rate():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    optimizer = make_optimizer("adamw", [weight], learning_rate=0.5, weight_decay=0.1)
    weight.grad = torch.zeros(2)
    optimizer.step()
    assert weight.tolist() == pytest.approx([0.95, 1.9])


def test_the_users_own_gets_the_parameters_and_the_rate():
    weights = [torch.ones(1, requires_grad=True), torch.ones(2, requires_grad=True)]
    optimizer = make_optimizer("tests.own_training_code:nadam", iter(weights), learning_rate=0.25)
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.NAdam
    assert (group["lr"], [id(each) for each in group["params"]]) == (0.25, [id(each) for each in weights])


def test_what_the_users_own_gives_instead_is_told():
    with pytest.raises(OwnCodeError) as error:
        make_optimizer("tests.own_training_code:no_optimizer", [], learning_rate=1)
    assert str(error.value) == "tests.own_training_code:no_optimizer gave list, expected a torch.optim.Optimizer"
