"""What a user brings to a training takes part in it, is recorded at the epochs, and is told in one line where wrong."""

import itertools
import random

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import (
    EMAWeightAveraging,
    LearningRateMonitor,
    StochasticWeightAveraging,
    WeightAveraging,
)
from pytorch_lightning.loggers import Logger
from torchmetrics.functional.classification import multiclass_f1_score

from pipeline import cli, files
from pipeline.config import ConfigError, RunConfig
from pipeline.config.own_code import OwnCodeError, begin_of
from pipeline.networks.mlp import MLP
from pipeline.seeding import derive_seed
from pipeline.training import building, checkpoints, fit
from pipeline.training.augmentation import shift
from pipeline.training.callbacks import EpochSeeds
from pipeline.training.classifier import Classifier
from pipeline.training.history import AtEpochs, History, once
from pipeline.training.trainer import make_trainer, only_useful_words
from tests import ranks
from tests.own_training_code import Network

OWN = "tests.own_training_code"
CONFIG = ranks.CONFIG.replace(epochs=4, optimizer="rmsprop", momentum=0.0, learning_rate=0.01)
TIMES = ("time_ms", "epoch_seconds")


def trained(logger=False, fast=True, **knobs):
    config = CONFIG.replace(**{k: v for k, v in knobs.items() if k not in ("folder", "resume_from", "callbacks")})
    more = {k: v for k, v in knobs.items() if k in ("folder", "resume_from", "callbacks")}
    return fit.fit(config, data=ranks.small_data(config), logger=logger, fast_cpu=fast, **more)


def timeless(history):
    return {
        epoch: {name: value for name, value in metrics.items() if name not in TIMES}
        for epoch, metrics in history.items()
    }


class Kept(Logger):
    """Keeps what it is given."""

    name, version = "kept", "1"

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, {name: value for name, value in metrics.items() if name not in TIMES}))

    def log_hyperparams(self, params, *args, **kwargs):
        pass


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("cosine", [1, 0.8535533905932737, 0.5, 0.1464466094067262]),
        ("step", [1, 1, 0.1, 0.01]),
        (f"{OWN}:warm_up", [0.25, 0.5, 0.75, 1]),
    ],
)
def test_an_epochs_rate_is_what_its_schedule_says_and_is_logged(fast, schedule, factors):
    found = trained(schedule=schedule, fast=fast)
    assert [metrics["learning_rate"] for metrics in found.history.values()] == pytest.approx(
        [0.01 * factor for factor in factors], rel=1e-12
    )


def test_a_rate_is_used_in_the_epoch_of_which_it_is_logged():
    """A rate of nothing leaves the weights as they are."""
    begun = building.make_classifier(CONFIG, ranks.MNIST)
    still = trained(epochs=1, schedule=f"{OWN}:still")
    assert torch.equal(ranks.weights_of(still.classifier), ranks.weights_of(begun))
    assert still.history[1]["learning_rate"] == 0.0


@pytest.mark.parametrize("fast", [True, False])
def test_a_constant_rate_has_no_scheduler_and_is_not_logged(fast):
    found = trained(fast=fast)
    assert found.trainer.lr_scheduler_configs == []
    assert sorted(timeless(found.history)[1]) == ["train_accuracy", "train_loss", "val_accuracy", "val_loss"]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_training_is_bit_for_bit_the_uninterrupted_one(tmp_path, stop, fast):
    knobs = {
        "schedule": "cosine",
        "augment": "shift",
        "metric": f"macro_f1,{OWN}:share",
        "optimizer": "adamw",
        "callback": f"{OWN}:Tells",
        "fast": fast,
    }
    whole = trained(**knobs)

    class Stop(EpochSeeds):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == stop:
                raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained(**knobs, folder=tmp_path, callbacks=[Stop(1)])
    last, _ = checkpoints.latest(tmp_path)
    assert files.epoch_of(last) == stop
    resumed = trained(**knobs, folder=tmp_path, resume_from=last)
    assert type(resumed.classifier) is (fit.FastClassifier if fast else Classifier)
    assert torch.equal(ranks.weights_of(resumed.classifier), ranks.weights_of(whole.classifier))
    assert timeless(resumed.history) == timeless(whole.history)
    assert resumed.test == whole.test


