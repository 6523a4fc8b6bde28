"""The fast path: chosen where nobody asks for autograd's hooks, and then the same numbers to the last bit."""

from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import (
    GradientAccumulationScheduler,
    LambdaCallback,
    LearningRateMonitor,
    StochasticWeightAveraging,
)
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import prune

from pipeline.config import RunConfig
from pipeline.data_spec import MNIST
from pipeline.fast_cpu import blocks
from pipeline.networks.dropout import Dropout
from pipeline.networks.mlp import MLP
from pipeline.optim.optimizers import RMSprop
from pipeline.training import fit
from pipeline.training.classifier import Classifier
from tests import own_training_code, ranks

OWN = "tests.own_training_code"

CONFIG = RunConfig(epochs=2, batch_size=4, hidden_units=16, dropout=0.4, validation_size=9, seed=11, accelerator="cpu")


class Watcher(Callback):
    def on_after_backward(self, trainer, pl_module):
        pass


class EpochWatcher(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        pass


class BatchWatcher(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pass


class BlockWatcher(BatchWatcher):
    takes_blocks = True


def classifier(optimizer=torch.optim.SGD):
    return Classifier(MLP(MNIST, hidden_units=8), optimizer)


def trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**{"accelerator": "cpu", "devices": 1, "enable_checkpointing": False, **quiet, **options})


@pytest.mark.parametrize(
    ("options", "fast"),
    [
        ({}, True),
        ({"precision": "bf16-mixed"}, True),
        ({"callbacks": [EpochWatcher(), BlockWatcher()]}, True),
        ({"precision": "64-true"}, False),
        ({"gradient_clip_val": 1.0}, False),
        ({"accumulate_grad_batches": 2}, False),
        ({"callbacks": [Watcher()]}, False),
        ({"callbacks": [EpochWatcher(), BatchWatcher()]}, False),
        ({"devices": 2, "strategy": "ddp"}, False),  # a DDP that does not see the backward pass averages nothing
    ],
)
def test_gradients_are_by_hand_where_one_process_trains_and_nobody_watches(options, fast):
    found = blocks.by_hand(trainer(**options), classifier(), 4)
    assert (found is not None) == fast
    if found:
        assert found.dtype == {"bf16-mixed": torch.bfloat16}.get(options.get("precision"), torch.float32)
        assert [len(output) for output in found.outputs] == [4, 4]


def test_on_another_device_than_a_cpu_autograd_derives_them():
    one = trainer()
    one.strategy._root_device = torch.device("meta")
    assert blocks.by_hand(one, classifier(), 4) is None


def hook(*_):
    return None


@pytest.mark.parametrize(
    "watch",
    [
        lambda network: network.register_forward_hook(hook),
        lambda network: network.layers[0].register_forward_pre_hook(hook),
        lambda network: network.layers[0].register_full_backward_hook(hook),
        lambda network: network.layers[0].register_full_backward_pre_hook(hook),
        lambda network: network.layers[0].weight.register_hook(hook),
        lambda network: network.layers[0].bias.register_post_accumulate_grad_hook(hook),
        lambda network: network.layers[0].weight.requires_grad_(False),
        lambda network: network.layers.insert(1, nn.Sigmoid()),
    ],
)
def test_a_network_that_is_watched_frozen_or_another_is_autograds(watch):
    module = classifier()
    watch(module.network)
    assert blocks.by_hand(trainer(), module, 4) is None


@pytest.mark.parametrize(
    ("batch_size", "block"), [(1, 1024), (7, 1022), (128, 1024), (512, 1024), (513, 513), (1024, 1024), (1025, 1025)]
)
def test_a_block_is_whole_batches_in_the_same_order(batch_size, block):
    data = ranks.small_data(CONFIG)
    data.batch_size = batch_size
    data.setup()
    plain = data.train_dataloader()
    blocked, before = blocks.in_blocks(plain, batch_size), torch.get_rng_state()
    assert blocked.batch_size == block
    for epoch in (0, 1):
        plain.sampler.set_epoch(epoch)  # Lightning calls it on what it is given
        one = [batch for pixels, labels in plain for batch in zip(pixels, labels, strict=True)]
        two = [batch for pixels, labels in blocked for batch in zip(pixels, labels, strict=True)]
        assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(one, two, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def each_epoch(weights):
    optimizer = torch.optim.SGD(weights, lr=0.1)
    return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def in_words(**how):
    def configure(weights):
        optimizer, (scheduler,) = each_epoch(weights)
        return {"optimizer": optimizer[0], "lr_scheduler": {"scheduler": scheduler, **how}}

    return configure


def by_a_metric(weights):
    optimizer = torch.optim.SGD(weights, lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}


@pytest.mark.parametrize(
    ("configure", "fast"),
    [
        (lambda weights: RMSprop(weights), True),
        (lambda weights: [torch.optim.Adam(weights)], True),
        (each_epoch, True),
        (in_words(interval="epoch"), True),
        (in_words(interval="step"), False),
        (in_words(frequency=2), False),
        (by_a_metric, False),
        (lambda weights: own_training_code.lbfgs(weights, 0.1), False),  # it calls the step itself
        (lambda weights: own_training_code.Own(weights, 0.1), False),  # what it does, nobody knows
        (lambda weights: own_training_code.frozen(weights, 0.1), False),
    ],
)
def test_optimizer_and_schedule_decide_too(configure, fast):
    module = classifier()
    module.configure_optimizers = lambda: configure(module.network.parameters())
    assert (blocks.by_hand(trainer(), module, 4) is not None) == fast


@pytest.mark.parametrize(
    "callback",
    [
        LambdaCallback(on_after_backward=hook),
        GradientAccumulationScheduler({0: 2}),
        StochasticWeightAveraging(1e-2),
        LearningRateMonitor(),
    ],
)
def test_callbacks_that_steer_or_watch_the_plain_path_get_it(callback):
    assert blocks.by_hand(trainer(callbacks=[callback]), classifier(), 4) is None
    assert blocks.by_hand(trainer(callbacks=[LambdaCallback(on_train_epoch_end=hook)]), classifier(), 4) is not None


@pytest.mark.parametrize("configure", [each_epoch, in_words(interval="epoch")])
def test_any_schedule_by_epochs_goes_on_as_lightning_has_it(monkeypatch, configure):
    """Also at a checkpoint and in validation, where its rate is the next epoch's already."""
    monkeypatch.setattr(Classifier, "configure_optimizers", lambda self: configure(self.network.parameters()))
    rates = {True: [], False: []}
    for fast in rates:

        def look(trainer, module, found=rates[fast]):
            found.append(trainer.optimizers[0].param_groups[0]["lr"])

        watch = LambdaCallback(on_train_epoch_start=look, on_validation_start=look, on_train_epoch_end=look)
        fit.fit(CONFIG, data=ranks.small_data(), callbacks=[watch], fast_cpu=fast)
    assert rates[True] == rates[False] == pytest.approx([0.1, 0.01, 0.01, 0.01, 0.001, 0.001])


def test_an_optimizer_that_calls_the_step_itself_trains():
    found = fit.fit(CONFIG.replace(optimizer=f"{OWN}:lbfgs", learning_rate=0.1), data=ranks.small_data())
    assert type(found.classifier) is Classifier
    assert found.history[2]["train_loss"] < found.history[1]["train_loss"]


def without_times(history):
    return {
        epoch: {name: value for name, value in metrics.items() if name not in ("time_ms", "epoch_seconds")}
        for epoch, metrics in history.items()
    }


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"optimizer": "sgd", "momentum": 0.5, "hidden_layers": 0},
        {"optimizer": "adam", "hidden_layers": 3, "batch_size": 5},
        {"precision": "bf16-mixed", "batch_size": 64},
        {"optimizer": "adamw", "schedule": "cosine", "augment": "shift", "metric": "macro_f1"},
        {"optimizer": "nesterov", "momentum": 0.5, "schedule": "step", "metric": f"{OWN}:share,{OWN}:largest"},
        {"precision": "bf16-mixed", "augment": f"{OWN}:noise", "optimizer": f"{OWN}:nadam"},
    ],
)
def test_both_ways_give_the_same_weights_and_metrics_to_the_last_bit(monkeypatch, knobs):
    """The plain one is Lightning as its documentation teaches it; a block is two batches here, so that they differ."""
    config = RunConfig(**{**CONFIG.as_dict(), **knobs})
    monkeypatch.setattr(blocks, "BLOCK", 8)
    fast, plain = (fit.fit(config, data=ranks.small_data(config), fast_cpu=way) for way in (True, False))
    assert (type(fast.classifier), type(plain.classifier)) == (fit.FastClassifier, Classifier)
    assert torch.equal(ranks.weights_of(fast.classifier), ranks.weights_of(plain.classifier))
    assert without_times(fast.history) == without_times(plain.history)
    assert fast.test == plain.test
    assert fast.trainer.global_step == plain.trainer.global_step


