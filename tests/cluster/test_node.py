"""A node's worker in this process, with a real training and no Ray: what it does stands in the folder here."""

import re
import sys
import threading
from types import SimpleNamespace

import pytest

from pipeline.cluster.node import NodeWorker
from pipeline.cluster.pool import ClusterPool
from pipeline.config import RunConfig
from pipeline.data import datasets
from pipeline.experiments.trial import Trial
from pipeline.recording.code_digest import code_digest
from pipeline.tracking.folders import values_of
from pipeline.tracking.journal import RunFolder

CONFIG = RunConfig(dataset="digits", epochs=2, hidden_units=8, model_name="", record="light", accelerator="cpu")


class InThisProcess:
    """A worker that is polled by a call and trains in a thread."""

    def __init__(self):
        self.worker = NodeWorker(lambda given: given.read_bytes() if hasattr(given, "read_bytes") else given)
        self.worker.link.tell(ready={}, node="here")

    def poll(self, taken, refusal):
        return self.worker.link.poll(taken, refusal, 0.2)

    def train(self, job):
        threading.Thread(target=self.worker.train, args=(job,), daemon=True).start()

    def kill(self):
        pass


@pytest.fixture
def digits():
    return datasets.load("digits", "data")


def trained(tmp_path, monkeypatch, source, *trials, **wrong):
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # put back afterwards
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    parent = RunFolder(tmp_path / "runs/parent")
    parent.path.mkdir(parents=True)

    def job_of(trial, files):
        facts = {"digest": source.digest, "code": code_digest(), "checkpoint_every": 0.0, **wrong}
        about = {"config": trial.config.as_dict(), "resume": bool(files), "tags": trial.tags}
        return {**about, "name": trial.folder.path.name, "files": files, "data": source, **facts}

    uploader = SimpleNamespace(descriptor=-1)
    with ClusterPool(1, InThisProcess, job_of, {}, uploader, parent, tmp_path / "runs", {}) as pool:
        pool.run(trials, lambda trial: None)
    return trials


def test_runs_are_trained_and_recorded_one_after_the_other(tmp_path, monkeypatch, digits):
    trials = [Trial("a", seed, CONFIG.replace(seed=seed), {"seed": str(seed)}) for seed in (1, 2)]
    trained(tmp_path, monkeypatch, digits, *trials)
    assert [(trial.state, trial.reason, trial.epochs_done) for trial in trials] == [("finished", "", 2)] * 2
    for trial in trials:
        events = trial.folder.events()
        assert [event["kind"] for event in events[:2]] == ["start", "dataset"]
        assert sorted(values_of(events)["train_loss"]) == [1, 2]
        assert trial.folder.ended()["status"] == "FINISHED"
        assert (trial.folder.artifacts / "predictions.npz").exists()
        assert "\nrecord: light\n" in (trial.folder.path / "config.yaml").read_text()


def test_other_data_or_other_code_than_was_sent_fail_the_run_on_the_node(tmp_path, monkeypatch, digits):
    for wrong, words in (({"digest": "0" * 16}, "data with digest .* arrived"), ({"code": "0"}, "the code on node")):
        trial = Trial("a", 1, CONFIG, {})
        with monkeypatch.context() as patched:
            trained(tmp_path / words[:4], patched, digits, trial, **wrong)
        assert trial.state == "failed"
        assert re.search(words, trial.reason)
