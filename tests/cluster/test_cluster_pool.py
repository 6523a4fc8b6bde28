"""The pool of a cluster, its workers played by hand: who gets which run, and what becomes of it when a worker dies."""

import queue
from types import SimpleNamespace

import pytest

from pipeline.cluster import pool
from pipeline.cluster.pool import ClusterPool, LostError
from pipeline.config import RunConfig
from pipeline.experiments.trial import Trial
from pipeline.signals import Interrupted
from pipeline.tracking.folders import all_folders
from pipeline.tracking.journal import RunFolder

FACTS = {"Python": "3.11"}
START = {
    "kind": "start",
    "time": 1,
    "n": 0,
    "run_key": "k",
    "params": {},
    "tags": {},
    "parent": "",
    "mlflow_run_id": None,
}
END = {"kind": "end", "time": 2, "n": 1, "status": "FINISHED", "tags": {}}


def epoch(done):
    return {"news": {"epoch": done, "seconds": 0.5, "accuracy": 0.75}}


EPOCH = epoch(1)
FINISHED = ({"event": START}, EPOCH, {"event": END}, {"news": {"end": "FINISHED"}})


class Script:
    """A worker that says for each job what is written for it; a string is what it dies of."""

    made, plays, jobs = [], {}, []

    def __init__(self, facts=FACTS):
        self.said, self.number, self.killed = queue.Queue(), 0, False
        Script.made.append(self)
        if isinstance(facts, str):
            self.said.put(facts)
        else:
            self.say({"news": {"ready": facts, "node": f"node{len(Script.made)}"}})

    def say(self, message):
        self.number += 1
        self.said.put((self.number, message))

    def poll(self, taken, refusal):
        self.refusal = refusal
        said = self.said.get(timeout=300)
        if isinstance(said, str):
            raise LostError(said)
        return [said]

    def train(self, job):
        Script.jobs.append(job)
        plays = Script.plays.get(job["trial"], [FINISHED])
        for each in plays.pop(0) if len(plays) > 1 else plays[0]:
            self.said.put(each) if isinstance(each, str) else self.say(each)

    def kill(self):
        self.killed = True
        self.said.put("killed")


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    for name, empty in (("made", []), ("plays", {}), ("jobs", [])):
        monkeypatch.setattr(Script, name, empty)


def child(name):
    return Trial(name, 1, RunConfig(epochs=1, seed=1), {"name": name})


def job_of(trial, files):
    return {"trial": trial.variant, "files": sorted(files)}


def train(tmp_path, *trials, size=1, start=Script, changed=lambda trial: None):
    parent = RunFolder(tmp_path / "runs/parent")
    parent.path.mkdir(parents=True)
    uploader = SimpleNamespace(descriptor=-1)
    made = ClusterPool(size, start, job_of, FACTS, uploader, parent, tmp_path / "runs", {})
    with made:
        made.run(trials, changed)
    return [(trial.state, trial.reason) for trial in trials]


def test_runs_are_trained_in_order_and_their_records_lie_here(tmp_path):
    trials = [child(name) for name in "abc"]
    assert train(tmp_path, *trials) == [("finished", "")] * 3
    assert [job["trial"] for job in Script.jobs] == ["a", "b", "c"]
    assert [trial.accuracy for trial in trials] == [0.75] * 3
    assert [folder.ended()["status"] for folder in all_folders(tmp_path / "runs")] == ["FINISHED"] * 3
    assert not any(trial.folder.is_alive() for trial in trials)


def test_no_more_workers_are_started_than_there_are_runs_and_all_are_let_go(tmp_path):
    train(tmp_path, child("a"), child("b"), size=5)
    assert len(Script.made) == 2
    assert all(worker.killed for worker in Script.made)


def test_a_run_whose_worker_died_goes_on_with_another_in_the_same_folder(tmp_path):
    resumed = ({"event": {"kind": "resume", "time": 3, "n": 1, "params": {}, "tags": {}}}, *FINISHED[1:])
    Script.plays["a"] = [({"event": START}, "the kernel"), resumed]
    trial = child("a")
    assert train(tmp_path, trial, child("b")) == [("finished", "")] * 2
    assert [(job["trial"], job["files"]) for job in Script.jobs] == [
        ("a", []),
        ("a", ["journal.jsonl", "vital.jsonl"]),
        ("b", []),
    ]
    assert [event["kind"] for event in trial.folder.events()] == ["start", "resume", "end"]


def test_a_run_that_kills_its_worker_three_times_is_failed_with_the_reason_and_the_others_go_on(tmp_path):
    Script.plays["a"] = [({"event": START}, "SIGSEGV")]
    trial = child("a")
    (state, reason), other = train(tmp_path, trial, child("b"))
    assert (state, other) == ("failed", ("finished", ""))
    assert reason == "its worker died 3 times and came no further, the last time on node3: SIGSEGV"
    assert [job["trial"] for job in Script.jobs] == ["a", "a", "a", "b"]
    end = trial.folder.ended()
    assert (end["status"], end["tags"]["failure_reason"]) == ("FAILED", reason)


def test_a_run_that_gets_on_between_deaths_is_not_given_up(tmp_path):
    Script.plays["a"] = [*[({"event": START}, epoch(done), "preempted") for done in (1, 2, 3, 4, 5)], FINISHED]
    assert train(tmp_path, child("a"))[0][0] == "finished"


