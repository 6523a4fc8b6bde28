"""Which version a person means: by number, as the newest, or by the run that made it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipeline.config import RunConfig
from pipeline.config.signatures import knobs_of
from pipeline.mlflow_client import searches
from pipeline.redaction import without_secrets
from pipeline.registry import log_model
from pipeline.registry.tags import version_tags
from pipeline.registry.versions import CHAMPION, UnknownModelError, version_by_alias
from pipeline.terminal.shell import command
from pipeline.tracking.folders import find_folder


@dataclass(frozen=True)
class Entry:
    """A version, or on a dry run a run's model that has none yet."""

    version: str
    run_id: str
    uri: str
    tags: dict[str, str]
    source: str = ""  # where the model lies, the same before and after it is registered


def find(client: mlflow.MlflowClient, target: str, name: str, runs_dir: str, *, dry_run: bool) -> Entry:
    """What the target means.

    Raises:
        UnknownModelError: with what there is instead.
    """
    entries = searches.versions(client, name)
    if target == "newest" or target.isdigit():
        found = [each for each in entries if target in ("newest", str(each.version))]
        if not found:
            if not entries:
                version_by_alias(client, name, CHAMPION)  # says what models there are
            known = ", ".join(str(each.version) for each in entries) or "none"
            raise UnknownModelError(f"model {name} has no version {target} (versions: {known})")
        return of_version(found[-1])
    run = _run_of(client, target, runs_dir)
    entry = log_model.version_of_run(client, name, run.info.run_id)
    if entry is None:
        return _of_run(client, name, run, dry_run=dry_run)
    return of_version(entry)


def of_version(entry: Any) -> Entry:
    """The registry's entry of a version."""
    return Entry(
        str(entry.version), entry.run_id, f"models:/{entry.name}/{entry.version}", dict(entry.tags), entry.source or ""
    )


def _run_of(client: mlflow.MlflowClient, target: str, runs_dir: str) -> Any:
    if run := searches.run_of_id(client, target):
        return run
    folder = find_folder(runs_dir, target)
    state = folder.state()
    deliver = command("sync", folder.path.name, runs_dir=runs_dir)
    if not state.get("run_id"):
        raise UnknownModelError(f"MLflow has not heard of run {target} yet; {deliver} delivers it")
    if run := searches.run_of_id(client, state["run_id"]):
        return run
    here, there = without_secrets(mlflow.get_tracking_uri()), without_secrets(str(state.get("tracking_uri")))
    raise UnknownModelError(f"run {target} was recorded in {there}; {here} does not have it: set MLFLOW_TRACKING_URI")


def _of_run(client: mlflow.MlflowClient, name: str, run: Any, *, dry_run: bool) -> Entry:
    """A run whose model has no version yet, an experiment's for example: it gets one."""
    run_id = run.info.run_id
    models = searches.logged_models(client, run.info.experiment_id, run_id)
    if not models:
        raise UnknownModelError(f"run {run_id} ({run.info.run_name}, {run.info.status}) has no model")
    model_id = models[0].model_id
    inputs = run.inputs.dataset_inputs
    tags = version_tags(
        test_accuracy=run.data.metrics.get("test_accuracy"),
        dataset=run.data.params.get("data_name") or run.data.params.get("dataset", ""),
        data_digest=inputs[0].dataset.digest if inputs else "",
        data=_data_knobs(run.data.params),
        knobs=run.data.params,
        parent=run.data.tags.get(MLFLOW_PARENT_RUN_ID, ""),
    )
    source = f"models:/{model_id}"
    if dry_run:
        return Entry("(new)", run_id, source, tags, source)
    version = log_model.register(client, name, run_id, model_id, {**tags, "run_id": run_id})
    return Entry(version, run_id, f"models:/{name}/{version}", tags, source)


def _data_knobs(params: Mapping[str, str]) -> dict[str, Any]:
    """The knobs by which the run read its data, of its params."""
    if "dataset" not in params:
        return {}
    names = ("dataset", "data_dir", "data_name", *knobs_of(params["dataset"]))
    return RunConfig.from_mapping({name: params[name] for name in names if name in params}).data_knobs()