class Interrupted(Callback):
    """Ends the training as its epoch `stop` begins (from 0), or the test, if there is no such epoch."""

    def __init__(self, stop):
        self.stop = stop

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.stop:
            raise KeyboardInterrupt

    def on_test_start(self, trainer, pl_module):
        raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("source", ["torch", "python", "numpy"])
def test_a_network_that_draws_from_a_global_generator_resumes_bit_for_bit(tmp_path, source, stop):
    """It has `nn.Dropout` as well; interrupted between two epochs, or in the test."""
    small = {"epochs": 3, "batch_size": 4, "validation_size": 9, "accelerator": "cpu"}
    given = RunConfig(network=f"{OWN}:Draws", source=source, **small)

    def trained(**how):
        return fit.fit(given, data=ranks.small_data(given), **how)

    whole = trained()
    random.seed(stop)  # another process has others
    np.random.seed(stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained(folder=tmp_path, callbacks=[Interrupted(stop)])
    last, _ = checkpoints.latest(tmp_path)
    assert files.epoch_of(last) == stop
    torch.manual_seed(stop)
    resumed = trained(folder=tmp_path, resume_from=last)
    assert torch.equal(ranks.weights_of(resumed.classifier), ranks.weights_of(whole.classifier))
    assert timeless(resumed.history) == timeless(whole.history)
    assert resumed.test == whole.test


@pytest.mark.parametrize("stop", [2, 10])
@pytest.mark.parametrize(
    "knobs",
    [
        {"early_stopping": 1},
        {"early_stopping": 2, "keep_best": True},
        {"callback": f"{OWN}:Enough"},
        {"early_stopping": 1, "min_epochs": 5},
        {"callback": f"{OWN}:Enough", "min_epochs": 5},
    ],
)
def test_a_training_that_was_stopped_early_stays_so_when_it_is_resumed(tmp_path, knobs, stop):
    """Interrupted in the test, or before the epochs that there have to be."""
    options = {name: knobs[name] for name in knobs if name == "min_epochs"}
    given = CONFIG.replace(**{name: knobs[name] for name in knobs if name not in options}, epochs=10)

    def trained(folder, **how):
        return fit.fit(given, data=ranks.small_data(given), folder=tmp_path / folder, **options, **how)

    whole = trained("whole")
    assert 2 <= len(whole.history) < 10
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained("killed", callbacks=[Interrupted(stop)])
    last, _ = checkpoints.latest(tmp_path / "killed")
    assert files.epoch_of(last) == min(stop, len(whole.history))
    resumed = trained("killed", resume_from=last)
    assert torch.equal(ranks.weights_of(resumed.classifier), ranks.weights_of(whole.classifier))
    assert timeless(resumed.history) == timeless(whole.history)
    assert resumed.test == whole.test


class Asked(Callback):
    """Its end needs its begin."""

    def on_train_start(self, trainer, pl_module):
        self.epochs = [trainer.max_epochs]

    def on_train_end(self, trainer, pl_module):
        self.epochs.append(trainer.current_epoch)


AVERAGED = {
    "exponential": lambda: EMAWeightAveraging(decay=0.9),
    "equal": WeightAveraging,
    "stochastic": lambda: StochasticWeightAveraging(0.1, swa_epoch_start=1, annealing_epochs=1),
}


@pytest.mark.parametrize(
    ("averaged", "network", "knobs"),
    [
        *itertools.product(AVERAGED, ["mlp", f"{OWN}:Normalized"], [{}]),
        ("exponential", "mlp", {"early_stopping": 1, "learning_rate": 0.5}),
        ("exponential", "mlp", {"keep_best": True}),
    ],
)
def test_what_callbacks_do_at_the_trainings_end_is_done_where_it_is_resumed_in_its_test(
    tmp_path, averaged, network, knobs
):
    small = {"epochs": 3, "batch_size": 7, "validation_size": 9, "accelerator": "cpu", "learning_rate": 0.05}
    given = RunConfig(network=network, **{**small, **knobs})
    asked = Asked()

    def trained(folder, *more, **how):
        callbacks = [AVERAGED[averaged](), *more]
        return fit.fit(given, data=ranks.small_data(given), folder=tmp_path / folder, callbacks=callbacks, **how)

    whole = trained("whole", asked)
    ended = asked.epochs
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained("killed", Interrupted(10))
    last, _ = checkpoints.latest(tmp_path / "killed")
    resumed = trained("killed", asked, resume_from=last)
    assert asked.epochs == ended
    assert torch.equal(ranks.weights_of(resumed.classifier), ranks.weights_of(whole.classifier))
    assert timeless(resumed.history) == timeless(whole.history)
    assert resumed.test == whole.test


def test_a_training_that_is_resumed_in_its_test_knows_where_it_diverged_and_logs_its_epochs_again(tmp_path):
    knobs = {"epochs": 3, "learning_rate": 1e30, "optimizer": "sgd", "on_divergence": "continue", "folder": tmp_path}
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained(**knobs, callbacks=[Interrupted(3)])
    logger = Kept()
    resumed = trained(logger, **knobs, resume_from=checkpoints.latest(tmp_path)[0])
    assert resumed.diverged_in == 1
    assert [step for step, _ in logger.rows] == [1, 2, 3, 3]


@pytest.mark.parametrize("fast", [True, False])
def test_every_batch_of_the_training_is_augmented_and_no_other_is(monkeypatch, fast):
    """The draws are those of (seed, "augment", epoch, rank)."""
    seen, given = [], []

    def change(inputs, generator):
        given.append(inputs.clone())
        seen.append(torch.rand(1, generator=generator).item())
        return torch.zeros_like(inputs)

    monkeypatch.setattr(f"{OWN}.noise", change)
    found = trained(augment=f"{OWN}:noise", epochs=2, dropout=0.0, fast=fast)
    assert [len(inputs) for inputs in given] == [4, 4, 4, 4, 4, 1] * 2  # 21 images
    expected = []
    for epoch in range(2):
        generator = torch.Generator().manual_seed(derive_seed(CONFIG.seed, "augment", epoch, 0))
        expected += [torch.rand(1, generator=generator).item() for _ in range(6)]
    assert seen == expected
    plain = trained(epochs=2, dropout=0.0, fast=fast)
    first = found.classifier.network.layers[0].weight
    assert not torch.equal(first, plain.classifier.network.layers[0].weight)
    begun = building.make_classifier(CONFIG, ranks.MNIST).network.layers[0].weight
    assert torch.equal(first, begun)  # black images teach the first layer nothing


def test_ranks_draw_each_their_own():
    found = []
    for rank in (0, 1):
        classifier = building.make_classifier(CONFIG.replace(augment="shift"), ranks.MNIST)
        trainer = type("Trainer", (), {"current_epoch": 3, "global_rank": rank})
        EpochSeeds(5).on_train_epoch_start(trainer, classifier)
        generator = torch.Generator().manual_seed(derive_seed(5, "augment", 3, rank))
        images = torch.rand(20, 1, 28, 28)
        found.append(derive_seed(5, "augment", 3, rank))
        assert torch.equal(classifier.augment(images), shift(images, generator))
    assert found[0] != found[1]


@pytest.mark.parametrize("fast", [True, False])
def test_a_metric_is_of_the_epochs_own_examples_in_each_stage_and_lands_where_the_losses_do(fast):
    logger = Kept()
    found = trained(logger, fast=fast, epochs=2, metric=f"macro_f1,{OWN}:share,{OWN}:nan")
    for stage in ("train", "val"):
        for metrics in found.history.values():
            assert metrics[f"{stage}_share"] == pytest.approx(metrics[f"{stage}_accuracy"], rel=1e-6)
            assert 0 <= metrics[f"{stage}_macro_f1"] <= 1
            assert metrics[f"{stage}_nan"] != metrics[f"{stage}_nan"]
    data = found.data.test_examples
    logits = found.classifier.eval()(data.inputs.float() / 255)
    expected = multiclass_f1_score(logits, data.labels, num_classes=10, average="macro").item()
    assert found.test["test_macro_f1"] == expected
    assert found.test["test_share"] == pytest.approx(found.test["test_accuracy"])
    assert found.diverged_in is None
    assert [step for step, _ in logger.rows] == [1, 2, 2]
    assert repr(dict(logger.rows[:2])) == repr(timeless(found.history))
    assert {name: repr(value) for name, value in found.test.items()}.items() <= {
        name: repr(value) for name, value in logger.rows[2][1].items()
    }.items()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("broken", KeyError, "a bug of the user's"),
        ("infinite", OwnCodeError, f"{OWN}:infinite gave inf for"),
        ("words", OwnCodeError, f"{OWN}:words gave 'good' for"),
    ],
)
def test_a_metric_that_fails_ends_the_training_with_its_reason(fast, name, error, words):
    with pytest.raises(error, match=words):
        trained(metric=f"{OWN}:{name}", fast=fast)


