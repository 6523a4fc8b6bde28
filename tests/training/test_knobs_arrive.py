"""Every knob of the config arrives where it is used, with its value."""

from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch import nn

from pipeline.config import RunConfig
from pipeline.data_spec import MNIST
from pipeline.fast_cpu import process
from pipeline.networks.dropout import Dropout
from pipeline.training import building, fit, trainer
from pipeline.training.callbacks import DivergenceStop, EpochCheckpoints, EpochSeeds
from pipeline.training.history import AtEpochs

KNOBS = {"learning_rate": 0.03, "rho": 0.7, "epsilon": 0.004, "momentum": 0.6, "weight_decay": 0.2}


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        ("rmsprop", {"lr": "learning_rate", "rho": "rho", "epsilon": "epsilon"}),
        ("sgd", {"lr": "learning_rate", "momentum": "momentum"}),
        ("adagrad", {"lr": "learning_rate", "eps": "epsilon"}),
        ("adadelta", {"lr": "learning_rate", "rho": "rho", "eps": "epsilon"}),
        ("adam", {"lr": "learning_rate", "eps": "epsilon"}),
        ("adamw", {"lr": "learning_rate", "eps": "epsilon", "weight_decay": "weight_decay"}),
    ],
)
def test_the_optimizer_of_a_training_has_the_knobs_of_its_config(optimizer, names):
    config = RunConfig(optimizer=optimizer, hidden_units=2, **KNOBS)
    found = building.make_classifier(config, MNIST).configure_optimizers()
    assert type(found).__name__.lower() == optimizer
    (group,) = found.param_groups
    assert {name: group[name] for name in names} == {name: KNOBS[knob] for name, knob in names.items()}
    default = building.make_classifier(RunConfig(optimizer=optimizer, hidden_units=2), MNIST).configure_optimizers()
    values = {"learning_rate": 1e-3, "rho": 0.9, "epsilon": 1e-7, "momentum": 0.0, "weight_decay": 0.01}
    assert {name: default.param_groups[0][name] for name in names} == {n: values[knob] for n, knob in names.items()}


def test_the_network_and_the_classifier_have_theirs():
    config = RunConfig(hidden_units=6, hidden_layers=3, dropout=0.3, batch_size=7, seed=9)
    classifier = building.make_classifier(config, MNIST)
    layers = list(classifier.network.modules())
    assert [each.out_features for each in layers if isinstance(each, nn.Linear)] == [6, 6, 6, 10]
    assert [each.p for each in layers if isinstance(each, Dropout)] == [0.3] * 3
    assert len({id(each._masks) for each in layers if isinstance(each, Dropout)}) == 3  # each layer has its own


def test_the_weights_are_drawn_from_the_seed_and_from_nothing_else():
    def weights(seed, before):
        torch.manual_seed(before)
        return building.make_classifier(RunConfig(hidden_units=2, seed=seed), MNIST).network.layers[0].weight

    assert torch.equal(weights(1, 5), weights(1, 6))
    assert not torch.equal(weights(1, 5), weights(2, 5))


def test_the_data_has_theirs():
    config = RunConfig(
        dataset="kmnist",
        data_dir="/d",
        data_name="mine",
        batch_size=3,
        validation_size=4,
        seed=5,
        epochs=6,
        validation_seed=7,
    )
    data = building.make_data(config)
    found = (data.dataset, data.data_dir, data.data_name, data.batch_size, data.validation_size, data.seed)
    assert (*found, data.validation_seed) == ("kmnist", "/d", "mine", 3, 4, 5, 7)


@pytest.fixture
def asked(monkeypatch):
    """What Lightning's Trainer is asked for."""
    found = {}
    monkeypatch.setattr(trainer, "Trainer", lambda **knobs: found.update(knobs) or SimpleNamespace(**knobs))
    return found


@pytest.mark.parametrize(("devices", "given"), [("2", 2), ("auto", "auto"), ("0,1", "0,1"), ("-1", "-1")])
def test_the_trainer_has_theirs(asked, devices, given):
    knobs = {"epochs": 7, "accelerator": "gpu", "strategy": "ddp", "precision": "16-mixed"}
    trainer.make_trainer(RunConfig(devices=devices, **knobs), "logger", ["callback"])
    assert asked.pop("max_epochs") == 7
    assert {name: asked[name] for name in ("accelerator", "strategy", "precision")} == {
        name: knobs[name] for name in ("accelerator", "strategy", "precision")
    }
    assert asked["devices"] == given
    assert asked["num_nodes"] == 1
    assert type(asked["devices"]) is type(given)
    assert (asked["logger"], asked["callbacks"], asked["deterministic"]) == ("logger", ["callback"], True)


def test_early_stopping_has_its_patience_and_looks_at_val_loss(asked):
    trainer.make_trainer(RunConfig(early_stopping=4, validation_size=1), False, ["callback"])
    first, stopping = asked["callbacks"]
    assert first == "callback"
    assert isinstance(stopping, EarlyStopping)
    assert (stopping.monitor, stopping.patience, stopping.mode, stopping.check_finite) == ("val_loss", 4, "min", False)


class StopHereError(Exception):
    pass


@pytest.mark.parametrize("word", ["stop", "continue"])
@pytest.mark.parametrize("keep_best", [True, False])
def test_a_training_hands_them_on(monkeypatch, tmp_path, keep_best, word):
    found = []

    def stop(*given, **options):
        found.extend([*given, options])
        raise StopHereError

    monkeypatch.setattr(fit, "make_trainer", stop)
    monkeypatch.setattr(process, "set_matmul_precision", found.append)
    config = RunConfig(
        keep_best=keep_best, on_divergence=word, validation_size=1, matmul_precision="high", hidden_units=2, seed=9
    )

    with pytest.raises(StopHereError):
        fit.fit(config, logger="logger", folder=tmp_path, callbacks=["mine"], limit_test_batches=3)
    precision, given, logger, callbacks, options = found
    assert (precision, given, options) == ("high", config, {"limit_test_batches": 3})
    assert (type(logger), logger.logger) == (AtEpochs, "logger")
    (seeds,) = (each for each in callbacks if isinstance(each, EpochSeeds))
    (divergence,) = (each for each in callbacks if isinstance(each, DivergenceStop))
    *_, saving, mine = callbacks
    assert isinstance(saving, EpochCheckpoints)
    assert (saving.folder, saving.keep_best, saving.divergence) == (tmp_path, keep_best, divergence)
    assert (divergence.stop, seeds.seed, mine) == (word == "stop", 9, "mine")


def test_without_a_folder_nothing_is_saved(monkeypatch):
    found = []

    def stop(config, logger, callbacks):
        found.extend(callbacks)
        raise StopHereError

    monkeypatch.setattr(fit, "make_trainer", stop)
    with pytest.raises(StopHereError):
        fit.fit(RunConfig(keep_best=True, validation_size=1))
    assert found
    assert not [each for each in found if isinstance(each, EpochCheckpoints)]