class Sees(Callback):
    """What the trainer has measured, at each hook of an epoch."""

    def __init__(self):
        self.seen = []

    def _look(self, trainer, pl_module):
        found = {name: value.item() for name, value in trainer.callback_metrics.items() if name != "epoch_seconds"}
        self.seen.append((trainer.current_epoch, found))

    on_train_epoch_start = on_train_epoch_end = on_train_end = _look
    on_validation_start = on_validation_epoch_end = on_validation_end = _look


def test_a_callback_sees_the_same_metrics_at_the_same_time_both_ways():
    knobs = {"metric": f"macro_f1,{OWN}:share", "schedule": "cosine"}
    seen = {True: Sees(), False: Sees()}
    for fast, callback in seen.items():
        given = CONFIG.replace(**knobs)
        found = fit.fit(given, data=ranks.small_data(given), callbacks=[callback], fast_cpu=fast)
        assert isinstance(found.classifier, fit.FastClassifier) == fast
        of_epochs = [metrics for _, metrics in callback.seen if "train_loss" in metrics]
        assert [metrics["train_loss"] for metrics in of_epochs[:1]] == [found.history[1]["train_loss"]]
        assert "train_share" in of_epochs[0]
    assert seen[True].seen == seen[False].seen


@pytest.mark.parametrize("fast", [True, False])
def test_a_callback_finds_the_data_module_both_ways(fast):
    found, data = [], ranks.small_data()

    def look(trainer, *_, **__):
        found.append(trainer.datamodule)

    hooks = ("setup", "on_fit_start", "on_train_epoch_end", "on_test_end")
    fit.fit(CONFIG, data=data, callbacks=[LambdaCallback(**dict.fromkeys(hooks, look))], fast_cpu=fast)
    assert len(found) == 6  # `setup` and the epochs twice
    assert all(each is data for each in found)