def test_what_is_logged_by_lightnings_own_way_lands_at_the_epoch_once():
    logger = Kept()
    found = trained(logger, epochs=3, callback=f"{OWN}:Tells,{OWN}:TellsSteps")
    assert type(found.classifier) is Classifier  # one watches batches
    assert [step for step, _ in logger.rows] == [1, 2, 3, 3]
    for step, metrics in logger.rows[:3]:
        assert (metrics["mine"], metrics["val_mine"]) == (9.0 + step, 19.0 + step)
        assert metrics["step"] == 5.0  # of the last of six batches
        assert metrics["both"] == pytest.approx((4 * (0 + 1 + 2 + 3 + 4) + 5) / 21)  # over examples, as Lightning does
        assert not {"both_step", "both_epoch", "direct"} & set(metrics)
        assert ("only_once" in metrics) == (step == 1)
    assert logger.rows[3][1]["test_mine"] == found.test["test_mine"] == 5.0
    assert not any("test_mine" in metrics for _, metrics in logger.rows[:3])


def test_a_subclass_may_log_in_its_steps():
    class Own(Classifier):
        def training_step(self, batch, batch_idx):
            self.log("rows", float(len(batch[1])))
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch):
            super().validation_step(batch)
            self.log("val_rows", float(len(batch[1])), reduce_fx="sum")

    logger, data = Kept(), ranks.small_data()
    module = Own(MLP(ranks.MNIST, hidden_units=4), torch.optim.SGD)
    with only_useful_words():
        trainer = make_trainer(CONFIG.replace(epochs=2), AtEpochs(logger), [History(logger)], log_every_n_steps=1)
        trainer.fit(module, datamodule=data)
    assert [(step, metrics["rows"], metrics["val_rows"]) for step, metrics in logger.rows] == [(1, 1, 9), (2, 1, 9)]


