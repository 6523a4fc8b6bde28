"""The pool of an experiment, its workers played by hand through pipes: who gets which run, and what is made of news."""

import json
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.config import RunConfig
from pipeline.experiments import pool
from pipeline.experiments.pool import WorkerPool
from pipeline.experiments.trial import Trial
from pipeline.signals import Interrupted
from pipeline.tracking.folders import new_folder
from pipeline.tracking.journal import Journal, RunFolder
from pipeline.tracking.recovery import DIED
from tests.conftest import ROOT

PARENT = RunFolder(Path("runs/parent"))


class Script:
    """A worker that answers each job with the messages written for it, or dies; `None` is the end of the work."""

    made, plays = [], {}

    def __init__(self, uploader, log):
        self.connection, self.theirs = multiprocessing.Pipe()
        self.given, self.log = [], log
        self.process = SimpleNamespace(join=self.join, kill=lambda: self.given.append("killed"), exitcode=None)
        self.trial, self.has = None, set()
        Script.made.append(self)

    def give(self, job):
        self.given.append(job)
        if job is not None:
            for message in Script.plays.get(job["tags"]["name"], [{"end": "FINISHED"}]):
                if isinstance(message, int):  # dies with this code
                    begin(Path(job["folder"]))
                    self.process.exitcode = message
                    self.theirs.close()
                else:
                    self.theirs.send(message)

    news = pool._Worker.news

    def join(self, timeout=None):
        self.process.exitcode = self.process.exitcode or 0


def begin(path, *ends):
    journal = Journal(RunFolder(path))
    journal.append("start", tags={}, params={}, run_key="k", mlflow_run_id=None)
    for status in ends:
        journal.append("end", status=status, tags={})
    journal.close()


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(pool, "_Worker", Script)
    monkeypatch.setattr(Script, "made", [])
    monkeypatch.setattr(Script, "plays", {})
    yield
    for worker in Script.made:
        worker.theirs.close()
        worker.connection.close()


def child(name, **other):
    return Trial(name, 1, RunConfig(epochs=3, seed=1), {"name": name}, **other)


def train(children, size=1):
    """Let a pool train them; returns what was told of each step, as (name, state)."""
    told = []
    train_together(size, iter(children), lambda child: told.append((child.variant, child.state)))
    return told


def train_together(size, children, changed):
    with WorkerPool(size, "uploader", PARENT, Path("runs").absolute()) as working:
        working.run(children, changed)


def jobs(worker):
    return [job and job["tags"]["name"] for job in worker.given]


def test_runs_are_given_in_their_order_to_whoever_is_free_and_all_are_sent_home():
    children = [child(name) for name in "abcde"]
    Script.plays["a"] = []  # goes on and on, so that the other worker has the rest
    Script.plays["e"] = [{"end": "FINISHED"}]

    def told(each):
        steps.append((each.variant, each.state))
        if each.variant == "e" and each.state == "finished":
            Script.made[0].theirs.send({"end": "FINISHED"})

    steps = []
    train_together(2, children, told)
    assert [jobs(worker) for worker in Script.made] == [["a", None], ["b", "c", "d", "e", None]]
    assert steps == [("a", "running"), ("b", "running")] + [
        (name, state) for name, state in zip("bccddeea", ["finished", "running"] * 3 + ["finished"] * 2, strict=True)
    ]
    assert all(worker.connection.closed for worker in Script.made)
    assert Script.made[0].log == PARENT.path / "workers.log"


def test_a_job_says_what_to_train_and_where_and_whether_to_go_on_with_it():
    there = new_folder("runs")
    new, begun = child("new"), child("begun", folder=there, state="interrupted")
    train([new, begun])
    first, second = Script.made[0].given[:2]
    assert RunConfig.from_mapping(first["config"]) == new.config
    assert (first["tags"], first["parent"], first["resume"]) == ({"name": "new"}, "parent", False)
    assert (first["folder"], new.folder.path.parent) == (str(new.folder.path), Path("runs").absolute())
    assert (second["folder"], second["resume"]) == (str(there.path), True)
    assert json.loads(json.dumps(first)) == first


def test_news_tell_of_steps_epochs_and_the_end(monkeypatch):
    clock = iter([10.0, 15.5, 16.0, 16.0])
    monkeypatch.setattr(pool.time, "monotonic", lambda: next(clock))
    one, lines = child("a"), []
    Script.plays["a"] = [
        {"at": 1, "done": 0, "steps": 9, "means": {}},
        {"at": 1, "done": 4, "steps": 9, "means": {"loss": 0.5}},
        {"epoch": 1, "seconds": 2.5, "accuracy": 0.75},
        {"at": 2, "done": 0, "steps": 9, "means": {}},
        {"epoch": 2, "seconds": 1.5, "accuracy": 0.875},
        {"end": "FINISHED"},
    ]
    train_together(
        1,
        [one],
        lambda each: lines.append((each.line, each.line and (each.line.done, each.line.steps, each.line.values))),
    )
    assert (one.state, one.epochs_done, one.accuracy, one.epoch_seconds) == ("finished", 2, 0.875, [2.5, 1.5])
    assert (one.began_at, one.seconds, one.reason) == (10.0, 5.5, "")
    shown = [line for _, line in lines]
    assert shown == [None, (0, 9, {}), (4, 9, {"loss": 0.5}), (4, 9, {"loss": 0.5}), *[(0, 9, {})] * 3]
    assert len({id(line) for line, _ in lines if line}) == 2  # a line an epoch