def test_an_epoch_that_is_broken_off_has_its_means_both_ways(monkeypatch):
    class Enough(BlockWatcher):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = pl_module.progress()[0] == 4

    monkeypatch.setattr(blocks, "BLOCK", 8)
    fast, plain = (
        fit.fit(CONFIG, data=ranks.small_data(), callbacks=[Enough()], fast_cpu=way) for way in (True, False)
    )
    assert fast.trainer.global_step == plain.trainer.global_step == 4
    assert without_times(fast.history) == without_times(plain.history)


class Changes(Callback):
    """Does something to what is trained as the second epoch begins, and undoes it with the third."""

    def __init__(self, change):
        self.change = change

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.undo = self.change(pl_module)
        elif trainer.current_epoch == 2:
            self.undo()


def halved(*given):
    return given[-1] / 2


def frozen(module):
    weight = module.network.layers[0].weight.requires_grad_(False)
    return lambda: weight.requires_grad_(True)


def pruned(module):
    prune.l1_unstructured(module.network.layers[0], "weight", 0.5)
    return lambda: prune.remove(module.network.layers[0], "weight")


def evaluating(module):
    module.network.eval()
    return module.network.train


def without_dropout(module):
    layer = next(each for each in module.network.layers if isinstance(each, Dropout))
    before, layer.p = layer.p, 0
    return lambda: setattr(layer, "p", before)


def another_layer(module):
    before, module.network.layers[1] = module.network.layers[1], nn.Tanh()
    return lambda: module.network.layers.__setitem__(1, before)


def another_network(module):
    before, module.network = module.network, nn.Sequential(module.network, nn.Tanh())
    return lambda: setattr(module, "network", before)


def another_forward(module):
    module.network.forward = lambda inputs: type(module.network).forward(module.network, inputs) / 2
    return lambda: vars(module.network).pop("forward")


