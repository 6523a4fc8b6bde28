"""The end of an epoch by itself: logged, saved, told, in this order; the best epoch; what a resumed run knows."""

import errno
import signal
import threading
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.training import checkpoints, epoch_end
from pipeline.training.epoch_end import EpochEnd, best_epoch

NAN, INF = float("nan"), float("inf")


class Trainer:
    """What an epoch's end asks of a trainer; everything done is in `done`, in order."""

    def __init__(self, monkeypatch, is_global_zero=True, logger=True, full=()):
        self.done, self.is_global_zero, self.should_stop, self.full = [], is_global_zero, False, full
        self.logger = SimpleNamespace(log_metrics=self._log) if logger else None
        monkeypatch.setattr(checkpoints, "write_whole", self._write)
        self.clock = SimpleNamespace(seconds=100.0, ms=5_000)
        clock = SimpleNamespace(
            perf_counter=lambda: self.clock.seconds, time_ns=lambda: self.clock.ms * 1_000_000 + 999_999
        )
        monkeypatch.setattr(epoch_end, "time", clock)

    def _log(self, metrics, step):
        self.done.append(("logged", step, metrics))

    def _write(self, trainer, path):
        assert trainer is self
        self.done.append(("saved", path.name))
        if path.name in self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_text("")

    def epoch(self, callback, number, val_loss=0.5, train_loss=0.25, weights=1.0):
        """One epoch of two seconds."""
        self.current_epoch = number - 1
        values = {"train_loss": train_loss, "train_accuracy": 0.9, "val_loss": val_loss, "val_accuracy": 0.8}
        self.callback_metrics = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
        self.callback_metrics["test_loss"] = torch.tensor(7.0)
        callback.on_train_epoch_start(self, None)
        self.clock.seconds += 2
        module = nn.Linear(1, 2, bias=False)
        nn.init.constant_(module.weight, 1.0)
        module.weight.data[1] = weights
        callback.on_train_epoch_end(self, module)

    def saved(self):
        return [each[1] for each in self.done if each[0] == "saved"]


def test_an_epoch_is_logged_then_saved_then_told(monkeypatch, tmp_path):
    trainer = Trainer(monkeypatch)
    callback = EpochEnd(tmp_path, False, lambda epoch, metrics: trainer.done.append(("told", epoch, metrics)))
    trainer.epoch(callback, 3)
    metrics = {
        "train_loss": 0.25,
        "train_accuracy": 0.9,
        "val_loss": 0.5,
        "val_accuracy": 0.8,
        "epoch_seconds": 2.0,
        "time_ms": 5_000,
    }
    assert trainer.done == [("logged", 3, metrics), ("saved", "epoch-0003.ckpt"), ("told", 3, metrics)]
    assert callback.history == {3: metrics}
    assert type(metrics["time_ms"]) is int


def test_without_a_folder_a_logger_or_a_listener_nothing_of_theirs_is_done(monkeypatch):
    trainer = Trainer(monkeypatch, logger=False)
    callback = EpochEnd(None, True, None)
    callback.on_train_start(trainer, None)
    trainer.epoch(callback, 1)
    callback.on_train_start(trainer, None)
    assert trainer.done == []
    assert callback.best_path is None
    assert list(callback.history) == [1]


def test_the_other_ranks_save_along_and_tell_nothing(monkeypatch, tmp_path, capsys):
    trainer = Trainer(monkeypatch, is_global_zero=False, logger=False)
    callback = EpochEnd(tmp_path, True, lambda *told: trainer.done.append(told), stop_if_diverged=False)
    trainer.epoch(callback, 1)
    trainer.epoch(callback, 2, val_loss=NAN)
    assert trainer.done == [("saved", name) for name in ("best.ckpt", "epoch-0001.ckpt", "epoch-0002.ckpt")]
    assert callback.diverged_in == 2
    assert capsys.readouterr().err == ""


def test_the_time_of_an_epoch_is_never_before_that_of_an_earlier_one(monkeypatch):
    trainer, callback, times = Trainer(monkeypatch, logger=False), EpochEnd(None, False, None), []
    for epoch, ms in enumerate((0, 1_764_000_000_123, 1_764_000_000_122, 1_764_000_000_124), start=1):
        trainer.clock.ms = ms
        trainer.epoch(callback, epoch)
        times.append(callback.history[epoch]["time_ms"])
    assert times == [0, 1_764_000_000_123, 1_764_000_000_123, 1_764_000_000_124]