def test_a_name_that_is_not_forked_keeps_its_ending():
    numbers = {"big_step": 1.0, "x": 2.0, "x_step": 3.0, "x_epoch": 2.0, "last_epoch": 4.0}
    assert once({name: torch.tensor(value) for name, value in numbers.items()}) == {
        "big_step": 1.0,
        "x": 2.0,
        "last_epoch": 4.0,
    }


def test_a_callback_of_lightnings_that_wants_a_logger_has_one():
    logger = Kept()
    found = trained(logger, schedule="cosine", callbacks=[LearningRateMonitor(logging_interval="epoch")])
    assert [step for step, _ in logger.rows] == [1, 2, 3, 4, 4]
    for metrics in found.history.values():
        assert metrics["lr-RMSprop"] == pytest.approx(metrics["learning_rate"], rel=1e-6)


class Asks(Callback):
    """Wants of the logger what a Lightning callback may want."""

    def setup(self, trainer, pl_module, stage):
        self.found = trainer.logger.name, trainer.logger.version, trainer.logger.save_dir, trainer.logger.experiment
        trainer.logger.log_hyperparams({"mine": 1})
        trainer.logger.log_metrics({"direct": 1.0}, step=3)
        trainer.logger.save()


def test_a_logger_around_nothing_takes_everything_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asks = Asks()
    found = trained(callbacks=[asks, LearningRateMonitor()])
    assert asks.found == ("", "", None, None)
    assert type(found.trainer.logger) is AtEpochs
    assert found.history[4]["lr-RMSprop"] == pytest.approx(0.01)
    assert list(tmp_path.iterdir()) == []


