"""What each event of a run's journal is in MLflow: written so that it may be written again, whatever became of it."""

import contextlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils import mlflow_tags

from pipeline.data_spec import MNIST, DataSpec
from pipeline.delivery.keys import key_of, texts_of, with_key
from pipeline.delivery.opening import RUN_KEY, Known, Opening
from pipeline.mlflow_client.errors import in_words, is_final
from pipeline.registry import log_model
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.lines import LOST, Event, as_text

CHUNK = 100
NOTE = mlflow_tags.MLFLOW_RUN_NOTE  # the description, which people edit in the UI
KINDS = ("start", "parent", "dataset", "params", "metrics", "tags", "artifact", "removal", "model", "resume", "end")
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
        known: what this process has learned of the server.
        is_new: whether nobody can have created the run yet, so that it is not looked for.
    """

    folder: RunFolder
    client: mlflow.MlflowClient
    run_id: str = ""
    experiment_id: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    is_new: bool = False
    _is_alone: bool = False  # created at the first attempt that there ever was, which was answered: it has no doubles
    _model_is_new: bool = False
    _has_just_begun: bool = False  # nobody can have edited its description

    def write(self, event: Event, names: Collection[str] = (), status: bool = True) -> list[Refusal]:
        """Write an event, or of its params, metrics and tags those of the given names; returns what is refused of them.

        Args:
            event: any event of the journal.
            names: none: all of it.
            status: whether the run's status is to follow the event's.

        Raises:
            Exception: if it is refused as a whole, or for now: MLflow's, or whatever the artifact store raises.
            FileNotFoundError: if a file that it speaks of is no longer in the folder.
        """
        kind = event["kind"]
        if kind == LOST:  # damaged in the journal; whoever delivers says so
            return []
        if gone := self.gone(event):
            raise FileNotFoundError(gone)
        if kind not in KINDS:
            return [Refusal(kind, "a kind of record that this version of the pipeline does not know")]
        return getattr(self, f"_{kind}")(event, names, status)  # type: ignore[no-any-return]

    def _start(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        params, tags, missing = self._begin(event)
        names = {*names, mlflow_tags.MLFLOW_PARENT_RUN_ID} if PARENT in names else names
        refused = self._log("params", params, names)
        refused += self._log("tags", [RunTag(name, text) for name, text in tags.items()], names)
        return refused + (missing if not names or PARENT in names else [])

    def _begin(self, event: Event) -> tuple[list[Param], dict[str, str], list[Refusal]]:
        """Have the run, found or created; returns what of its start it lacks, and why it is not nested."""
        parent, missing = self._parent_link(event)
        tags = {**event["tags"], **parent, RUN_KEY: event["run_key"]}
        found = self.run_id or event["mlflow_run_id"] or (None if self.is_new else self._opening.find(event))
        self._has_just_begun = not found
        if found:
            run = self.client.get_run(found)
        else:
            run = self._opening.create(event, {key_of(name): text for name, text in texts_of(tags).items()})
            self._is_alone = self._model_is_new = self.is_new
        self.run_id, self.experiment_id = str(found or run.info.run_id), str(run.info.experiment_id)
        if event["mlflow_run_id"]:
            tags = {name: value for name, value in tags.items() if not name.startswith("mlflow.source.")}
            if not _is_random_name(run.info.run_name):
                tags.pop(mlflow_tags.MLFLOW_RUN_NAME, None)
        self._opening.show_as_training(self.experiment_id)
        params = [param for param in _params_of(event) if key_of(param.key) not in run.data.params]
        lacking = {name: text for name, text in texts_of(tags).items() if run.data.tags.get(key_of(name)) != text}
        if NOTE in lacking and not self._is_ours(run.data.tags.get(NOTE)):
            del lacking[NOTE]
        return params, lacking, missing

    @property
    def _opening(self) -> Opening:
        return Opening(self.client, self.known)

    def remove_doubles(self, event: Event) -> None:
        """Delete the empty runs that answers which came too late have left beside the run, if there can be any."""
        if not self._is_alone:
            self._opening.remove_doubles(self.run_id, self.experiment_id, event["run_key"])

    def _parent(self, event: Event, names: Collection[str], status: bool = True) -> list[Refusal]:
        """Nest the run under the one whose folder lies beside its own, once MLflow has that."""
        parent, missing = self._parent_link(event)
        return missing + self._tags({"tags": parent})

    def _parent_link(self, event: Event) -> tuple[dict[str, str], list[Refusal]]:
        """The tag that nests the run, or why there is none yet."""
        if not event.get("parent"):
            return {}, []
        parent = RunFolder(self.folder.path.parent / event["parent"])
        if run_id := parent.state().get("run_id"):
            return {mlflow_tags.MLFLOW_PARENT_RUN_ID: run_id}, []
        missing = "comes first" if parent.started() else "is not beside its folder"
        reason = f"the record of {event['parent']}, which this run belongs to, {missing}"
        return {}, [Refusal(PARENT, reason, False)]

    def _dataset(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        inputs = [
            DatasetInput(Dataset(**each["dataset"]), [InputTag(mlflow_tags.MLFLOW_DATASET_CONTEXT, each["context"])])
            for each in event["inputs"]
        ]
        self.client.log_inputs(self.run_id, inputs)
        return []

    def _params(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        return self._log("params", _params_of(event), names)

    def _metrics(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        return self._log("metrics", _metrics_of(event), names)

    def write_together(self, events: Iterable[Event]) -> list[Refusal]:
        """Write the params, metrics and tags of several events in one request; returns what is refused of a start.

        Raises:
            MlflowException: if any of it is refused, or all for now.
        """
        params: dict[tuple[str, str], Param] = {}
        tags: dict[str, str] = {}
        metrics: list[Metric] = []
        refused: list[Refusal] = []
        self._has_just_begun = False
        for event in events:
            if event["kind"] == "start":
                first, tags, refused = self._begin(event)
            else:
                first = _params_of(event)
                tags |= texts_of(event.get("tags", {}))
            params |= {(param.key, param.value): param for param in first}
            metrics += _metrics_of(event)
        if NOTE in tags and not self._has_just_begun and not self._note_is_ours():
            del tags[NOTE]
        texts = [RunTag(name, text) for name, text in tags.items()]
        items: dict[str, Collection[Item]] = {"metrics": metrics, "params": params.values(), "tags": texts}
        if wanted := {kind: [with_key(item) for item in some] for kind, some in items.items() if some}:
            self.client.log_batch(self.run_id, **wanted)  # type: ignore[arg-type]
        return refused

    def _tags(self, event: Event, names: Collection[str] = (), status: bool = True) -> list[Refusal]:
        tags = texts_of(event["tags"])
        if NOTE in tags and not self._note_is_ours():
            del tags[NOTE]
        return self._log("tags", [RunTag(name, text) for name, text in tags.items()], names)

    def _note_is_ours(self) -> bool:
        """Whether the run's description is one that its journal has given it, and not a person's own."""
        return self._is_ours(self.client.get_run(self.run_id).data.tags.get(NOTE))

    def _is_ours(self, note: str | None) -> bool:
        return note is None or note in {texts_of(event.get("tags", {})).get(NOTE) for event in self.folder.events()}

    def _log(self, kind: str, items: Iterable[Item], names: Collection[str]) -> list[Refusal]:
        """Log what is named; where a batch is refused, its parts one by one, so that only the bad ones are lost."""
        wanted = [item for item in items if not names or item.key in names]
        refused = []
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            try:
                self.client.log_batch(self.run_id, **{kind: [with_key(item) for item in chunk]})  # type: ignore[arg-type]
            except MlflowException as error:
                if not is_final(error) or not self.is_open():
                    raise
                if len(chunk) == 1:
                    refused.append(Refusal(chunk[0].key, in_words(error)))
                else:
                    refused += [refusal for item in chunk for refusal in self._log(kind, [item], [])]
        return refused

    def is_open(self) -> bool:
        """Whether MLflow has the run, and nobody has deleted it.

        Raises:
            MlflowException: if it does not know the run, or does not answer.
        """
        return bool(self.client.get_run(self.run_id).info.lifecycle_stage == "active")

    def _artifact(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        path = Path(event["path"])
        parent = str(path.parent) if path.parent != Path() else None
        self.client.log_artifact(self.run_id, str(self.folder.artifacts / path), parent)
        return []

    def _removal(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        repository: Any = get_artifact_repository(self.client.get_run(self.run_id).info.artifact_uri)
        with contextlib.suppress(NotImplementedError):  # a store that never deletes keeps what it has
            repository.delete_artifacts(event["path"])
        return []

    def _model(self, event: Event, names: Collection[str], status: bool) -> list[Refusal]:
        network, example = self._files_of(event)
        spec = DataSpec.from_json(event["spec"]) if event.get("spec") else MNIST
        is_new, self._model_is_new = self._model_is_new, False
        model_id = log_model.log_model(
            self.client, self.run_id, network, example, spec, self.experiment_id, is_new=is_new
        )
        if name := event["model_name"]:
            tags = {**event["tags"], "run_id": self.run_id}
            words = event.get("description", "")
            self.versions[name] = log_model.register(
                self.client,
                name,
                self.run_id,
                model_id,
                tags,
                words,
                spec.in_words(),
                self.known.registered,
                is_new=is_new,
            )
        return []

    def _files_of(self, event: Event) -> list[Path]:
        if event["kind"] == "artifact":
            return [self.folder.artifacts / event["path"]]
        return [self.folder.path / event[name] for name in ("network", "example") if name in event]

    def gone(self, event: Event) -> str:
        """That a file which the event speaks of is no longer in the folder; empty if all are."""
        for path in self._files_of(event):
            try:
                path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return f"{path.name} is no longer in the run's folder"
            except OSError:  # it may be there
                continue
        return ""

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
    return [Metric(name, value, event["time"], event["step"]) for name, value in event.get("values", {}).items()]


def _params_of(event: Event) -> list[Param]:
    return [Param(name, as_text(value)) for name, value in event.get("params", {}).items()]


def _is_random_name(name: str | None) -> bool:
    """Whether MLflow made the name up (`gregarious-shrike-301`) because nobody gave one."""
    return re.fullmatch(r"[a-z]+-[a-z]+-\d{1,3}", name or "") is not None
