"""A run's place in MLflow: its experiment and itself, created once, or found again by the key that its folder has."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils import mlflow_tags

from pipeline.delivery import ui
from pipeline.mlflow_client import searches
from pipeline.mlflow_client.connection import once, remember_place
from pipeline.mlflow_client.errors import is_final
from pipeline.tracking.lines import Event

RUN_KEY = "pipeline.run"
KIND = "mlflow.experimentKind"


@dataclass
class Known:
    """What MLflow has answered; whoever is refused by it forgets the part that may have changed.

    Attributes:
        since: when this process began to deliver, in milliseconds: of a run that began later nobody else has sent
            anything, unless its state says so. None: nothing is known of that.
        experiments: name -> id.
        shown: ids of the experiments that MLflow's UI opens as a training's.
        registered: names of models that the registry has.
        silent_stores: id of an experiment -> why its artifact store, which keeps all waiting, is asked no more.
    """

    since: int | None = None
    experiments: dict[str, str] = field(default_factory=dict)
    shown: set[str] = field(default_factory=set)
    registered: set[str] = field(default_factory=set)
    silent_stores: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Opening:
    """Opens runs in MLflow, with what is known of it."""

    client: mlflow.MlflowClient
    known: Known

    def show_as_training(self, experiment_id: str) -> None:
        """Let MLflow's UI open the experiment as model training; it would take it for generative AI."""
        if experiment_id in self.known.shown:
            return
        tags = self.client.get_experiment(experiment_id).tags
        if KIND not in tags:
            self.client.set_experiment_tag(experiment_id, KIND, "custom_model_development")
        ui.share_view(self.client, experiment_id, tags)
        self.known.shown.add(experiment_id)

    def find(self, event: Event) -> str | None:
        """The run that an earlier attempt created before its answer was lost: of several the one that has most."""
        experiment_id = event["experiment_id"]
        if not experiment_id:
            experiment = self.client.get_experiment_by_name(event["experiment_name"])
            if experiment is None:
                return None
            experiment_id = experiment.experiment_id
        found = self.of_key(experiment_id, event["run_key"])
        return str(found[0].info.run_id) if found else None

    def of_key(self, experiment_id: str, run_key: str) -> list[Any]:
        """All runs that were created for this folder, the fullest first."""
        found = searches.runs_tagged(self.client, [experiment_id], RUN_KEY, run_key)
        return sorted(found, key=lambda run: (-len(run.data.params), -len(run.data.metrics), run.info.run_id))

    def remove_doubles(self, run_id: str, experiment_id: str, run_key: str) -> None:
        """Delete the empty runs of the same key beside the run (MLflow can restore them)."""
        experiment_id = experiment_id or self.client.get_run(run_id).info.experiment_id
        for run in self.of_key(experiment_id, run_key):
            if run.info.run_id != run_id and not run.data.params and not run.data.metrics:
                self.client.delete_run(run.info.run_id)

    def create(self, event: Event, tags: Mapping[str, str]) -> Any:
        """Create the run with its tags; with nothing but its key where MLflow does not take one of them."""
        name = event["tags"][mlflow_tags.MLFLOW_RUN_NAME]
        tags = {key: text for key, text in tags.items() if key != mlflow_tags.MLFLOW_RUN_NAME}  # the name says it
        with once():
            experiment_id = event["experiment_id"] or self._experiment(event["experiment_name"])
            try:
                run = self._created(experiment_id, event["time"], tags, name)
            except MlflowException as error:
                self.known.experiments.pop(event["experiment_name"], None)
                if not is_final(error):
                    raise
                run = self._created(experiment_id, event["time"], {RUN_KEY: event["run_key"]}, name)
        # An artifact store whose client is not installed is the files' trouble, not the run's.
        with contextlib.suppress(Exception):
            remember_place(run.info.run_id, run.info.artifact_uri)
        return run

    def _created(self, experiment_id: str, time: int, tags: Mapping[str, str], name: str) -> Any:
        return self.client.create_run(experiment_id, time, dict(tags), run_name=name)

    def _experiment(self, name: str) -> str:
        if name not in self.known.experiments:
            self.known.experiments[name] = self._experiment_named(name)
        return self.known.experiments[name]

    def _experiment_named(self, name: str) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self.client.create_experiment(name))
            except MlflowException as error:
                experiment = self.client.get_experiment_by_name(name)
                if experiment is None or error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        return str(experiment.experiment_id)
