"""What is told of an experiment while it trains: counts, lines, the view of a terminal, the time that is left."""

import io
import sys

import pytest
from rich.console import Console

from pipeline.config import RunConfig
from pipeline.experiments import progress
from pipeline.experiments.progress import Progress, duration
from pipeline.experiments.trial import Trial
from pipeline.terminal.bars import EpochLine


def child(state="missing", variant="none", seed=1, **facts):
    return Trial(variant, seed, RunConfig(epochs=10), {}, state=state, **facts)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (89 * 60, "89 min"), (90 * 60, "1 h 30 min"), (2 * 3600, "2 h 0 min")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_it_begins_with_what_is_to_do(capsys):
    children = [child("finished"), child("interrupted"), child("interrupted"), child("diverged"), child()]
    with Progress("dropout", children, jobs=2):
        pass
    with Progress("dropout", [child()], jobs=3):
        pass
    assert capsys.readouterr().out.splitlines() == [
        "dropout: 5 runs, 2 at a time, 2 finished before, 2 to be resumed",
        "dropout: 1 run, 3 at a time",
    ]


def test_outside_a_terminal_every_ended_run_gets_a_line(capsys):
    children = [child(seed=number) for number in range(1, 11)]
    one, two, three = children[:3]
    with Progress("dropout", children, jobs=1) as watched:
        capsys.readouterr()
        one.state, one.accuracy, one.seconds, one.epoch_seconds = "finished", 0.98765, 26.4, [2.0] * 10
        watched.changed(one)
        two.state = "running"
        watched.changed(two)
        two.state, two.reason, two.seconds = "failed", "diverged", 1.6
        watched.changed(two)
        for each in children[2:]:
            each.state = "finished"
        watched.changed(three)
    assert capsys.readouterr().out.splitlines() == [
        " 1/10 none seed=1 - 26 s - val_accuracy 0.9877 - about 4 min left",
        " 2/10 none seed=2 - 2 s - failed: diverged - about 4 min left",
        "10/10 none seed=3 - 0 s - ",
    ]


def test_a_run_that_diverged_is_told_by_its_reason_without_the_advice(capsys):
    one = child("diverged", reason="diverged in epoch 2: train_loss is nan; try a lower learning_rate; or not")
    with Progress("dropout", [one], jobs=1) as watched:
        capsys.readouterr()
        watched.changed(one)
    assert capsys.readouterr().out == "1/1 none seed=1 - 0 s - diverged in epoch 2: train_loss is nan\n"


def test_every_line_is_written_at_once_for_whoever_follows_a_file(monkeypatch):
    printed = []
    monkeypatch.setattr("builtins.print", lambda text, flush=False: printed.append(flush))
    one = child("finished")
    with Progress("dropout", [one], jobs=1) as watched:
        watched.changed(one)
    assert printed == [True, True]


def test_the_time_left_is_that_of_the_mean_overhead():
    ended = [child("finished", epoch_seconds=[1.0] * 10, seconds=seconds) for seconds in (12.0, 16.0)]
    assert Progress("x", [*ended, child()], jobs=1).remaining_s() == 10 + 4


def test_the_time_left_counts_epochs_by_variant_and_what_a_run_takes_besides():
    done = child("finished", "none", epoch_seconds=[2.0] * 10, seconds=25.0)
    quick = child("running", "none", epoch_seconds=[2.0], epochs_done=4)
    slow = child("running", "wide", epoch_seconds=[8.0], epochs_done=9)
    new, failed = child("missing", "other"), child("failed")
    mean = (11 * 2 + 8) / 12
    expected = (6 * 2 + 5) + (1 * 8 + 5) + (10 * mean + 5)
    watched = Progress("x", [done, quick, slow, new, failed], jobs=2)
    assert watched.remaining_s() == pytest.approx(expected / 2)


def test_before_an_epoch_has_ended_nothing_is_guessed_and_before_a_run_has_only_the_rest():
    assert Progress("x", [child()], jobs=1).remaining_s() == 0
    begun = child("running", epoch_seconds=[3.0], epochs_done=1)
    assert Progress("x", [begun], jobs=1).remaining_s() == 9 * 3 + progress.GUESSED_OVERHEAD_S
    # A run found finished tells no seconds; one whose clock ran unevenly took no less than its epochs.
    found = child("finished", epoch_seconds=[], seconds=0.0)
    odd = child("finished", epoch_seconds=[3.0] * 10, seconds=29.0)
    assert Progress("x", [begun, found, odd], jobs=1).remaining_s() == 9 * 3


class Recorded:
    """Stands in for rich's live view."""

    def __init__(self, view, console, refresh_per_second, get_renderable):
        assert isinstance(console, Console)
        self.view, self.get_renderable, self.refresh = view, get_renderable, refresh_per_second
        self.calls = []

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")


def text_of(view):
    console = Console(file=io.StringIO(), width=110)
    console.print(view)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_in_a_terminal_there_is_one_view_of_what_runs_and_no_lines(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(progress, "Live", Recorded)
    clock = iter([100.0, 130.0, 145.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    running = child("running", seed=2, epochs_done=4, accuracy=0.5)
    begun = child("running", seed=3)
    children = [child("finished"), child("failed"), running, begun, child(), child(), child()]
    with Progress("dropout", children, jobs=2) as watched:
        capsys.readouterr()
        watched.changed(children[0])
        head, *rows = text_of(watched.live.get_renderable())
        assert watched.live.refresh == progress.REFRESH_PER_S
        assert isinstance(watched.live.view, progress.Group)
    assert watched.live.calls == ["start", "stop"]
    assert capsys.readouterr().out == ""
    assert head == "dropout  1 finished, 1 failed, 2 running, 3 to come  45 s so far, about 0 s left"
    assert rows == ["none seed=2  Epoch 5/10 - val_accuracy: 0.5000", "none seed=3  Epoch 1/10"]
    monkeypatch.setattr(progress.time, "monotonic", lambda: 130.0)
    children[1].state, running.epochs_done = "diverged", 10
    running.line = EpochLine(20, done=10, values={"loss": 0.25}, began=0.0, seconds=1.0)
    head, *rows = text_of(watched._view())
    assert head == "dropout  1 finished, 1 diverged, 2 running, 3 to come  30 s so far, about 0 s left"
    assert rows[0] == "none seed=2  Epoch 10/10 - val_accuracy: 0.5000"
    assert rows[1].startswith("10/20 ")
    assert rows[1].endswith(" - loss: 0.2500")
    children[1].state = "finished"
    assert text_of(watched._view())[0].startswith("dropout  2 finished, 2 running, 3 to come  30 s so far")


def test_the_time_that_was_spent_is_told_in_training_and_everything_else():
    trials = [child("finished", epoch_seconds=[2.0, 3.0]), child("finished", epoch_seconds=[7.0]), child()]
    assert progress.time_spent(trials, 2, 14.4) == "14 s: 6 s training, 2 runs at a time; 8 s everything else"
    assert progress.time_spent(trials, 1, 14.4) == "14 s: 12 s training, 1 run at a time; 2 s everything else"
    assert progress.time_spent([child()], 0, 3.2) == "3 s, nothing was trained"
