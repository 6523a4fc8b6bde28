"""Run folders with a record in them, as a training leaves it, written without one; every time in them is fixed."""

import json
from pathlib import Path

import mlflow
import numpy as np

from pipeline.registry import packing
from pipeline.tracking.journal import Journal, RunFolder

FIRST_MS = 1_700_000_000_000
START = {
    "run_key": "key",
    "mlflow_run_id": None,
    "experiment_id": None,
    "experiment_name": "here",
    "params": {"epochs": 2, "seed": 1},
    "parent": "",
    "tags": {"mlflow.runName": "a run", "note": "first"},
}


def run_of(path, *events):
    """A run folder with these events, (kind, content) each, a second apart; files that they speak of are made."""
    journal = Journal(RunFolder(path))
    for number, (kind, content) in enumerate(events):
        _make_files(journal.folder, kind, content)
        journal.append(kind, time=FIRST_MS + 1000 * number, **content)
    journal.close()
    return journal.folder


class Held(RunFolder):
    """A run folder whose events are held in memory; the files that they speak of are on the disk."""

    def __init__(self, path, *events):
        super().__init__(path)
        self.held = [
            {"kind": kind, "time": FIRST_MS + 1000 * number, "n": number, **content}
            for number, (kind, content) in enumerate(events)
        ]
        self.path.mkdir(parents=True, exist_ok=True)
        for event in self.held:
            _make_files(self, event["kind"], event)

    def events(self):
        return list(self.held)

    def read(self):
        return list(self.held), 0

    def started(self):
        return next((event for event in self.held if event["kind"] == "start"), None)


def append(folder, kind, **content):
    """One more event."""
    journal = Journal(folder)
    journal.append(kind, **content)
    journal.close()


def _make_files(folder, kind, content):
    """What an event speaks of; an artifact whose name has no ending is a folder of two files."""
    files = {}
    if kind == "artifact":
        path = folder.artifacts / content["path"]
        names = [path] if path.suffix else [path / "first.txt", path / "below/second.txt"]
        files = {name: f"what stands in {name.name}\n".encode() for name in names}
    elif kind == "model":
        files = {folder.path / content["network"]: b"a network of 1,000 weights"}
        if not (folder.path / content["example"]).exists():
            np.save(folder.path / content["example"], np.zeros((1, 28, 28), np.uint8))
    for file, text in files.items():
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)


def start(**changes):
    return "start", {**START, **changes}


def metrics(step, **values):
    return "metrics", {"values": values or {"train_loss": 1.0 / step, "val_loss": 2.0 / step}, "step": step}


def tags(**named):
    return "tags", {"tags": named}


def artifact(path):
    return "artifact", {"path": path}


def end(status="FINISHED", **named):
    return "end", {"status": status, "tags": named}


def resume(**named):
    return "resume", {"params": {}, "tags": named}


def dataset(name="digits-training", digest="1234", context="training"):
    about = {"name": name, "digest": digest, "source_type": "local", "source": "{}", "schema": "{}", "profile": "{}"}
    return "dataset", {"inputs": [{"context": context, "dataset": about}]}


def model(name="digits-mlp", **named):
    files = {"network": "network.onnx", "example": "example.npy"}
    return "model", {"model_name": name, "tags": {"dataset": "digits", **named}, "description": "good", **files}


# Every kind of event: interrupted, resumed, finished.
WHOLE = (
    start(),
    dataset(),
    artifact("packages.txt"),
    metrics(1),
    tags(note="second", only="once"),
    end("KILLED", failure_reason="Ctrl-C"),
    resume(resumed_after_epoch="1"),
    metrics(2),
    artifact("checkpoint/last.ckpt"),
    artifact("pictures"),
    tags(note="third", **{"mlflow.note.content": "ours"}),
    model(),
    end(),
)


def quick(monkeypatch):
    """What takes milliseconds of the disk's each time, and is other modules' business, is done in memory.

    The state, which goes through JSON all the same; and the network is stored as it is, without MLflow's packing.
    """
    states = {}

    def save_model(path, artifacts, **options):
        Path(path).mkdir()
        for name, source in artifacts.items():
            (Path(path) / name).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(mlflow.pyfunc, "save_model", save_model)
    monkeypatch.setattr(packing, "version", lambda name: "1.0")
    monkeypatch.setattr(packing, "_last", None)
    checked = RunFolder.checked_state  # of a file that a test has damaged itself

    def checked_state(folder):
        return json.loads(states.get(folder.path, "{}")), checked(folder)[1]

    monkeypatch.setattr(RunFolder, "checked_state", checked_state)
    monkeypatch.setattr(RunFolder, "write_state", lambda self, state: states.update({self.path: json.dumps(state)}))