def test_the_best_weights_are_written_where_the_loss_is_lower_than_ever_and_its_loss_kept(monkeypatch, tmp_path):
    trainer, callback = Trainer(monkeypatch), EpochEnd(tmp_path, True, None)
    assert callback.best_path == tmp_path / "best.ckpt"
    lowest = []
    for epoch, loss in enumerate((0.5, 0.6, 0.4, 0.4, 0.3), start=1):
        trainer.epoch(callback, epoch, val_loss=loss)
        lowest.append(callback.best_loss)
    names = ["best.ckpt", "epoch-0001.ckpt", "epoch-0002.ckpt", "best.ckpt", "epoch-0003.ckpt", "epoch-0004.ckpt"]
    assert trainer.saved() == [*names, "best.ckpt", "epoch-0005.ckpt"]
    assert lowest == [0.5, 0.5, 0.4, 0.4, 0.3]


def test_the_best_is_not_kept_where_nobody_asks(monkeypatch, tmp_path):
    trainer, callback = Trainer(monkeypatch), EpochEnd(tmp_path, False, None)
    trainer.epoch(callback, 1)
    assert trainer.saved() == ["epoch-0001.ckpt"]
    assert callback.best_path is None
    assert callback.best_loss == INF


def test_a_full_disk_costs_each_file_alone_and_says_so(monkeypatch, tmp_path, capsys):
    trainer = Trainer(monkeypatch, full=("best.ckpt", "epoch-0002.ckpt"))
    told = []
    callback = EpochEnd(tmp_path, True, lambda epoch, _: told.append(epoch))
    trainer.epoch(callback, 1)
    trainer.epoch(callback, 2, val_loss=0.9)
    why = "([Errno 28] No space left on device)"
    assert capsys.readouterr().err.splitlines() == [
        f"warning: the weights of epoch 1, the best so far, are not kept {why}",
        f"warning: no checkpoint of epoch 2 {why}",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001.ckpt"]
    assert callback.best_loss == INF
    assert told == [1, 2]


def test_another_error_than_the_disks_is_not_swallowed(monkeypatch, tmp_path):
    trainer, callback = Trainer(monkeypatch), EpochEnd(tmp_path, False, None)

    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(checkpoints, "write_whole", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        trainer.epoch(callback, 1)


DIVERGED = [{"train_loss": NAN}, {"val_loss": INF}, {"val_loss": NAN}, {"weights": INF}, {"weights": NAN}]


@pytest.mark.parametrize("how", DIVERGED)
def test_a_divergence_stops_the_training_and_is_logged_and_told_but_not_saved(monkeypatch, tmp_path, capsys, how):
    trainer, told = Trainer(monkeypatch), []
    callback = EpochEnd(tmp_path, True, lambda epoch, _: told.append(epoch))
    trainer.epoch(callback, 1)
    assert (callback.diverged_in, trainer.should_stop) == (None, False)
    trainer.epoch(callback, 2, **how)
    assert (callback.diverged_in, trainer.should_stop, told) == (2, True, [1, 2])
    assert trainer.saved() == ["best.ckpt", "epoch-0001.ckpt"]
    assert [each[1] for each in trainer.done if each[0] == "logged"] == [1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", DIVERGED)
def test_a_divergence_that_is_to_go_on_is_said_once_and_saved(monkeypatch, tmp_path, capsys, how):
    trainer = Trainer(monkeypatch)
    callback = EpochEnd(tmp_path, False, None, stop_if_diverged=False)
    for epoch in (2, 3):
        trainer.epoch(callback, epoch, **how)
    assert (callback.diverged_in, trainer.should_stop) == (2, False)
    assert trainer.saved() == ["epoch-0002.ckpt", "epoch-0003.ckpt"]
    name, value = next(iter(how.items()))
    wrong = "weights are not finite" if name == "weights" else f"{name} is {value}"
    assert capsys.readouterr().err == f"warning: diverged in epoch 2: {wrong}; it goes on\n"


def test_who_wanted_the_training_to_stop_is_not_overruled(monkeypatch):
    trainer = Trainer(monkeypatch)
    trainer.should_stop = True  # early stopping, say
    trainer.epoch(EpochEnd(None, False, None, stop_if_diverged=False), 1, val_loss=NAN)
    assert trainer.should_stop is True


def test_unless_told_otherwise_a_divergence_stops():
    assert EpochEnd(None, False, None).stop_if_diverged is True


def test_a_resumed_run_knows_all_that_the_interrupted_one_did(monkeypatch, tmp_path):
    trainer, first = Trainer(monkeypatch), EpochEnd(tmp_path, True, None, stop_if_diverged=False)
    for epoch, loss in enumerate((0.5, 0.3, 0.6), start=1):
        trainer.epoch(first, epoch, val_loss=loss)
    second = EpochEnd(tmp_path, True, None)
    second.load_state_dict(first.state_dict())
    assert (second.history, second.best_loss, second.diverged_in) == (first.history, 0.3, None)
    assert second.state_dict() == first.state_dict()
    assert sorted(second.state_dict()) == ["best_loss", "history"]  # what checkpoints on people's disks hold
    del trainer.done[:]
    second.on_train_start(trainer, None)
    assert trainer.done == [("logged", epoch, first.history[epoch]) for epoch in (1, 2, 3)]
    trainer.epoch(second, 4, val_loss=0.4)
    assert trainer.saved() == ["epoch-0004.ckpt"]  # epoch 2 is still the best
    assert second.best_loss == 0.3
    trainer.epoch(second, 5, val_loss=0.2)
    assert (trainer.saved()[1:], second.best_loss) == (["best.ckpt", "epoch-0005.ckpt"], 0.2)
    assert list(first.history) == [1, 2, 3]


def test_a_resumed_run_knows_where_it_diverged(monkeypatch, capsys):
    trainer, first = Trainer(monkeypatch), EpochEnd(None, False, None, stop_if_diverged=False)
    trainer.epoch(first, 1)
    trainer.epoch(first, 2, train_loss=NAN)
    second = EpochEnd(None, False, None, stop_if_diverged=False)
    second.load_state_dict(first.state_dict())
    trainer.epoch(second, 3, train_loss=NAN)
    assert second.diverged_in == 2
    assert capsys.readouterr().err.count("it goes on") == 1


@pytest.fixture
def handler():
    """Somebody's handler of SIGTERM, there before the training; the one that was there is put back."""
    before = signal.getsignal(signal.SIGTERM)

    def ours(*_):
        raise AssertionError

    signal.signal(signal.SIGTERM, ours)
    yield ours
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("begin", ["on_train_start", "on_test_start"])
def test_the_handler_of_sigterm_that_was_there_is_put_back(monkeypatch, handler, begin):
    callback = EpochEnd(None, False, None)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Lightning, as a loop begins
    thread = threading.Thread(target=getattr(callback, begin), args=(Trainer(monkeypatch), None))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # only a main thread may set one
    getattr(callback, begin)(Trainer(monkeypatch), None)
    assert signal.getsignal(signal.SIGTERM) is handler


@given(st.dictionaries(st.integers(1, 50), st.one_of(st.sampled_from([NAN, INF, 0.5]), st.floats(0, 3))))
def test_the_best_epoch_is_the_first_of_the_lowest_loss_that_is_a_number(losses):
    best = best_epoch({epoch: {"val_loss": loss, "train_loss": -loss} for epoch, loss in losses.items()})
    numbers = {epoch: loss for epoch, loss in losses.items() if loss == loss}
    assert (best == 0) == (not numbers)
    if best:
        assert numbers[best] == min(numbers.values())
        assert not any(loss == numbers[best] for epoch, loss in numbers.items() if epoch < best)


def write_checkpoint(path, epoch, history, **more):
    """A checkpoint of the epoch, as whole as they come."""
    callbacks = {**more, "EpochEnd{}": {"history": history, "best_loss": 0.1}}
    content = {"state_dict": {"w": torch.ones(1)}, "callbacks": callbacks, "epoch": epoch - 1, "global_step": 1}
    torch.save({**content, "optimizer_states": [], "loops": {}}, path)
    return path


def test_the_best_is_kept_if_its_weights_are_there_or_no_epoch_is_the_best(tmp_path):
    losses = {1: {"val_loss": 0.4}, 2: {"val_loss": 0.2}, 3: {"val_loss": 0.3}}
    other = {"Another": {"history": {9: {"val_loss": 0.0}}}}
    last = write_checkpoint(tmp_path / "epoch-0003.ckpt", 3, losses, **other)
    assert not epoch_end.best_is_kept(last)
    write_checkpoint(tmp_path / "best.ckpt", 1, losses)
    assert not epoch_end.best_is_kept(last)
    write_checkpoint(tmp_path / "best.ckpt", 2, losses)
    assert epoch_end.best_is_kept(last)
    nothing = write_checkpoint(tmp_path / "epoch-0004.ckpt", 4, {4: {"val_loss": NAN}})
    assert epoch_end.best_is_kept(nothing)
    assert epoch_end.best_is_kept(tmp_path / "epoch-0009.ckpt")  # not there: it knows of none