def test_a_run_that_comes_as_far_each_time_is_given_up(tmp_path):
    again = [({"event": START}, epoch(done), "out of memory") for done in (1, 2, 3)]
    Script.plays["a"] = [({"event": START}, epoch(1), epoch(2), epoch(3), "out of memory"), *again, FINISHED]
    state, reason = train(tmp_path, child("a"))[0]
    assert (state, reason) == (
        "failed",
        "its worker died 3 times and came no further, the last time on node3: out of memory",
    )


def test_a_death_before_the_record_began_leaves_no_folder_and_starts_anew(tmp_path):
    Script.plays["a"] = [("gone",), FINISHED]
    assert train(tmp_path, child("a")) == [("finished", "")]
    assert len(all_folders(tmp_path / "runs")) == 1
    assert [job["files"] for job in Script.jobs] == [[], []]


def test_a_node_with_other_versions_ends_the_experiment_before_it_trains_there(tmp_path):
    with pytest.raises(ValueError, match=r"^node node1 has Python 3.12 \(here 3.11\); install the same everywhere"):
        train(tmp_path, child("a"), start=lambda: Script({"Python": "3.12"}))
    assert Script.jobs == []


def test_workers_that_never_start_end_the_experiment_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match=r"^no worker starts on the cluster: no such package"):
        train(tmp_path, child("a"), start=lambda: Script("no such package"))
    assert len(Script.made) == pool.DEATHS


def test_a_run_that_fails_on_its_node_is_failed_at_once(tmp_path):
    Script.plays["a"] = [({"news": {"end": "FAILED", "reason": "ValueError: no"}},)]
    assert train(tmp_path, child("a"), child("b")) == [("failed", "ValueError: no"), ("finished", "")]


def test_an_interruption_closes_the_runs_under_way_as_killed_with_what_is_here_of_them(tmp_path):
    Script.plays["a"] = [({"event": START}, EPOCH)]
    trial = child("a")

    def interrupt(changed):
        if changed.epochs_done:
            raise Interrupted(2)

    with pytest.raises(Interrupted):
        train(tmp_path, trial, changed=interrupt)
    end = trial.folder.ended()
    assert (end["status"], end["tags"]["failure_reason"]) == ("KILLED", "Ctrl-C")
    assert all(worker.killed for worker in Script.made)
    assert not trial.folder.is_alive()


def test_a_message_that_comes_twice_is_written_once(tmp_path):
    class Stutter(Script):
        def poll(self, taken, refusal):
            messages = super().poll(taken, refusal)
            return messages * 2

    trial = child("a")
    train(tmp_path, trial, start=Stutter)
    assert [event["kind"] for event in trial.folder.events()] == ["start", "end"]


def test_a_file_that_the_disk_here_refuses_is_told_to_the_node(tmp_path, monkeypatch):
    refusals = []

    class Heard(Script):
        def poll(self, taken, refusal):
            refusals.append(refusal)
            return super().poll(taken, refusal)

    def full(self, names):
        if names:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.cluster.replica.Replica._place", full)
    Script.plays["a"] = [({"event": START}, {"pieces": [("x", 0, b"")], "place": ["x"]}, *FINISHED[2:])]
    train(tmp_path, child("a"), start=Heard)
    assert [each for each in refusals if each] == [(28, "No space left on device")]


def test_what_a_node_warns_of_stands_beside_the_experiment(tmp_path):
    Script.plays["a"] = [({"news": {"line": "warning: hot"}}, *FINISHED)]
    train(tmp_path, child("a"))
    assert (tmp_path / "runs/parent/workers.log").read_text() == "node1: warning: hot\n"


def test_when_nothing_is_heard_the_cluster_is_looked_after(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "LOOK_S", 0.01)
    made = ClusterPool(1, Script, job_of, FACTS, SimpleNamespace(descriptor=-1), RunFolder(tmp_path), tmp_path, {})

    def gone():
        raise ConnectionError("the head is gone")

    made.watch = gone
    Script.plays["a"] = [({"event": START},)]
    with pytest.raises(ConnectionError), made:
        made.run([child("a")], lambda trial: None)


def test_workers_stay_for_the_next_look_and_more_are_started_if_it_has_more_runs(tmp_path):
    parent = RunFolder(tmp_path / "runs/parent")
    parent.path.mkdir(parents=True)
    with ClusterPool(2, Script, job_of, FACTS, SimpleNamespace(descriptor=-1), parent, tmp_path / "runs", {}) as made:
        for names in ("a", "bcd"):
            trials = [child(name) for name in names]
            made.run(trials, lambda trial: None)
            assert {trial.state for trial in trials} == {"finished"}
        assert [worker.killed for worker in Script.made] == [False, False]
        assert len(Script.made) == 2
    assert [worker.killed for worker in Script.made] == [True, True]


def test_a_worker_that_dies_after_the_end_of_its_record_has_finished_the_run(tmp_path):
    Script.plays["a"] = [({"event": START}, EPOCH, {"event": END}, "killed just then")]
    trial = child("a")
    assert train(tmp_path, trial, child("b")) == [("finished", "")] * 2
    assert [job["trial"] for job in Script.jobs] == ["a", "b"]
    assert [event["kind"] for event in trial.folder.events()] == ["start", "end"]
