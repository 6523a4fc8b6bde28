"""A worker of an experiment in this process: how each run ends, in its record and in what the experiment hears."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.config import RunConfig
from pipeline.divergence import DivergedError
from pipeline.experiments import worker
from pipeline.experiments.worker import Worker
from pipeline.signals import Interrupted
from pipeline.tracking.journal import Journal, RunFolder

CONFIG = RunConfig(epochs=3, learning_rate=0.1 + 0.2)


class Sent(list):
    """A connection that keeps what is sent, and has heard what is given."""

    send = list.append

    def __init__(self, *heard):
        self.heard = iter(heard)

    def recv(self):
        try:
            return next(self.heard)
        except StopIteration:
            raise EOFError from None


class Noted:
    """What a training does is written down; `how` decides how it ends."""

    how = None
    opened, resumed, notes = [], [], []


def start(config, run, data, *words):
    run.start("trial", {}, {})
    Noted.opened.append((config, data, *words))


def resume(config, run, data):
    run.resume({}, {})
    Noted.resumed.append((config, data))
    return "checkpoint"


def fit(config, run, data, checkpoint, report, steps, *, draw):
    assert not draw  # the experiment's own process does
    Noted.fits.append((config, checkpoint))
    steps(1, 0, 2, {})
    report(1, {"epoch_seconds": 2.5, "val_accuracy": 0.75, "val_loss": 0.5})
    if isinstance(Noted.how, DivergedError):
        run.end("FAILED", str(Noted.how))
    if Noted.how:
        raise Noted.how


@pytest.fixture
def working(monkeypatch):
    for name in ("opened", "resumed", "fits", "notes"):
        monkeypatch.setattr(Noted, name, [], raising=False)
    monkeypatch.setattr(Noted, "how", None)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(worker, "ready", lambda config, source: (config, f"data of {source}"))
    monkeypatch.setattr(worker.record, "start", start)
    monkeypatch.setattr(worker.record, "resume", resume)
    monkeypatch.setattr("pipeline.tracking.run.git_tags", dict)
    monkeypatch.setattr(worker, "fit_and_record", fit)
    monkeypatch.setattr(
        worker,
        "Uploader",
        lambda folder, fd: SimpleNamespace(notify=lambda: Noted.notes.append((folder.path, fd))),
    )
    monkeypatch.setattr(worker, "source_of", lambda knobs: dict(knobs)["dataset"])
    return Worker(Sent(), 9)


def job(name="run", **other):
    folder = str(Path("runs").absolute() / name)
    return {"config": CONFIG.as_dict(), "folder": folder, "resume": False, "tags": {"a": "b"}, "parent": "p", **other}


def run(working, *jobs):
    for each in (*jobs, None):
        working.jobs.put(each)
    listen, working.listen = working.listen, lambda: None
    try:
        return working.run()
    finally:
        working.listen = listen


def heard(working):
    return working.connection


def end_of(name="run"):
    end = RunFolder(Path("runs").absolute() / name).ended()
    return end and (end["status"], end["tags"].get("failure_reason"))


STEPS = [{"at": 1, "done": 0, "steps": 2, "means": {}}, {"epoch": 1, "seconds": 2.5, "accuracy": 0.75}]


def test_a_run_is_trained_as_the_job_says_and_its_end_is_told(working):
    assert run(working, json.loads(json.dumps(job()))) == 0
    assert Noted.opened == [(CONFIG, "data of mnist", {"a": "b"}, "p")]
    assert Noted.fits == [(CONFIG, None)]
    assert heard(working) == [*STEPS, {"end": "FINISHED"}]
    assert end_of() == ("FINISHED", None)
    assert not RunFolder("runs/run").is_alive()


def test_a_run_that_is_there_is_gone_on_with_from_its_checkpoint(working):
    assert run(working, job(resume=True)) == 0
    assert (Noted.opened, Noted.resumed, Noted.fits) == ([], [(CONFIG, "data of mnist")], [(CONFIG, "checkpoint")])


def test_a_run_that_fails_ends_alone_and_the_next_is_trained(working, monkeypatch):
    def once(*words, **how):
        Noted.how = OSError("x") if not Noted.fits else None
        fit(*words, **how)

    monkeypatch.setattr(worker, "fit_and_record", once)
    assert run(working, job("one"), job("two")) == 0
    assert heard(working) == [*STEPS, {"end": "FAILED", "reason": "OSError: x"}, *STEPS, {"end": "FINISHED"}]
    assert (end_of("one"), end_of("two")) == (("FAILED", "OSError: x"), ("FINISHED", None))


@pytest.mark.parametrize("place", ["fit_and_record", "ready"])
def test_neither_the_experiment_nor_the_record_hears_the_secret_of_an_error(working, monkeypatch, place):
    def fail(*words, **how):
        raise RuntimeError("401 for https://bob:pw@h/x?token=abc")

    monkeypatch.setattr(worker, place, fail)
    assert run(working, job()) == 0
    reason = "RuntimeError: 401 for https://h/x?token=***"
    assert heard(working) == [{"end": "FAILED", "reason": reason}]
    assert end_of() == (("FAILED", reason) if place == "fit_and_record" else None)


def test_a_run_that_diverges_is_failed_in_its_record_and_an_answer_to_the_experiment(working):
    losses = {"train_loss": float("nan"), "val_loss": 1.0}
    Noted.how = DivergedError(2, {2: losses})
    assert run(working, job()) == 0
    assert heard(working)[-1] == {"end": "DIVERGED", "reason": str(Noted.how)}
    assert end_of() == ("FAILED", str(Noted.how))


def test_what_is_wrong_before_the_record_is_open_leaves_none(working, monkeypatch):
    def refuse(config, source):
        raise ValueError("no such hardware")

    monkeypatch.setattr(worker, "ready", refuse)
    assert run(working, job()) == 0
    assert heard(working) == [{"end": "FAILED", "reason": "ValueError: no such hardware"}]
    assert RunFolder("runs/run").events() == []


def test_a_run_that_another_process_holds_is_told_and_left(working):
    living = Journal(RunFolder(Path("runs").absolute() / "run"))
    assert run(working, job()) == 0
    (told,) = heard(working)
    assert (told["end"], told["reason"].endswith("is still running in another process")) == ("FAILED", True)
    assert Noted.fits == []
    living.close()


@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_ends_the_run_as_killed_and_the_worker_with_its_code(working, number, word):
    Noted.how = Interrupted(number)
    assert run(working, job("one"), job("two")) == 128 + number
    assert end_of("one") == ("KILLED", word)
    assert set(Noted.notes) == {(Path("runs").absolute() / "one", 9)}
    assert len(Noted.fits) == 1
    assert heard(working) == STEPS


def test_news_that_nobody_hears_any_more_do_not_fail_the_run_which_the_signal_then_ends_as_killed(working, monkeypatch):
    def gone(news):
        raise BrokenPipeError

    def fit_until_the_signal(*words, **how):
        fit(*words, **how)
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(working, "connection", SimpleNamespace(send=gone))
    monkeypatch.setattr(worker, "fit_and_record", fit_until_the_signal)
    assert run(working, job()) == 128 + signal.SIGTERM
    assert end_of() == ("KILLED", "SIGTERM")


def test_jobs_are_taken_in_up_to_the_end_of_the_work(working, monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda *words: killed.append(words))
    working.connection = Sent({"a": 1}, {"a": 2}, None, {"a": 3})
    working.listen()
    assert ([working.jobs.get() for _ in range(3)], working.jobs.empty()) == ([{"a": 1}, {"a": 2}, None], True)
    assert killed == []


def test_an_experiment_that_is_gone_ends_its_worker(working, monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda *words: killed.append(words))
    working.connection = Sent({"a": 1})
    working.listen()
    assert killed == [(os.getpid(), signal.SIGTERM)]


def test_of_the_steps_the_first_and_the_last_are_told_and_between_them_two_a_second(working, monkeypatch):
    now = {"s": 100.0}
    monkeypatch.setattr(worker.time, "monotonic", lambda: now["s"])
    for done, seconds in ((0, 100.0), (1, 100.4), (2, 100.5), (3, 100.51), (4, 101.0), (5, 101.1)):
        now["s"] = seconds
        working._steps(2, done, 5, {"loss": 0.5})
    assert [each["done"] for each in heard(working)] == [0, 3, 5]
    assert heard(working)[0] == {"at": 2, "done": 0, "steps": 5, "means": {"loss": 0.5}}