def test_gradients_are_clipped_by_their_norm():
    assert make_trainer(CONFIG, False, []).gradient_clip_val is None
    clipped = make_trainer(CONFIG.replace(gradient_clip=0.25), False, [])
    assert (clipped.gradient_clip_val, clipped.gradient_clip_algorithm) == (0.25, None)  # None: by norm
    knobs = {"optimizer": "sgd", "learning_rate": 1.0, "epochs": 1, "batch_size": 21, "dropout": 0.0}
    found = trained(gradient_clip=1e-3, **knobs)
    begun = building.make_classifier(CONFIG, ranks.MNIST)
    step = ranks.weights_of(found.classifier) - ranks.weights_of(begun)
    assert step.norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert type(found.classifier) is Classifier
    assert torch.equal(
        ranks.weights_of(trained(**knobs).classifier), ranks.weights_of(trained(gradient_clip=1e6, **knobs).classifier)
    )


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"optimizer": "nesterov"}, "momentum needs to be above 0 with optimizer nesterov, which looks ahead by it"),
        ({"metric": f"macro_f1,{OWN}:macro_f1"}, "metric macro_f1 is called like"),
        ({"metric": f"{OWN}:loss"}, "metric loss is called like loss, accuracy, a knob or another metric; call it"),
        ({"metric": f"{OWN}:accuracy"}, "metric accuracy is called like"),
        ({"metric": f"{OWN}:dropout"}, "metric dropout is called like"),
        ({"gradient_clip": -1}, "gradient_clip -1"),
    ],
)
def test_what_cannot_be_is_told_by_the_config(knobs, words):
    with pytest.raises(ConfigError, match=words):
        RunConfig(**knobs)


TAKES_ONE = f"{OWN}:Network"
CALLED = f"{TAKES_ONE} ({begin_of(Network)}) will be called with"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--optimizer", f"{OWN}:no_optimizer"], f"{OWN}:no_optimizer gave list, expected a torch.optim.Optimizer"),
        (["--callback", f"{OWN}:dict"], f"{OWN}:dict: "),
        (["--callback", f"{OWN}:Plain"], f"{OWN}:Plain gave Plain, expected a pytorch_lightning.Callback"),
        (["--schedule", f"{OWN}:negative"], f"{OWN}:negative gave -1.0 for epoch 0 of 20, expected"),
        (["--augment", f"{OWN}:halved"], f"{OWN}:halved gave float32 (64, 1, 28, 28) on cpu, expected float32 (128,"),
        (["--metric", f"{OWN}:sharre"], f"{OWN}:sharre: "),
        (["--optimizer", TAKES_ONE], f"{CALLED} (parameters, learning_rate): too many positional arguments"),
        (["--schedule", TAKES_ONE], f"{CALLED} (epoch, epochs): too many positional arguments"),
        (["--augment", TAKES_ONE], f"{CALLED} (inputs, generator): too many positional arguments"),
        (["--metric", TAKES_ONE], f"{CALLED} (logits, labels): too many positional arguments"),
        (["--callback", TAKES_ONE], f"{CALLED} no argument: missing a required argument: 'spec'"),
    ],
)
def test_what_is_not_what_it_should_be_is_told_before_a_run_begins(tmp_path, capsys, flags, words):
    assert cli.main(["train", "--dataset", "digits", *flags]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"pipeline: {words}")
    assert told.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))
