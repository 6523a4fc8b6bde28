"""The end of an epoch: timed, logged, saved, told, in this order; the best epoch; what a resumed run knows."""

import errno
import signal
import threading
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.training import callbacks, checkpoints, history
from pipeline.training.callbacks import DivergenceStop, EpochCheckpoints, EpochTimer, KeepSigterm
from pipeline.training.history import History, best_epoch
from pipeline.training.news import EpochNews, StepNews

NAN, INF = float("nan"), float("inf")


class Trainer:
    """What an epoch's end asks of a trainer; everything done is in `done`, in order."""

    def __init__(self, monkeypatch, *, is_global_zero=True, logger=True, full=()):
        self.done, self.is_global_zero, self.should_stop, self.full = [], is_global_zero, False, full
        self.logger = SimpleNamespace(log_metrics=self._log) if logger else None
        monkeypatch.setattr(checkpoints, "write_whole", self._write)
        self.clock = SimpleNamespace(seconds=100.0, ms=5_000)
        clock = SimpleNamespace(
            perf_counter=lambda: self.clock.seconds, time_ns=lambda: self.clock.ms * 1_000_000 + 999_999
        )
        for module in (history, callbacks):
            monkeypatch.setattr(module, "time", clock)
        self.training()

    def training(self, folder=None, keep_best=False, stop=True, report=None):
        """Take the callbacks of a training."""
        self.history, self.divergence = History(self.logger), DivergenceStop(stop)
        self.callbacks = [EpochTimer(), self.history, self.divergence]
        self.callbacks += [EpochCheckpoints(folder, keep_best, self.divergence)] if folder else []
        self.callbacks += [EpochNews(report)] if report else []
        return self

    def start(self):
        for each in self.callbacks:
            each.on_fit_start(self, None)
            each.on_train_start(self, None)

    def _log(self, metrics, step):
        self.done.append(("logged", step, metrics))

    def _write(self, trainer, path):
        assert trainer is self
        self.done.append(("saved", path.name))
        if path.name in self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_text("")

    def epoch(self, number, val_loss=0.5, train_loss=0.25, weights=1.0):
        """One epoch of two seconds."""
        self.current_epoch = number - 1
        values = {"train_loss": train_loss, "train_accuracy": 0.9, "val_loss": val_loss, "val_accuracy": 0.8}
        self.callback_metrics = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
        module = nn.Linear(1, 2, bias=False)
        nn.init.constant_(module.weight, 1.0)
        module.weight.data[1] = weights
        module.log = self._of_the_module
        for each in self.callbacks:
            each.on_train_epoch_start(self, module)
        self.clock.seconds += 2
        for each in self.callbacks:
            each.on_train_epoch_end(self, module)

    def _of_the_module(self, name, value, **how):
        assert how == {"logger": False}
        assert value.dtype == torch.float64
        self.callback_metrics[name] = value

    def saved(self):
        return [each[1] for each in self.done if each[0] == "saved"]


def test_an_epoch_is_logged_then_saved_then_told(monkeypatch, tmp_path):
    trainer = Trainer(monkeypatch)
    trainer.training(tmp_path, report=lambda epoch, metrics: trainer.done.append(("told", epoch, metrics)))
    trainer.epoch(3)
    metrics = {
        "train_loss": 0.25,
        "train_accuracy": 0.9,
        "val_loss": 0.5,
        "val_accuracy": 0.8,
        "epoch_seconds": 2.0,
        "time_ms": 5_000,
    }
    assert trainer.done == [("logged", 3, metrics), ("saved", "epoch-0003.ckpt"), ("told", 3, metrics)]
    assert trainer.history.epochs == {3: metrics}
    assert type(metrics["time_ms"]) is int


def test_without_a_folder_a_logger_or_a_listener_nothing_of_theirs_is_done(monkeypatch):
    trainer = Trainer(monkeypatch, logger=False)
    trainer.start()
    trainer.epoch(1)
    trainer.start()
    assert trainer.done == []
    assert list(trainer.history.epochs) == [1]


def test_the_other_ranks_save_along_and_tell_nothing(monkeypatch, tmp_path, capsys):
    trainer = Trainer(monkeypatch, is_global_zero=False, logger=False)
    trainer.training(tmp_path, keep_best=True, stop=False, report=lambda *told: trainer.done.append(told))
    trainer.epoch(1)
    trainer.epoch(2, val_loss=NAN)
    assert trainer.done == [("saved", name) for name in ("best.ckpt", "epoch-0001.ckpt", "epoch-0002.ckpt")]
    assert trainer.divergence.epoch == 2
    assert capsys.readouterr().err == ""


def test_the_time_of_an_epoch_is_never_before_that_of_an_earlier_one(monkeypatch):
    trainer, times = Trainer(monkeypatch, logger=False), []
    for epoch, ms in enumerate((0, 1_764_000_000_123, 1_764_000_000_122, 1_764_000_000_124), start=1):
        trainer.clock.ms = ms
        trainer.epoch(epoch)
        times.append(trainer.history.epochs[epoch]["time_ms"])
    assert times == [0, 1_764_000_000_123, 1_764_000_000_123, 1_764_000_000_124]


