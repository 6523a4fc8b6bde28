"""An experiment without a training: its question, runs recorded by hand, a pool and uploader that only take notes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from pipeline.analysis import report
from pipeline.config import RunConfig
from pipeline.experiments import engine, experiment, plan
from pipeline.tracking import run
from pipeline.tracking.folders import new_folder
from pipeline.tracking.journal import Journal

TRIAL = """
question: Does dropout help?
shared: {dataset: digits, epochs: 3, validation_size: 300}
variants:
  none: {dropout: 0.0}
  half: {dropout: 0.5}
baseline: none
seeds: [2, 1]
"""
ALL = ["none seed=2", "half seed=2", "none seed=1", "half seed=1"]
NOTHING = SimpleNamespace(inputs=np.zeros(0))
BASE = {"dataset": "digits", "epochs": 3, "validation_size": 300, "model_name": "unregistered", "record": "light"}
CODE, DIGEST = "code-1", "data-1"
WHY = "diverged in epoch 2: train_loss is nan; try a lower learning_rate"
DIVERGED = {"diverged_in_epoch": "2"}


def record(variant="none", seed=2, status="FINISHED", **other):
    """A run of the trial that is there already; returns its folder."""
    knobs = {"dropout": 0.0 if variant == "none" else 0.5, "seed": seed, "runs_dir": "runs", **other.pop("knobs", {})}
    journal = Journal(new_folder("runs"))
    tags = {"experiment": "trial", "variant": variant, "code": CODE, "mlflow.runName": f"{variant} seed={seed}"}
    begin(journal, RunConfig(**{**BASE, **knobs}), tags | other.pop("tags", {}), **other)
    if status:
        end(journal, status, other.get("reason", ""))
    journal.close()
    return journal.folder


def begin(journal, config, tags, *, digest=DIGEST, epochs=3, diverged=False, parent="elsewhere", reason=""):
    """Write what a run writes up to the end of so many epochs."""
    facts = {"mlflow_run_id": None, "run_key": "k" + journal.folder.path.name, "experiment_name": "trial"}
    journal.append("start", params=config.as_dict(), tags=tags, parent=parent, **facts)
    if digest:
        journal.append("dataset", inputs=[{"dataset": {"digest": digest}}])
    go_on(journal, config, range(1, epochs + 1))
    if diverged:
        journal.append("tags", tags=DIVERGED)


def go_on(journal, config, epochs):
    """Write the metrics of the epochs: made of variant and seed, so that there is something to compare."""
    for epoch in epochs:
        accuracy = accuracy_of(config)
        journal.metrics({"train_loss": 1 / epoch, "val_loss": 1 / epoch, "val_accuracy": accuracy}, epoch)


def accuracy_of(config):
    return 0.9 + 0.01 * config.dropout + 0.001 * config.seed


def end(journal, status, reason=""):
    journal.append("end", status=status, tags={"failure_reason": reason} if reason else {})


class HeldJournal(Journal):
    """The subcommand keeps its journal until the process ends; a test ends it with `let_go`."""

    held: ClassVar = []

    def __init__(self, folder):
        super().__init__(folder)
        HeldJournal.held.append(self)

    def close(self):
        HeldJournal.held.remove(self)
        super().close()

    @staticmethod
    def let_go():
        for journal in list(HeldJournal.held):
            journal.close()


class NotedUploader:
    """Delivers nothing and says that it has, or what it is told to say."""

    descriptor = 99
    finished, delivered = [], True

    def __init__(self, folder):
        self.folder, self.notes = folder, 0
        NotedUploader.made.append(self)
        state = {"run_id": "r-" + folder.path.name[-6:], "tracking_uri": "sqlite:///mlflow.db"}
        folder.write_state({**state, **NotedUploader.state})

    def notify(self):
        self.notes += 1

    def wait(self, patience_s=None):
        NotedUploader.finished.append(patience_s)
        return NotedUploader.delivered


class HandPool:
    """Trains by writing down what a training would; `fates` says how a run ends."""

    fates, sizes, trained, before = {}, [], [], None

    def __init__(self, size, uploader, parent, runs_dir, sources):
        HandPool.sizes.append(size)
        self.size, self.parent, self.runs_dir = size, parent, runs_dir

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, children, changed):
        for child in children:
            HandPool.trained.append((child.name, child.folder is not None))
            if HandPool.before:
                HandPool.before(child)
            self.train(child, *HandPool.fates.get(child.name, ("FINISHED", "")))
            changed(child)

    def train(self, child, status, reason):
        resume = child.folder is not None
        child.folder = child.folder or new_folder(self.runs_dir)
        journal = Journal(child.folder)
        if resume:
            journal.append("resume", params={}, tags={})
            go_on(journal, child.config, range(child.epochs_done + 1, 4))
        else:
            tags = {**child.tags, "code": CODE, "mlflow.runName": child.name}
            diverged = status == "DIVERGED"
            begin(journal, child.config, tags, parent=self.parent.path.name, diverged=diverged)
        end(journal, "FINISHED" if status == "FINISHED" else "FAILED", reason)
        journal.close()
        child.state = {"FINISHED": "finished", "DIVERGED": "diverged"}.get(status, "failed")
        child.reason = reason


@pytest.fixture
def trial(monkeypatch):
    """The subcommand with nothing heavy in it; returns what was noted."""
    Path("trial.yaml").write_text(TRIAL)
    noted = SimpleNamespace(loads=[], notes=[], written=[], stores=[])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # the subcommand sets it, to go on in the store of the first time
    for name, value in {"made": [], "finished": [], "delivered": True, "state": {}}.items():
        monkeypatch.setattr(NotedUploader, name, value, raising=False)
    for name, value in {"fates": {}, "sizes": [], "trained": [], "before": None}.items():
        monkeypatch.setattr(HandPool, name, value)

    def load(dataset, data_dir, data_name):
        noted.loads.append((dataset, data_dir, data_name))
        return SimpleNamespace(
            digest=DIGEST if dataset == "digits" else f"data of {dataset}", train=NOTHING, test=NOTHING
        )

    def write_files(comparison, folder, made):
        noted.written.append((comparison, made))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "comparison.json").write_text(json.dumps(comparison.title))
        return [folder / "comparison.json"]

    class Shared:
        def __init__(self, folder, descriptor):
            self.folder, self.descriptor = folder, descriptor

        def notify(self):
            noted.notes.append((self.folder.path.name, self.descriptor))

    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(experiment.datasets, "load", load)
    monkeypatch.setattr(experiment.preflight, "check_store", lambda *words: noted.stores.append(words))
    for place in (experiment, plan):
        monkeypatch.setattr(place, "code_digest", lambda own=(): CODE)
    for place in (experiment, run):
        monkeypatch.setattr(place, "git_tags", lambda: {"git.commit": "c0ffee"})
    monkeypatch.setattr(experiment, "UploaderProcess", NotedUploader)
    monkeypatch.setattr(plan, "Uploader", Shared)
    monkeypatch.setattr(engine, "WorkerPool", HandPool)
    monkeypatch.setattr(engine, "start_importing", lambda: None)
    monkeypatch.setattr(report, "write_files", write_files)
    monkeypatch.setattr(experiment, "Journal", HeldJournal)
    yield noted
    HeldJournal.let_go()
