"""The classifier by itself, with a trainer that is only what it asks one for."""

from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch.nn import functional as F

from pipeline.fast_cpu.gradients import Backprop
from pipeline.networks.mlp import MLP
from pipeline.training.classifier import DigitClassifier, ImageMeans
from tests import ranks


def classifier(batch_size=4, world_size=1, device="cpu", datamodule=None, precision="32-true"):
    """A small one with an optimizer, as Lightning hands it out, and what it logs."""
    torch.manual_seed(7)
    network = MLP(hidden_units=8, hidden_layers=1, dropout=0.5)
    module = DigitClassifier(network, lambda parameters: torch.optim.SGD(parameters, lr=0.5), batch_size, seed=3)
    strategy = ranks.Strategy(ranks.Ranks(1), 0)
    optimizer = LightningOptimizer(module.configure_optimizers())
    optimizer._strategy, strategy._lightning_optimizers = strategy, [optimizer]
    module.trainer = SimpleNamespace(
        strategy=strategy,
        world_size=world_size,
        global_rank=0,
        current_epoch=0,
        datamodule=datamodule,
        precision=precision,
    )
    module.manual_backward = lambda loss: loss.backward()
    module.logged = []
    module.log_dict = lambda values, **how: module.logged.append((values, how))
    return module.to(device)


def images(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, 784, generator=generator), torch.arange(size) % 10


def test_it_is_the_samples_unless_told_otherwise():
    module = DigitClassifier(MLP(hidden_units=1), None)
    assert (module.batch_size, module.seed, module.automatic_optimization, module.by_hand) == (128, 1, False, None)
    assert list(module.means) == ["train", "val", "test"]


def test_the_optimizer_gets_every_parameter():
    module = classifier()
    (group,) = module.configure_optimizers().param_groups
    assert [id(each) for each in group["params"]] == [id(each) for each in module.network.parameters()]


def test_it_gives_the_networks_logits():
    module, (pixels, _) = classifier().eval(), images(3)
    assert torch.equal(module(pixels), module.network(pixels))


@pytest.mark.parametrize(
    ("knobs", "by_hand"),
    [
        ({}, True),
        ({"precision": "bf16-mixed"}, True),
        ({"precision": "64-true"}, False),
        ({"world_size": 2}, False),  # a DDP that does not see the backward pass averages nothing
        ({"world_size": 2, "precision": "bf16-mixed"}, False),
        ({"device": "meta"}, False),
    ],
)
def test_gradients_are_derived_by_hand_in_one_process_on_the_cpu_alone(knobs, by_hand):
    module = classifier(**knobs)
    module.by_hand = "of an earlier fit"
    module.on_fit_start()
    assert isinstance(module.by_hand, Backprop) if by_hand else module.by_hand is None
    if by_hand:
        assert (
            module.by_hand.dtype == {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}[module.trainer.precision]
        )


@pytest.mark.parametrize(("of_data", "rows"), [(3, 3), (4, 4), (5, 4), (None, 4)])
def test_memory_is_laid_out_for_the_largest_batch_that_there_will_be(of_data, rows):
    module = classifier(datamodule=SimpleNamespace(**({"train_images": range(of_data)} if of_data else {})))
    module.on_fit_start()
    assert [len(output) for output in module.by_hand.outputs] == [rows]


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_block_is_one_step_a_batch_each_from_its_own_gradients(by_hand):
    module, plain = classifier(), classifier()
    pixels, labels = images(10)
    for each in (module, plain):
        each.on_train_epoch_start()
        each.train()
    if by_hand:
        module.on_fit_start()
    module.training_step((pixels, labels))
    losses = []
    for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
        logits = plain.network(pixels[rows])
        losses.append(F.cross_entropy(logits, labels[rows]))
        gradients = torch.autograd.grad(losses[-1], list(plain.parameters()))
        with torch.no_grad():
            for weights, gradient in zip(plain.parameters(), gradients, strict=True):
                weights -= 0.5 * gradient
    for found, expected in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(found, expected)
    assert module.means["train"].losses == losses
    assert not any(each.requires_grad for each in (*module.means["train"].losses, *module.means["train"].logits))
    assert [len(each) for each in module.means["train"].labels] == [4, 4, 2]
    assert (module.means["val"].losses, module.means["test"].losses) == ([], [])


