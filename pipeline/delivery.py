"""The way from the run's folder to MLflow: in order, each event once, for as long as it takes."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils import mlflow_tags

from pipeline import registry
from pipeline.addresses import without_secrets
from pipeline.record import Event, RunFolder

RUN_KEY = "pipeline.run"
KIND = "mlflow.experimentKind"
CHUNK = 100
FINAL_4XX = {400, 401, 403, 404, 405, 409, 413, 422}


class ParentIsMissingError(RuntimeError):
    """MLflow has not heard yet of the run that this one belongs to."""


class LostStartError(RuntimeError):
    """The event that opens the run is lost, and MLflow has no run for it yet."""


@dataclass
class Delivery:
    """Carries one run's journal to MLflow; what is done stands in the folder's state, so that it can stop anywhere.

    Attributes:
        delivered: number of events that MLflow has.
        refused: what MLflow refused for good, in words.
    """

    folder: RunFolder
    client: mlflow.MlflowClient
    run_id: str = ""
    delivered: int = 0
    refused: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take up where the folder's state says."""
        state = self.folder.state()
        self.run_id = state.get("run_id", "")
        self.delivered = state.get("delivered", 0)
        self.refused = state.get("refused", [])
        self.versions = state.get("versions", {})

    @property
    def tracking_uri(self) -> str:
        """Where it goes, as it may be told."""
        return without_secrets(mlflow.get_tracking_uri())

    def deliver(self) -> None:
        """Deliver every event that the journal has.

        Raises:
            Exception: whatever the tracking server or the network gives as a reason to try again later.
        """
        events = self.folder.events()
        self.delivered = min(self.delivered, len(events))
        for event in events[self.delivered :]:
            try:
                getattr(self, f"_{event['kind']}")(event)
            except MlflowException as error:
                if not _is_final(error) or event["kind"] == "start":
                    raise
                self.refused.append(without_secrets(f"{event['kind']}: {str(error).splitlines()[0]}"))
            self.delivered += 1
            self._save()

    def _save(self) -> None:
        """Write down how far it is; what was in the way is so no more."""
        self.folder.write_state(
            {
                "run_id": self.run_id,
                "delivered": self.delivered,
                "refused": self.refused,
                "versions": self.versions,
                "tracking_uri": self.tracking_uri,
                "trouble": None,
            }
        )

    def _start(self, event: Event) -> None:
        self.run_id = self.run_id or event["mlflow_run_id"] or self._find(event) or self._create(event)
        run = self.client.get_run(self.run_id)
        params = [Param(name, str(value)) for name, value in event["params"].items() if name not in run.data.params]
        tags = {**event["tags"], RUN_KEY: event["run_key"]}
        if event["mlflow_run_id"]:
            tags = {name: value for name, value in tags.items() if not name.startswith("mlflow.source.")}
            if not _is_random_name(run.info.run_name):
                tags.pop(mlflow_tags.MLFLOW_RUN_NAME, None)
        self._show_as_training(run.info.experiment_id)
        for start in range(0, len(params), CHUNK):
            self.client.log_batch(self.run_id, params=params[start : start + CHUNK])
        self._tags({"tags": tags})
        if event.get("parent"):
            self._parent(event)

    def _parent(self, event: Event) -> None:
        """Nest the run under the one whose folder lies beside its own, once MLflow has that."""
        parent = self.folder.path.parent / event["parent"]
        run_id = RunFolder(parent).state().get("run_id")
        if not run_id:
            raise ParentIsMissingError(f"the record of {parent.name}, which this run belongs to, comes first")
        self._tags({"tags": {mlflow_tags.MLFLOW_PARENT_RUN_ID: run_id}})

    def _show_as_training(self, experiment_id: str) -> None:
        """Let MLflow's UI open the experiment as model training; it would take it for generative AI."""
        if KIND not in self.client.get_experiment(experiment_id).tags:
            self.client.set_experiment_tag(experiment_id, KIND, "custom_model_development")

    def _find(self, event: Event) -> str | None:
        """The run that an earlier attempt created before its answer was lost."""
        experiment = (
            self.client.get_experiment_by_name(event["experiment_name"]) if not event["experiment_id"] else None
        )
        experiment_id = event["experiment_id"] or (experiment.experiment_id if experiment else None)
        if experiment_id is None:
            return None
        found = self.client.search_runs([experiment_id], f"tags.`{RUN_KEY}` = '{event['run_key']}'", max_results=1)
        return found[0].info.run_id if found else None

    def _create(self, event: Event) -> str:
        experiment_id = event["experiment_id"] or self._experiment(event["experiment_name"])
        name = event["tags"][mlflow_tags.MLFLOW_RUN_NAME]
        run = self.client.create_run(experiment_id, event["time"], {RUN_KEY: event["run_key"]}, run_name=name)
        return str(run.info.run_id)

    def _experiment(self, name: str) -> str:
        try:
            return str(self.client.create_experiment(name))
        except MlflowException as error:
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None or error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(experiment.experiment_id)

    def _lost(self, event: Event) -> None:
        """Nothing: the record is damaged in the journal; whoever delivers says so."""
        if not self.run_id:
            raise LostStartError("its first record, which says what run this is, is damaged: it cannot be delivered")

    def _dataset(self, event: Event) -> None:
        inputs = [
            DatasetInput(Dataset(**each["dataset"]), [InputTag(mlflow_tags.MLFLOW_DATASET_CONTEXT, each["context"])])
            for each in event["inputs"]
        ]
        self.client.log_inputs(self.run_id, inputs)

    def _metrics(self, event: Event) -> None:
        metrics = [Metric(name, value, event["time"], event["step"]) for name, value in event["values"].items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def _tags(self, event: Event) -> None:
        tags = [RunTag(name, str(value)[:8000]) for name, value in event["tags"].items()]
        for start in range(0, len(tags), CHUNK):
            self.client.log_batch(self.run_id, tags=tags[start : start + CHUNK])

    def _artifact(self, event: Event) -> None:
        path = Path(event["path"])
        parent = str(path.parent) if path.parent != Path() else None
        self.client.log_artifact(self.run_id, str(self.folder.artifacts / path), parent)

    def _model(self, event: Event) -> None:
        root = self.folder.path
        model_id = registry.log_model(self.client, self.run_id, root / event["network"], root / event["example"])
        if event["model_name"]:
            version = registry.register(
                self.client,
                event["model_name"],
                self.run_id,
                model_id,
                {**event["tags"], "run_id": self.run_id},
            )
            self.versions[event["model_name"]] = version

    def _resume(self, event: Event) -> None:
        self.client.update_run(self.run_id, RunStatus.to_string(RunStatus.RUNNING))
        self._tags(event)

    def _end(self, event: Event) -> None:
        status, tags = event["status"], dict(event["tags"])
        if self.refused:
            tags["pipeline.refused"] = "; ".join(self.refused)
            if status == "FINISHED":
                status, tags["failure_reason"] = (
                    "FAILED",
                    "MLflow refused a part of the record, see pipeline.refused",
                )
        self._tags({"tags": tags})
        self.client.set_terminated(self.run_id, status, event["time"])


def _is_final(error: MlflowException) -> bool:
    """Whether the server refuses this for good, rather than for now."""
    status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
    return status in FINAL_4XX


def _is_random_name(name: str | None) -> bool:
    """Whether MLflow made the name up (`gregarious-shrike-301`) because nobody gave one."""
    return re.fullmatch(r"[a-z]+-[a-z]+-\d{1,3}", name or "") is not None