def test_the_best_weights_are_written_where_the_loss_is_lower_than_ever(monkeypatch, tmp_path):
    trainer = Trainer(monkeypatch).training(tmp_path, keep_best=True)
    for epoch, loss in enumerate((0.5, 0.6, 0.4, 0.4, 0.3), start=1):
        trainer.epoch(epoch, val_loss=loss)
    names = ["best.ckpt", "epoch-0001.ckpt", "epoch-0002.ckpt", "best.ckpt", "epoch-0003.ckpt", "epoch-0004.ckpt"]
    assert trainer.saved() == [*names, "best.ckpt", "epoch-0005.ckpt"]


def test_the_best_is_not_kept_where_nobody_asks(monkeypatch, tmp_path):
    trainer = Trainer(monkeypatch).training(tmp_path)
    trainer.epoch(1)
    assert trainer.saved() == ["epoch-0001.ckpt"]


def test_a_full_disk_costs_each_file_alone_and_says_so(monkeypatch, tmp_path, capsys):
    trainer, told = Trainer(monkeypatch, full=("best.ckpt", "epoch-0002.ckpt")), []
    trainer.training(tmp_path, keep_best=True, report=lambda epoch, _: told.append(epoch))
    trainer.epoch(1)
    trainer.epoch(2, val_loss=0.9)
    why = "([Errno 28] No space left on device)"
    assert capsys.readouterr().err.splitlines() == [
        f"warning: the weights of epoch 1, the best so far, are not kept {why}",
        f"warning: no checkpoint of epoch 2 {why}",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001.ckpt"]
    assert told == [1, 2]


def test_another_error_than_the_disks_is_not_swallowed(monkeypatch, tmp_path):
    trainer = Trainer(monkeypatch).training(tmp_path)

    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(checkpoints, "write_whole", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        trainer.epoch(1)


DIVERGED = [{"train_loss": NAN}, {"val_loss": INF}, {"val_loss": NAN}, {"weights": INF}, {"weights": NAN}]


@pytest.mark.parametrize("how", DIVERGED)
def test_a_divergence_stops_the_training_and_is_logged_and_told_but_not_saved(monkeypatch, tmp_path, capsys, how):
    trainer, told = Trainer(monkeypatch), []
    trainer.training(tmp_path, keep_best=True, report=lambda epoch, _: told.append(epoch))
    trainer.epoch(1)
    assert (trainer.divergence.epoch, trainer.should_stop) == (None, False)
    trainer.epoch(2, **how)
    assert (trainer.divergence.epoch, trainer.should_stop, told) == (2, True, [1, 2])
    assert trainer.saved() == ["best.ckpt", "epoch-0001.ckpt"]
    assert [each[1] for each in trainer.done if each[0] == "logged"] == [1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", DIVERGED)
def test_a_divergence_that_is_to_go_on_is_said_once_and_saved(monkeypatch, tmp_path, capsys, how):
    trainer = Trainer(monkeypatch).training(tmp_path, stop=False)
    for epoch in (2, 3):
        trainer.epoch(epoch, **how)
    assert (trainer.divergence.epoch, trainer.should_stop) == (2, False)
    assert trainer.saved() == ["epoch-0002.ckpt", "epoch-0003.ckpt"]
    name, value = next(iter(how.items()))
    wrong = "weights are not finite" if name == "weights" else f"{name} is {value}"
    assert capsys.readouterr().err == f"warning: diverged in epoch 2: {wrong}; it goes on\n"


def test_who_wanted_the_training_to_stop_is_not_overruled(monkeypatch):
    trainer = Trainer(monkeypatch).training(stop=False)
    trainer.should_stop = True  # early stopping, say
    trainer.epoch(1, val_loss=NAN)
    assert trainer.should_stop is True


def resumed(trainer, **how):
    """The trainer as another process takes up the training."""
    state = trainer.history.state_dict()
    trainer.training(**how)
    del trainer.done[:]
    trainer.history.load_state_dict(state)
    return trainer


def test_a_resumed_run_knows_all_that_the_interrupted_one_did(monkeypatch, tmp_path):
    trainer = Trainer(monkeypatch).training(tmp_path, keep_best=True, stop=False)
    for epoch, loss in enumerate((0.5, 0.3, 0.6), start=1):
        trainer.epoch(epoch, val_loss=loss)
    first = trainer.history
    assert first.state_key == "EpochEnd"  # what checkpoints on people's disks call it
    assert list(first.state_dict()) == ["history"]
    resumed(trainer, folder=tmp_path, keep_best=True)
    assert trainer.history.epochs == first.epochs
    assert trainer.done == [("logged", epoch, first.epochs[epoch]) for epoch in (1, 2, 3)]
    trainer.start()
    assert trainer.divergence.epoch is None
    trainer.epoch(4, val_loss=0.4)
    assert trainer.saved() == ["epoch-0004.ckpt"]  # epoch 2 is still the best
    trainer.epoch(5, val_loss=0.2)
    assert trainer.saved()[1:] == ["best.ckpt", "epoch-0005.ckpt"]
    assert list(first.epochs) == [1, 2, 3]


def test_a_resumed_run_knows_where_it_diverged(monkeypatch, capsys):
    trainer = Trainer(monkeypatch).training(stop=False)
    trainer.epoch(1)
    trainer.epoch(2, train_loss=NAN)
    resumed(trainer, stop=False).start()
    trainer.epoch(3, train_loss=NAN)
    assert trainer.divergence.epoch == 2
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
def test_the_handler_of_sigterm_that_was_there_is_put_back(handler, begin):
    callback = KeepSigterm()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Lightning, as a loop begins
    thread = threading.Thread(target=getattr(callback, begin), args=(None, None))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # only a main thread may set one
    getattr(callback, begin)(None, None)
    assert signal.getsignal(signal.SIGTERM) is handler


@given(st.dictionaries(st.integers(1, 50), st.one_of(st.sampled_from([NAN, INF, 0.5]), st.floats(0, 3))))
def test_the_best_epoch_is_the_first_of_the_lowest_loss_that_is_a_number(losses):
    best = best_epoch({epoch: {"val_loss": loss, "train_loss": -loss} for epoch, loss in losses.items()})
    numbers = {epoch: loss for epoch, loss in losses.items() if loss == loss}
    assert (best == 0) == (not numbers)
    if best:
        assert numbers[best] == min(numbers.values())
        assert not any(loss == numbers[best] for epoch, loss in numbers.items() if epoch < best)


def write_checkpoint(path, epoch, epochs, **more):
    """A checkpoint of the epoch, as whole as they come."""
    callbacks = {**more, "EpochEnd": {"history": epochs, "best_loss": 0.1}}
    content = {"state_dict": {"w": torch.ones(1)}, "callbacks": callbacks, "epoch": epoch - 1, "global_step": 1}
    torch.save({**content, "optimizer_states": [], "loops": {}}, path)
    return path


def test_the_best_is_kept_if_its_weights_are_there_or_no_epoch_is_the_best(tmp_path):
    losses = {1: {"val_loss": 0.4}, 2: {"val_loss": 0.2}, 3: {"val_loss": 0.3}}
    other = {"Another": {"history": {9: {"val_loss": 0.0}}}}
    last = write_checkpoint(tmp_path / "epoch-0003.ckpt", 3, losses, **other)
    assert not history.best_is_kept(last)
    write_checkpoint(tmp_path / "best.ckpt", 1, losses)
    assert not history.best_is_kept(last)
    write_checkpoint(tmp_path / "best.ckpt", 2, losses)
    assert history.best_is_kept(last)
    nothing = write_checkpoint(tmp_path / "epoch-0004.ckpt", 4, {4: {"val_loss": NAN}})
    assert history.best_is_kept(nothing)
    assert history.best_is_kept(tmp_path / "epoch-0009.ckpt")  # not there: it knows of none


@pytest.fixture
def told(monkeypatch):
    """A trainer whose module is as far as it is told, what was told of it, and a clock."""
    clock, found = SimpleNamespace(seconds=0.0), []
    monkeypatch.setattr("pipeline.training.news.time", SimpleNamespace(perf_counter=lambda: clock.seconds))
    monkeypatch.setattr("pipeline.training.news.Classifier", SimpleNamespace)
    trainer = SimpleNamespace(is_global_zero=True, is_last_batch=False, current_epoch=4)
    news = StepNews(lambda *each: found.append(each), every_s=0.5)

    def end(done, at):
        clock.seconds = at
        news.on_train_batch_end(trainer, SimpleNamespace(progress=lambda: (done, 9, {"loss": done / 2})), None, None, 0)

    return trainer, news, end, found


def test_steps_are_told_as_an_epoch_begins_seldom_and_at_its_end(told):
    trainer, news, end, found = told
    news.on_train_epoch_start(trainer, SimpleNamespace(progress=lambda: (7, 9, {"loss": 1.0})))  # of the epoch before
    for done, at in ((1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)):
        end(done, at)
    trainer.is_last_batch = True
    end(9, 1.25)
    assert found == [(5, 0, 9, {}), (5, 2, 9, {"loss": 1.0}), (5, 4, 9, {"loss": 2.0}), (5, 9, 9, {"loss": 4.5})]
    assert news.takes_blocks


def test_other_ranks_tell_no_steps(told):
    trainer, news, end, found = told
    trainer.is_global_zero = False
    news.on_train_epoch_start(trainer, SimpleNamespace())
    end(2, 9.0)
    assert found == []