@pytest.mark.parametrize("stage", ["val", "test"])
def test_evaluation_is_in_float32_whatever_the_training_computes_with(stage):
    module = classifier(precision="bf16-mixed").eval()
    pixels, labels = images(50)
    step = module.validation_step if stage == "val" else module.test_step
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # as Lightning's precision plugin calls it
        step((pixels, labels))
    with torch.no_grad():
        exact = module.network(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = module.network(pixels)
    means = module.means[stage]
    assert torch.equal(means.logits[0], exact)
    assert not torch.equal(exact, rounded.float())
    assert torch.equal(means.losses[0], F.cross_entropy(exact, labels))
    assert torch.equal(means.labels[0], labels)
    assert [name for name, others in module.means.items() if others.losses] == [stage]


def batches(count):
    """Logits and labels of a row of batches whose losses differ widely, the last one smaller."""
    generator = torch.Generator().manual_seed(1)
    for number in range(count):
        size = 5 if number < count - 1 else 2
        logits = torch.randn(size, 10, generator=generator) * 10**number
        yield logits, torch.randint(10, (size,), generator=generator)


@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_each_stage_begins_anew_and_logs_its_own_means_over_images(stage):
    module = classifier()
    word = {"train": "train", "val": "validation", "test": "test"}[stage]
    for others in module.means.values():
        others.add(torch.tensor(99.0), torch.zeros(1, 10), torch.tensor([3]))
    before = dict(module.means)
    getattr(module, f"on_{word}_epoch_start")()
    assert {name for name in before if module.means[name] is not before[name]} == {stage}
    logits, labels = zip(*batches(3), strict=True)
    for each, right in zip(logits, labels, strict=True):
        module.means[stage].add(F.cross_entropy(each, right), each, right)
    getattr(module, f"on_{word}_epoch_end")()
    ((values, how),) = module.logged
    assert list(values) == [f"{stage}_loss", f"{stage}_accuracy"]
    assert {value.dtype for value in values.values()} == {torch.float64}
    every, right = torch.cat(logits).double(), torch.cat(labels)
    assert values[f"{stage}_loss"].item() == pytest.approx(F.cross_entropy(every, right).item(), rel=1e-6)
    assert values[f"{stage}_accuracy"].item() == (every.argmax(1) == right).double().mean().item()
    assert how == {"prog_bar": True, "logger": False}  # the bar shows them; EpochEnd logs them


def test_sums_are_exact_where_float32_would_round():
    means = ImageMeans()
    for loss in (2.0**24, 1.0, 1.0):
        means.add(torch.tensor(loss), torch.zeros(1, 10), torch.tensor([0]))
    assert means.sums().tolist() == [2**24 + 2, 3, 3]


def test_a_batch_that_is_counted_keeps_no_graph_alive():
    means, weight = ImageMeans(), torch.ones(1, 10, requires_grad=True)
    logits = weight * 2
    means.add(F.cross_entropy(logits, torch.tensor([0])), logits, torch.tensor([0]))
    assert not means.losses[0].requires_grad
    assert not means.logits[0].requires_grad


def test_the_sums_of_all_ranks_are_added_before_the_division():
    """Rank 1 has four times as many images: the mean of the ranks' means is another."""
    module = classifier(world_size=2)
    asked = []

    def reduce(tensor, reduce_op):
        asked.append((tensor.tolist(), tensor.dtype, reduce_op))
        return tensor + torch.tensor([40.0, 2.0, 8.0], dtype=torch.float64)

    module.trainer.strategy.reduce = reduce
    module.means["val"].add(torch.tensor(3.0), torch.eye(10)[[1, 2]], torch.tensor([1, 5]))
    module.on_validation_epoch_end()
    assert asked == [([6.0, 1.0, 2.0], torch.float64, "sum")]
    assert module.logged[0][0] == {"val_loss": 46 / 10, "val_accuracy": 3 / 10}


def test_the_sums_go_to_the_device_that_the_ranks_speak_from_and_alone_nowhere():
    for world_size, device, devices in ((2, "meta", ["meta"]), (2, "cpu", ["cpu"]), (1, "cpu", [])):
        module, asked = classifier(world_size=world_size, device=device), []

        def reduce(tensor, reduce_op, asked=asked):
            asked.append(tensor.device.type)
            return torch.ones(3, dtype=torch.float64)

        module.trainer.strategy.reduce = reduce
        module.means["val"].add(torch.tensor(3.0), torch.eye(10)[[1, 2]], torch.tensor([1, 5]))
        module.on_validation_epoch_end()
        assert asked == devices


@pytest.mark.parametrize("labels", [4, 9])
def test_a_block_with_fewer_labels_than_images_is_an_error_and_not_a_shorter_block(labels):
    module = classifier()
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is"):
        module.training_step((images(8)[0], images(labels)[1]))
