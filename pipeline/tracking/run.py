"""The run's record as the training sees it: lifecycle, params, tags, metrics, artifacts; a Logger to Lightning.

Nothing here waits for a server or imports MLflow: everything goes into the run's folder, and the sender is told.
"""

import contextlib
import json
import os
import traceback
import uuid
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from pipeline.addresses import without_secrets
from pipeline.config import RunConfig
from pipeline.data.datasets import ImageData, Split
from pipeline.terminal.shell import user_name
from pipeline.tracking.checkout import checkout
from pipeline.tracking.folders import Journal, RunFolder
from pipeline.tracking.provenance import code_digest, git_tags, installed, machine_tags
from pipeline.tracking.uploader import Uploader


class RunRecord:
    """One run's record: opened once, closed once, delivered to MLflow in the background."""

    def __init__(self, journal: Journal, sender: Uploader) -> None:
        """Write through the journal and notify the sender."""
        self.folder: RunFolder = journal.folder
        self.journal, self.sender = journal, sender

    def start(self, config: RunConfig, source: ImageData, tags: Mapping[str, str], parent: str) -> None:
        """Open the record: every knob, what is trained on, from what code, with what packages, where.

        Args:
            config: the knobs.
            source: the data.
            tags: more tags than every run gets.
            parent: name of the folder of the run that this one belongs to, or nothing.
        """
        environ = os.environ
        chosen = environ.get("MLFLOW_EXPERIMENT_NAME") or config.experiment_name
        self._append(
            "start",
            run_key=uuid.uuid4().hex,
            mlflow_run_id=environ.get("MLFLOW_RUN_ID"),
            experiment_id=environ.get("MLFLOW_EXPERIMENT_ID"),
            experiment_name=chosen,
            params=config.as_dict(),
            parent=parent,
            tags={**_identity_tags(config), **git_tags(), "code": code_digest(), **machine_tags(), **tags},
        )
        self._append("dataset", inputs=_dataset_inputs(source, config.validation_size))
        self._record_provenance()

    def resume(self, epochs_done: int, changes: dict[str, Any]) -> None:
        """Open the record again, after so many epochs; `changes` are the knobs that grew."""
        tags = {"resumed_after_epoch": str(epochs_done)}
        tags |= {
            f"resumed.{name}": str(value) for name, value in {**git_tags(), "code": code_digest(), **changes}.items()
        }
        self._append("resume", params=changes, tags=tags)
        self._record_provenance()

    def _record_provenance(self) -> None:
        self.text_artifact("packages.txt", "".join(f"{line}\n" for line in installed()))
        if diff := checkout().diff:
            path = self.folder.artifacts / "uncommitted.diff"
            path.write_bytes(diff)
            self.artifact(path)

    def metrics(self, values: Mapping[str, float], step: int, time_ms: int | None = None) -> None:
        """Record metrics of an epoch (from 1), those that do not stand already."""
        self.journal.metrics(values, step, time_ms)
        self.sender.notify()

    def artifact(self, path: Path) -> None:
        """Record a finished file or folder below the folder's `artifacts`."""
        self.journal.artifact(path)
        self.sender.notify()

    def tags(self, tags: Mapping[str, str]) -> None:
        """Record tags that turn up on the way."""
        self._append("tags", tags=dict(tags))

    def text_artifact(self, name: str, text: str) -> None:
        """Write and record a text file."""
        path = self.folder.artifacts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.artifact(path)

    def describe(self, description: str) -> None:
        """Say in a line what the run is and gave, where MLflow shows it beside the run."""
        self._append("tags", tags={"mlflow.note.content": description})

    def model(self, network: Path, example: Path, model_name: str, tags: dict[str, str], description: str = "") -> None:
        """Record the network (an ONNX file in the folder), to be registered under the name unless that is empty."""
        paths = {
            "network": str(network.relative_to(self.folder.path)),
            "example": str(example.relative_to(self.folder.path)),
        }
        self._append("model", model_name=model_name, tags=tags, description=description, **paths)

    def fail(self, error: BaseException) -> None:
        """Close the record as FAILED with the reason as a tag and the traceback as an artifact."""
        with contextlib.suppress(OSError):  # a full disk may be the very reason
            self.text_artifact("traceback.txt", without_secrets("".join(traceback.format_exception(error))))
        self.end("FAILED", without_secrets(f"{type(error).__name__}: {error}"))

    def end(self, status: str, reason: str = "") -> None:
        """Close the record: FINISHED, FAILED or KILLED."""
        self._append("end", status=status, tags={"failure_reason": reason} if reason else {})

    def _append(self, kind: str, **content: Any) -> None:
        self.journal.append_or_hold(kind, **content)
        self.sender.notify()


class RunLogger(Logger):
    """The record as Lightning's Trainer takes it. In distributed training only rank 0 has a record to write to."""

    def __init__(self, record: RunRecord) -> None:
        """Log to the record."""
        super().__init__()
        self.record = record

    @property
    def name(self) -> str:
        """The folder's parent, as Lightning asks for one."""
        return self.record.folder.path.parent.name

    @property
    def version(self) -> str:
        """The run folder's name."""
        return self.record.folder.path.name

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record metrics at the epoch given as step; `time_ms` among them is when they were measured."""
        values = dict(metrics)
        time_ms = values.pop("time_ms", None)
        self.record.metrics(values, step or 0, int(time_ms) if time_ms else None)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the record got every knob when it was opened."""


def run_name(config: RunConfig) -> str:
    """A name that tells the run from its neighbours: what differs from the sample, then epochs and seed."""
    if config.run_name:
        return config.run_name
    return f"{what_differs(config)} epochs={config.epochs} seed={config.seed}"


def what_differs(config: RunConfig) -> str:
    """The knobs that are not the sample's, or `sample`; epochs, seed, and what only names or places things left out."""
    told = {"epochs", "seed", "verbose", "data_dir", "runs_dir", "model_name", "experiment_name", "run_name"}
    default = RunConfig().as_dict()
    different = [
        f"{name}={value}" for name, value in config.as_dict().items() if name not in told and value != default[name]
    ]
    return " ".join(different or ["sample"])


def _identity_tags(config: RunConfig) -> dict[str, str]:
    return {
        "mlflow.runName": run_name(config),
        "mlflow.user": user_name(),
        "mlflow.source.name": "pipeline",
        "mlflow.source.type": "LOCAL",
    }


def _dataset_inputs(source: ImageData, validation_size: int) -> list[dict[str, Any]]:
    """MLflow's dataset inputs: what was trained on, what was evaluated on."""
    parts = [("training", source.train), ("testing", source.test)]
    return [
        {
            "context": context,
            "dataset": {
                "name": f"{source.name}-{context}",
                "digest": source.digest,
                "source_type": "local",
                "source": json.dumps({"uri": source.source}),
                "schema": json.dumps({"mlflow_tensorspec": _tensor_spec()}),
                "profile": json.dumps(_profile(split, validation_size if context == "training" else 0)),
            },
        }
        for context, split in parts
    ]


def _tensor_spec() -> dict[str, str]:
    features = [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 28, 28]}}]
    targets = [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1]}}]
    return {"features": json.dumps(features), "targets": json.dumps(targets)}


def _profile(split: Split, held_out: int) -> dict[str, Any]:
    shapes = {"features_shape": list(split.images.shape), "targets_shape": list(split.labels.shape)}
    return {**shapes, **({"held_out_for_validation": held_out} if held_out else {})}
