"""The classifier by itself: its loss, what it counts and logs, how it evaluates."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from pipeline.data_spec import MNIST
from pipeline.networks.mlp import MLP
from pipeline.training.classifier import Classifier
from pipeline.training.metrics import make_measures

NAMES = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"]


@pytest.fixture
def classifier():
    """A small one, and what it logs."""
    torch.manual_seed(7)
    module = Classifier(MLP(MNIST, hidden_units=8, hidden_layers=1, dropout=0.5), torch.optim.SGD)
    module.logged = []
    module.log = lambda name, value, **how: module.logged.append((name, value, how))
    return module


def told(module):
    """What it logged; by identity, for two metrics that are compared give a third, which counts as true."""
    return [(name, id(value), how) for name, value, how in module.logged]


def images(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, 784, generator=generator), torch.arange(size) % 10


def test_the_optimizer_gets_every_parameter():
    module = Classifier(MLP(MNIST, hidden_units=1), lambda weights: torch.optim.SGD(weights, lr=0.5))
    (group,) = module.configure_optimizers().param_groups
    assert group["lr"] == 0.5
    assert [id(each) for each in group["params"]] == [id(each) for each in module.network.parameters()]


def test_its_schedule_lays_out_the_rate_epoch_by_epoch():
    module = Classifier(
        MLP(MNIST, hidden_units=1), lambda weights: torch.optim.SGD(weights, lr=0.5), lambda epoch: 1 / (epoch + 1)
    )
    (optimizer,), (schedule,) = module.configure_optimizers()
    assert (schedule.optimizer, schedule.get_last_lr()) == (optimizer, [0.5])
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_it_gives_the_networks_logits(classifier):
    module, (pixels, _) = classifier.eval(), images(3)
    assert torch.equal(module(pixels), module.network(pixels))


def test_its_weights_are_all_that_a_checkpoint_of_it_holds(classifier):
    classifier.training_step(images(5), 0)
    assert list(classifier.state_dict()) == [f"network.{name}" for name in classifier.network.state_dict()]


def test_a_training_step_gives_the_loss_that_autograd_goes_back_from(classifier):
    pixels, labels = images(10)
    for each in classifier.network.modules():
        each.p = 0.0
    loss = classifier.training_step((pixels, labels), 0)
    assert torch.equal(loss, F.cross_entropy(classifier.network(pixels), labels))
    loss.backward()
    assert all(bool(each.grad.any()) for each in classifier.parameters())
    assert classifier.automatic_optimization


@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_each_stage_counts_and_logs_its_own_means_over_images(classifier, stage):
    classifier.eval()  # dropout would blur what is to be found
    classifier._trainer = SimpleNamespace(world_size=1)
    step = {"train": classifier.training_step, "val": classifier.validation_step, "test": classifier.test_step}[stage]
    batches = [images(5, seed=1), images(2, seed=2)]
    for number, batch in enumerate(batches):
        step(batch, *([number] if stage == "train" else []))
    pixels, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    logits = classifier.network(pixels)
    loss, accuracy = (classifier.means[f"{stage}_{value}"] for value in ("loss", "accuracy"))
    assert loss.compute().item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert accuracy.compute().item() == (logits.argmax(1) == labels).double().mean().item()
    assert {name: mean.examples.item() for name, mean in classifier.means.items()} == {
        name: 7 if name.startswith(stage) else 0 for name in NAMES
    }
    how = {"on_step": False, "on_epoch": True, "prog_bar": True, "logger": False}  # a callback logs epochs
    assert told(classifier) == [(f"{stage}_loss", id(loss), how), (f"{stage}_accuracy", id(accuracy), how)] * 2


@pytest.mark.parametrize("stage", ["val", "test"])
def test_evaluation_is_in_float32_whatever_the_training_computes_with(classifier, stage):
    module = classifier.eval()
    pixels, labels = images(50)
    step = module.validation_step if stage == "val" else module.test_step
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # as Lightning's precision plugin calls it
        step((pixels, labels))
    with torch.no_grad():
        exact = module.network(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = module.network(pixels)
    assert not torch.equal(exact, rounded.float())
    assert module.means[f"{stage}_loss"].compute().item() == F.cross_entropy(exact, labels).item()


def test_it_tells_how_far_an_epoch_is(classifier):
    classifier._trainer = SimpleNamespace(fit_loop=SimpleNamespace(batch_idx=-1), num_training_batches=3)
    classifier._jit_is_scripting = True
    assert Classifier.progress(classifier) == (0, 3, {})
    classifier._trainer.fit_loop.batch_idx = 1
    classifier.means["train_loss"].update(torch.tensor(0.5), 4)
    classifier.means["train_accuracy"].update(torch.tensor([True, False]), 2)
    assert Classifier.progress(classifier) == (2, 3, {"loss": 0.5, "accuracy": 0.5})


def test_a_training_step_learns_from_the_augmented_batch_and_keeps_its_logits(classifier):
    measures = make_measures("tests.own_training_code:largest")
    module = Classifier(classifier.network.eval(), torch.optim.SGD, None, lambda inputs: inputs * 0, measures)
    module.logged = []
    module.log = lambda name, value, **how: module.logged.append((name, value, how))
    pixels, labels = images(6)
    loss = module.training_step((pixels, labels), 0)
    black = module.network(torch.zeros_like(pixels))
    assert torch.equal(loss, F.cross_entropy(black, labels))
    assert module.measured["train_largest"].compute().item() == black.max().item()
    how = {"on_step": False, "on_epoch": True, "logger": False}
    assert told(module)[2:] == [("train_largest", id(module.measured["train_largest"]), how)]
    with torch.no_grad():
        module.validation_step((pixels, labels))
    assert module.measured["val_largest"].compute().item() == module.network(pixels).max().item()
    assert list(module.state_dict()) == [f"network.{name}" for name in module.network.state_dict()]
