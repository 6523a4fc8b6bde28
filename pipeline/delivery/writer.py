"""What each event of a run's journal is in MLflow: written so that it may be written again, whatever became of it."""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils import mlflow_tags

from pipeline.data_spec import MNIST, DataSpec
from pipeline.delivery import ui
from pipeline.delivery.keys import key_of
from pipeline.mlflow_client import searches
from pipeline.mlflow_client.connection import once
from pipeline.mlflow_client.errors import in_words, is_final
from pipeline.mlflow_client.naming import MAX_TAG
from pipeline.registry import log_model
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.lines import LOST, Event

RUN_KEY = "pipeline.run"
KIND = "mlflow.experimentKind"
CHUNK = 100
NOTE = mlflow_tags.MLFLOW_RUN_NOTE  # the description, which people edit in the UI
PARENT = "(parent)"  # the name of the link to the run that this one belongs to, where parts of an event are named

Item = Metric | Param | RunTag


@dataclass(frozen=True)
class Refusal:
    """A part of an event that MLflow did not take.

    Attributes:
        name: of the param, metric or tag.
        reason: in words.
        final: whether MLflow says that it never will.
    """

    name: str
    reason: str
    final: bool = True


@dataclass
class Writer:
    """Writes events to the run in MLflow that belongs to the folder.

    Attributes:
        run_id, experiment_id: MLflow's ids, once they are known.
        versions: registered model -> version that the run got.
    """

    folder: RunFolder
    client: mlflow.MlflowClient
    run_id: str = ""
    experiment_id: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def write(self, event: Event, names: Collection[str] = (), status: bool = True) -> list[Refusal]:
        """Write an event, or of its params, metrics and tags those of the given names; returns what is refused of them.

        Args:
            event: any event of the journal.
            names: none: all of it.
            status: whether the run's status is to follow the event's.

        Raises:
            MlflowException: if it is refused as a whole, or for now.
            FileNotFoundError: if a file that it speaks of is no longer in the folder.
        """
        kind = event["kind"]
        if kind == LOST:  # damaged in the journal; whoever delivers says so
            return []
        write: Callable[[Event, Collection[str], bool], list[Refusal]] | None = getattr(self, f"_{kind}", None)
        if write is None:
            return [Refusal(kind, "a kind of record that this version of the pipeline does not know")]
        return write(event, names, status)

    def _start(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        self.run_id = self.run_id or event["mlflow_run_id"] or self._find(event) or self._create(event)
        run = self.client.get_run(self.run_id)
        self.experiment_id = str(run.info.experiment_id)
        params = [
            Param(name, str(value)) for name, value in event["params"].items() if key_of(name) not in run.data.params
        ]
        tags = {**event["tags"], RUN_KEY: event["run_key"]}
        if event["mlflow_run_id"]:
            tags = {name: value for name, value in tags.items() if not name.startswith("mlflow.source.")}
            if not _is_random_name(run.info.run_name):
                tags.pop(mlflow_tags.MLFLOW_RUN_NAME, None)
        self._show_as_training(run.info.experiment_id)
        refused = self._log("params", params, names)
        return refused + self._tags({"tags": tags}, names) + self._parent(event, names)

    def _parent(self, event: Event, names: Collection[str], status: bool = True) -> list[Refusal]:
        """Nest the run under the one whose folder lies beside its own, once MLflow has that."""
        if not event.get("parent") or (names and PARENT not in names):
            return []
        parent = RunFolder(self.folder.path.parent / event["parent"])
        run_id = parent.state().get("run_id")
        if not run_id:
            missing = "comes first" if parent.started() else "is not beside its folder"
            return [Refusal(PARENT, f"the record of {event['parent']}, which this run belongs to, {missing}", False)]
        return self._tags({"tags": {mlflow_tags.MLFLOW_PARENT_RUN_ID: run_id}})

    def _show_as_training(self, experiment_id: str) -> None:
        """Let MLflow's UI open the experiment as model training; it would take it for generative AI."""
        tags = self.client.get_experiment(experiment_id).tags
        if KIND not in tags:
            self.client.set_experiment_tag(experiment_id, KIND, "custom_model_development")
        ui.share_view(self.client, experiment_id, tags)

    def _find(self, event: Event) -> str | None:
        """The run that an earlier attempt created before its answer was lost: of several the one that has most."""
        experiment_id = event["experiment_id"]
        if not experiment_id:
            experiment = self.client.get_experiment_by_name(event["experiment_name"])
            if experiment is None:
                return None
            experiment_id = experiment.experiment_id
        found = self._of_key(experiment_id, event["run_key"])
        return str(found[0].info.run_id) if found else None

    def _of_key(self, experiment_id: str, run_key: str) -> list[Any]:
        """All runs that were created for this folder, the fullest first."""
        found = searches.runs_tagged(self.client, [experiment_id], RUN_KEY, run_key)
        return sorted(found, key=lambda run: (-len(run.data.params), -len(run.data.metrics), run.info.run_id))

    def remove_doubles(self, event: Event) -> None:
        """Delete the empty runs that answers which came too late have left beside the run (MLflow can restore them)."""
        experiment_id = self.client.get_run(self.run_id).info.experiment_id
        for run in self._of_key(experiment_id, event["run_key"]):
            if run.info.run_id != self.run_id and not run.data.params and not run.data.metrics:
                self.client.delete_run(run.info.run_id)

    def _create(self, event: Event) -> str:
        with once():
            experiment_id = event["experiment_id"] or self._experiment(event["experiment_name"])
            name = event["tags"][mlflow_tags.MLFLOW_RUN_NAME]
            run = self.client.create_run(experiment_id, event["time"], {RUN_KEY: event["run_key"]}, run_name=name)
        return str(run.info.run_id)

    def _experiment(self, name: str) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self.client.create_experiment(name))
            except MlflowException as error:
                experiment = self.client.get_experiment_by_name(name)
                if experiment is None or error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        return str(experiment.experiment_id)

    def _dataset(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        inputs = [
            DatasetInput(Dataset(**each["dataset"]), [InputTag(mlflow_tags.MLFLOW_DATASET_CONTEXT, each["context"])])
            for each in event["inputs"]
        ]
        self.client.log_inputs(self.run_id, inputs)
        return []

    def _params(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        return self._log("params", [Param(name, str(value)) for name, value in event["params"].items()], names)

    def _metrics(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        return self._log("metrics", _metrics_of(event), names)

    def write_metrics(self, events: Iterable[Event]) -> None:
        """Write the metrics of several events in one request.

        Raises:
            MlflowException: if any of it is refused, or all for now.
        """
        metrics = [metric for event in events for metric in _metrics_of(event)]
        if metrics:
            self.client.log_batch(self.run_id, [_with_key(metric) for metric in metrics])

    def _tags(self, event: Event, names: Collection[str] = (), status: bool = True) -> list[Refusal]:
        tags = {name: str(value)[:MAX_TAG] for name, value in event["tags"].items()}
        if NOTE in tags and not self._note_is_ours():
            del tags[NOTE]
        return self._log("tags", [RunTag(name, text) for name, text in tags.items()], names)

    def _note_is_ours(self) -> bool:
        """Whether the run's description is one that its journal has given it, and not a person's own."""
        note = self.client.get_run(self.run_id).data.tags.get(NOTE)
        ours = {str(event.get("tags", {}).get(NOTE))[:MAX_TAG] for event in self.folder.events()}
        return note is None or note in ours

    def _log(self, kind: str, items: Iterable[Item], names: Collection[str]) -> list[Refusal]:
        """Log what is named; where a batch is refused, its parts one by one, so that only the bad ones are lost."""
        wanted = [item for item in items if not names or item.key in names]
        refused = []
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            try:
                self.client.log_batch(self.run_id, **{kind: [_with_key(item) for item in chunk]})  # type: ignore[arg-type]
            except MlflowException as error:
                if not is_final(error) or not self.is_open():
                    raise
                refused += [Refusal(chunk[0].key, in_words(error))] if len(chunk) == 1 else self._singly(kind, chunk)
        return refused

    def _singly(self, kind: str, items: list[Item]) -> list[Refusal]:
        return [refusal for item in items for refusal in self._log(kind, [item], [])]

    def is_open(self) -> bool:
        """Whether MLflow has the run, and nobody has deleted it.

        Raises:
            MlflowException: if it does not know the run, or does not answer.
        """
        return bool(self.client.get_run(self.run_id).info.lifecycle_stage == "active")

    def _artifact(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        path = Path(event["path"])
        parent = str(path.parent) if path.parent != Path() else None
        self.client.log_artifact(self.run_id, str(self._there(self.folder.artifacts / path)), parent)
        return []

    def _removal(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        repository: Any = get_artifact_repository(self.client.get_run(self.run_id).info.artifact_uri)
        repository.delete_artifacts(event["path"])
        return []

    def _model(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        network, example = (self._there(self.folder.path / event[name]) for name in ("network", "example"))
        spec = DataSpec.from_json(event["spec"]) if event.get("spec") else MNIST
        model_id = log_model.log_model(self.client, self.run_id, network, example, spec)
        if name := event["model_name"]:
            tags = {**event["tags"], "run_id": self.run_id}
            words = event.get("description", "")
            self.versions[name] = log_model.register(
                self.client, name, self.run_id, model_id, tags, words, spec.in_words()
            )
        return []

    @staticmethod
    def _there(path: Path) -> Path:
        if not path.exists():
            raise FileNotFoundError(f"{path.name} is no longer in the run's folder")
        return path

    def _resume(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        if status:
            self.client.update_run(self.run_id, RunStatus.to_string(RunStatus.RUNNING))
        return self._tags(event, names)

    def _end(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        if status:
            self.close(event, event["status"])
        return self._tags(event, names)

    def close(self, event: Event, status: str) -> None:
        """Give the run its last status, with the time of the event that ended it."""
        self.client.set_terminated(self.run_id, status, event["time"])


def _metrics_of(event: Event) -> list[Metric]:
    return [Metric(name, value, event["time"], event["step"]) for name, value in event["values"].items()]


def _with_key(item: Item) -> Any:
    """The item under a name that MLflow takes."""
    key = key_of(item.key)
    return item if key == item.key else type(item)(**{**dict(item), "key": key})


def _is_random_name(name: str | None) -> bool:
    """Whether MLflow made the name up (`gregarious-shrike-301`) because nobody gave one."""
    return re.fullmatch(r"[a-z]+-[a-z]+-\d{1,3}", name or "") is not None
