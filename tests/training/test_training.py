import pytest
import torch
from lightning_fabric.accelerators.mps import MPSAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch.nn import functional as F

from pipeline.config import RunConfig
from pipeline.fast_cpu import blocks
from pipeline.launchers import PARTNERS
from pipeline.training import checkpoints, fit, trainer
from pipeline.training.news import EpochNews


def config(**knobs):
    return RunConfig(**{"dataset": "digits", "epochs": 2, "hidden_units": 32, "accelerator": "cpu", **knobs})


def without_time(history):
    return {
        epoch: {k: v for k, v in metrics.items() if k not in ("epoch_seconds", "time_ms")}
        for epoch, metrics in history.items()
    }


def weights(result):
    return torch.cat([parameter.detach().flatten() for parameter in result.classifier.network.parameters()])


def test_the_same_seed_gives_the_same_numbers_bit_for_bit_and_another_seed_others():
    one, two, other = (fit.fit(config(seed=seed)) for seed in (1, 1, 2))
    assert without_time(one.history) == without_time(two.history)
    assert torch.equal(weights(one), weights(two))
    assert without_time(one.history) != without_time(other.history)


def test_test_metrics_are_those_of_the_final_weights_on_all_test_images():
    result = fit.fit(config())
    images = result.data.test_examples
    with torch.no_grad():
        logits = result.classifier.eval()(images.inputs.float() / 255)
    assert result.test["test_accuracy"] == (logits.argmax(1) == images.labels).double().mean()
    assert result.test["test_loss"] == pytest.approx(F.cross_entropy(logits, images.labels).item(), rel=1e-5)
    assert result.test["test_accuracy"] == result.history[2]["val_accuracy"]  # without a hold-out


def test_the_report_is_called_after_each_epoch():
    told = []
    fit.fit(config(), callbacks=[EpochNews(lambda epoch, metrics: told.append((epoch, sorted(metrics))))])
    names = ["epoch_seconds", "time_ms", "train_accuracy", "train_loss", "val_accuracy", "val_loss"]
    assert told == [(1, names), (2, names)]


def test_an_epoch_takes_one_step_per_batch():
    result = fit.fit(config(epochs=1, batch_size=100, validation_size=37))
    assert result.trainer.global_step == 14  # 1437 - 37 images


def test_the_block_size_changes_no_number(monkeypatch):
    whole = fit.fit(config(batch_size=32))
    monkeypatch.setattr(blocks, "BLOCK", 32)
    assert torch.equal(weights(whole), weights(fit.fit(config(batch_size=32))))


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_training_is_bit_for_bit_the_uninterrupted_one(tmp_path, stop):
    whole = fit.fit(config(epochs=4))
    first = fit.fit(config(epochs=stop), folder=tmp_path)
    trained = []
    resumed = fit.fit(
        config(epochs=4),
        folder=tmp_path,
        resume_from=checkpoints.latest(tmp_path)[0],
        callbacks=[EpochNews(lambda epoch, _: trained.append(epoch))],
    )
    assert trained == [*range(stop + 1, 5)]  # from the beginning it would come to the same numbers
    assert [resumed.history[epoch] for epoch in first.history] == [*first.history.values()]
    assert without_time(resumed.history) == without_time(whole.history)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.test == whole.test


def test_the_last_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(tmp_path):
    fit.fit(config(epochs=4), folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0003.ckpt", "epoch-0004.ckpt"]
    last = tmp_path / "epoch-0004.ckpt"
    assert checkpoints.latest(tmp_path) == (last, [])
    whole = last.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:5000] + b"\xff" * 8 + whole[5008:], b""):
        last.write_bytes(damaged)
        assert checkpoints.latest(tmp_path) == (tmp_path / "epoch-0003.ckpt", [last])


def test_keep_best_tests_the_weights_of_the_epoch_with_the_lowest_val_loss(tmp_path):
    knobs = {"validation_size": 200, "learning_rate": 0.02}
    history = fit.fit(config(epochs=8, **knobs)).history
    losses = [metrics["val_loss"] for metrics in history.values()]
    worse = next(epoch for epoch in range(2, 9) if losses[epoch - 1] > losses[epoch - 2])
    best = fit.fit(config(keep_best=True, epochs=worse, **knobs), folder=tmp_path)
    plain = fit.fit(config(epochs=worse - 1, **knobs))
    assert torch.equal(weights(best), weights(plain))
    assert best.test == plain.test