@pytest.mark.parametrize(
    ("end", "state"), [("FINISHED", "finished"), ("DIVERGED", "diverged"), ("FAILED", "failed"), ("KILLED", "failed")]
)
def test_a_run_ends_as_its_worker_says_and_the_worker_goes_on_with_the_next(end, state):
    one, two = child("a"), child("b")
    Script.plays["a"] = [{"end": end, "reason": "why"}]
    train([one, two])
    assert (one.state, one.reason, one.ended, two.state) == (state, "why", True, "finished")
    assert [jobs(worker) for worker in Script.made] == [["a", "b", None]]


def test_a_worker_that_dies_takes_its_run_with_it_whose_record_is_closed_at_once_and_another_goes_on():
    one, two = child("a"), child("b")
    Script.plays["a"] = [{"epoch": 1, "seconds": 1.0, "accuracy": 0.5}, -9]
    ends = []

    def told(each):
        if each is two:
            ends.append(one.folder.ended())

    train_together(1, [one, two], told)
    assert (one.state, one.reason) == ("failed", "its process died (exit code -9); start the experiment again")
    assert [(end["status"], end["tags"]) for end in ends] == [("FAILED", {"failure_reason": DIED})] * 2
    assert [jobs(worker) for worker in Script.made] == [["a"], ["b", None]]
    assert two.state == "finished"


def test_a_run_that_had_ended_or_never_begun_as_its_worker_died_stays_as_it_is(monkeypatch):
    one, two = child("a"), child("b")
    Script.plays |= {"a": [-9], "b": [-9]}

    def begin_in_part(path):
        if Path(path) == (one.folder and one.folder.path):
            begin_whole(path, "FINISHED")

    begin_whole = begin
    monkeypatch.setitem(globals(), "begin", begin_in_part)
    train([one, two])
    assert [each.state for each in (one, two)] == ["failed", "failed"]
    assert [event["kind"] for event in one.folder.events()] == ["start", "end"]
    assert two.folder.events() == []


def test_an_interruption_closes_every_workers_input_and_kills_those_that_do_not_stop(monkeypatch):
    def interrupt(each):
        if each.variant == "b":
            raise KeyboardInterrupt

    waits = []
    monkeypatch.setattr(pool.time, "monotonic", lambda: 5.0)
    monkeypatch.setattr(Script, "join", lambda self, timeout=None: waits.append(timeout))
    Script.plays |= {name: [{"at": 1, "done": 0, "steps": 9, "means": {}}] for name in "ab"}
    with pytest.raises(KeyboardInterrupt):
        train_together(2, [child("a"), child("b")], interrupt)
    assert all(worker.connection.closed for worker in Script.made)
    assert [worker.given[-1] for worker in Script.made] == ["killed", "killed"]
    assert waits == [pool.STOPPING_S, None] * 2


@pytest.mark.parametrize(("error", "reason"), [(Interrupted(2), "Ctrl-C"), (ValueError("x"), "the experiment stopped")])
def test_who_had_to_be_killed_at_an_interruption_is_killed_in_its_record_too(monkeypatch, error, reason):
    def interrupt(each):
        if each.variant == "b":
            raise error

    monkeypatch.setattr(Script, "join", lambda self, timeout=None: None)
    one, ended, never_begun = child("a"), child("c"), child("b")
    Script.plays |= {name: [{"at": 1, "done": 0, "steps": 9, "means": {}}] for name in "abc"}

    def begin_two(self, job):
        give(self, job)
        if job["tags"]["name"] != "b":
            begin(Path(job["folder"]), *["FINISHED"] * (job["tags"]["name"] == "c"))

    give = Script.give
    monkeypatch.setattr(Script, "give", begin_two)
    with pytest.raises(type(error)):
        train_together(3, [one, ended, never_begun], interrupt)
    ends = [each.folder.ended() for each in (one, ended)]
    assert [(end["status"], end["tags"]) for end in ends] == [("KILLED", {"failure_reason": reason}), ("FINISHED", {})]
    assert never_begun.folder.events() == []


def test_workers_stay_for_the_next_look_and_are_sent_home_when_the_pool_is_left():
    with WorkerPool(2, "uploader", PARENT, Path("runs").absolute()) as working:
        working.run([child("a"), child("b"), child("c")], lambda each: None)
        assert [worker.given[-1] for worker in Script.made] != [None, None]
        working.run([child("d")], lambda each: None)
        assert len(Script.made) == 2
    assert sorted(name for worker in Script.made for name in jobs(worker) if name) == ["a", "b", "c", "d"]
    assert [worker.given[-1] for worker in Script.made] == [None, None]


def test_what_workers_are_started_with_is_theirs_alone(monkeypatch):
    for name, value in (("MLFLOW_RUN_ID", "r"), ("OMP_NUM_THREADS", "7"), ("PYTHONPATH", "a")):
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with pool._environment_of_workers() as environ:
        assert environ == dict(os.environ)
        assert "MLFLOW_RUN_ID" not in environ
        assert (environ["OMP_NUM_THREADS"], environ["MKL_NUM_THREADS"]) == ("1", "1")
        assert environ["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "a"]
    assert dict(os.environ) == before


def test_what_has_ended_is_known_by_its_state():
    states = ("missing", "interrupted", "running", "finished", "diverged", "failed")
    assert [child("a", state=state).ended for state in states] == [False] * 3 + [True] * 3
    assert child("none").name == "none seed=1"