CHANGES = {
    "frozen": frozen,
    "pruned": pruned,
    "evaluating": evaluating,
    "without dropout": without_dropout,
    "another layer": another_layer,
    "another network": another_network,
    "another forward": another_forward,
    "hook": lambda module: module.network.layers[0].register_forward_hook(halved).remove,
    "hook of a weight": lambda module: module.network.layers[0].weight.register_hook(halved).remove,
    "hook of the module": lambda module: module.register_forward_hook(halved).remove,
    "hook of all modules": lambda module: register_module_forward_hook(halved).remove,
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_callback_does_to_the_network_as_it_trains_is_heeded_to_the_last_bit(monkeypatch, change, precision):
    """Where the gradients by hand would be others; afterwards they are taken again."""
    monkeypatch.setattr(blocks, "BLOCK", 8)
    given = CONFIG.replace(epochs=3, precision=precision, optimizer="adamw")
    fast, plain = (
        fit.fit(given, data=ranks.small_data(given), callbacks=[Changes(change)], fast_cpu=way) for way in (True, False)
    )
    assert (type(fast.classifier), type(plain.classifier)) == (fit.FastClassifier, Classifier)
    assert torch.equal(ranks.weights_of(fast.classifier), ranks.weights_of(plain.classifier))
    assert without_times(fast.history) == without_times(plain.history)
    assert fast.test == plain.test
    left_alone = fit.fit(given, data=ranks.small_data(given))
    assert fast.history[1]["train_loss"] == left_alone.history[1]["train_loss"]
    assert fast.history[3]["train_loss"] != left_alone.history[3]["train_loss"]
    by_hand = fast.classifier.derive.network is fast.classifier.network and fast.classifier.derive.holds()
    assert by_hand == (change is not pruned)  # what is pruned has another weight for good


@pytest.mark.parametrize(("batch_size", "rows"), [(21, 21), (22, 21), (10**12, 21), (4, 4)])
def test_memory_is_laid_out_for_the_largest_batch_that_there_will_be(batch_size, rows):
    """Of 30 images 9 are held out; for a batch of 10**12 there is no memory anywhere."""
    config = CONFIG.replace(epochs=1, batch_size=batch_size)
    found = fit.fit(config, data=ranks.small_data(config))
    assert [len(output) for output in found.classifier.derive.outputs] == [rows, rows]


def test_clipping_a_watcher_or_accumulation_is_heeded():
    whole = fit.fit(CONFIG, data=ranks.small_data())
    for options in ({"gradient_clip_val": 1e-3}, {"accumulate_grad_batches": 3}):
        found = fit.fit(CONFIG, data=ranks.small_data(), **options)
        assert type(found.classifier) is Classifier
        assert not torch.equal(ranks.weights_of(found.classifier), ranks.weights_of(whole.classifier))
    found = fit.fit(CONFIG, data=ranks.small_data(), callbacks=[Watcher()])
    assert type(found.classifier) is Classifier
    assert torch.equal(ranks.weights_of(found.classifier), ranks.weights_of(whole.classifier))


@pytest.fixture
def module():
    """The fast classifier of batches of four, with an optimizer as Lightning hands it out."""
    torch.manual_seed(7)
    network = MLP(MNIST, hidden_units=8, hidden_layers=1, dropout=0)
    parts = network, lambda w: torch.optim.SGD(w, lr=0.5)
    derive = blocks.by_hand(trainer(), Classifier(*parts), 4)
    found = fit.FastClassifier(*parts, derive=derive, batch_size=4)
    strategy = ranks.Strategy(ranks.Ranks(1), 0)
    optimizer = ranks.lightning_optimizer(found, strategy)
    found._trainer = SimpleNamespace(
        strategy=strategy, train_dataloader=SimpleNamespace(sampler=range(21)), is_last_batch=False
    )
    found.optimizers = lambda: optimizer
    found.logged = []
    found.log_dict = lambda values, **how: found.logged.append((values, how))
    return found


def block(size):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(size, 784, generator=generator), torch.arange(size) % 10


def test_a_block_is_one_step_a_batch_and_the_means_are_over_images(module):
    pixels, labels = block(10)
    plain = MLP(MNIST, hidden_units=8, hidden_layers=1, dropout=0)
    plain.load_state_dict(module.network.state_dict())
    assert module.progress() == (0, 6, {})
    module.training_step((pixels, labels), 0)
    losses = correct = 0
    for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
        logits = plain(pixels[rows])
        loss = F.cross_entropy(logits, labels[rows])
        losses += loss.item() * len(labels[rows])
        correct += (logits.argmax(1) == labels[rows]).sum().item()
        with torch.no_grad():
            for weights, gradient in zip(
                plain.parameters(), torch.autograd.grad(loss, list(plain.parameters())), strict=True
            ):
                weights -= 0.5 * gradient
    assert all(torch.equal(a, b) for a, b in zip(module.network.parameters(), plain.parameters(), strict=True))
    assert module.progress() == (3, 6, {"loss": losses / 10, "accuracy": correct / 10})
    module.on_train_epoch_end()
    ((values, how),) = module.logged
    assert {name: value.item() for name, value in values.items()} == {
        "train_loss": losses / 10,
        "train_accuracy": correct / 10,
    }
    assert {value.dtype for value in values.values()} == {torch.float64}
    assert how == {"prog_bar": True, "logger": False, "on_step": False, "on_epoch": True, "batch_size": 1}
    module.on_train_epoch_start()
    assert module.progress() == (0, 6, {})


@pytest.mark.parametrize("labels", [4, 9])
def test_a_block_with_fewer_labels_than_images_is_an_error_and_not_a_shorter_block(module, labels):
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is"):
        module.training_step((block(8)[0], block(labels)[1]), 0)