def test_early_stopping_stops_after_so_many_epochs_without_a_lower_val_loss():
    result = fit.fit(config(validation_size=200, learning_rate=0.02, epochs=30, early_stopping=2))
    losses = [metrics["val_loss"] for metrics in result.history.values()]
    assert len(losses) < 30
    assert losses.index(min(losses)) == len(losses) - 3


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adadelta", "adam", "adamw"])
def test_the_relatives_of_rmsprop_train_too(optimizer):
    result = fit.fit(config(optimizer=optimizer, learning_rate=0.05, epochs=3))
    assert type(result.trainer.optimizers[0]).__name__.lower() == optimizer
    assert result.history[3]["train_loss"] < result.history[1]["train_loss"]


def test_bf16_mixed_trains_and_is_evaluated_in_float32():
    result = fit.fit(config(precision="bf16-mixed", epochs=3))
    assert result.history[3]["val_accuracy"] > 0.5
    assert weights(result).dtype == torch.float32
    assert result.classifier.derive.dtype == torch.bfloat16
    assert not torch.equal(weights(result), weights(fit.fit(config(epochs=3))))
    images, network = result.data.test_examples, result.classifier.network.eval()
    pixels = images.inputs.float() / 255
    with torch.no_grad():
        exact = F.cross_entropy(network(pixels), images.labels).item()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = F.cross_entropy(network(pixels), images.labels).item()
    for loss in (result.test["test_loss"], result.history[3]["val_loss"]):  # without a hold-out, the same images
        assert loss == pytest.approx(exact, rel=1e-6)
        assert loss != pytest.approx(rounded, rel=1e-6)


def test_unknown_devices_are_told():
    with pytest.raises(
        ValueError, match="Lightning cannot train with accelerator cpu, devices nonsense, num_nodes 1, strategy auto"
    ):
        trainer.check_hardware(config(devices="nonsense"))


@pytest.fixture
def apple_silicon(monkeypatch):
    """A machine on which Lightning would choose MPS."""
    monkeypatch.setattr(MPSAccelerator, "is_available", lambda: True)


@pytest.mark.parametrize(("cuda", "device"), [(False, "cpu"), (True, "cuda")])
def test_auto_is_cuda_or_the_cpu_where_lightning_would_choose_mps(monkeypatch, apple_silicon, cuda, device):
    asked = []
    monkeypatch.setattr(trainer, "Trainer", lambda **given: asked.append(given["accelerator"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    trainer.make_trainer(config(accelerator="auto"), False, [])
    assert asked == [device]


def test_auto_trains_where_lightning_would_choose_mps(apple_silicon):
    """In one process, as there, and in two."""
    assert fit.fit(config(accelerator="auto", epochs=1)).trainer.strategy.root_device.type == "cpu"
    assert trainer.check_hardware(config(accelerator="auto", devices="2", strategy="ddp")) == 2


def test_a_strategy_that_knows_its_device_only_in_its_processes_is_not_asked(monkeypatch):
    """As that of a TPU's several cores."""

    def not_yet(self):
        raise RuntimeError("Accessing the XLA device before processes have spawned is not allowed.")

    monkeypatch.setattr(SingleDeviceStrategy, "root_device", property(not_yet, lambda self, device: None))
    assert trainer.check_hardware(config()) == 1


@pytest.mark.parametrize("accelerator", ["mps", "gpu"])
def test_mps_is_refused_before_a_run_begins_as_it_has_no_float64(apple_silicon, accelerator):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        trainer.check_hardware(config(accelerator=accelerator))
    assert str(caught.value) == (
        f"accelerator {accelerator} is MPS here, which has no float64, in which means are summed; take cpu"
    )


def test_several_nodes_that_nobody_started_are_told_before_one_waits_for_another(monkeypatch):
    monkeypatch.delenv(PARTNERS, raising=False)
    with pytest.raises(ValueError, match=r"^num_nodes 2 needs a launcher .*, with --num_nodes 2 as a flag: torchrun"):
        trainer.check_hardware(config(num_nodes=2))
    monkeypatch.setenv(PARTNERS, "1")
    assert trainer.check_hardware(config(num_nodes=2, devices="1", strategy="ddp")) == 2
