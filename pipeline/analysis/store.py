"""Runs as MLflow has them, read back for a comparison."""

from collections.abc import Sequence
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from pipeline import divergence
from pipeline.addresses import without_secrets
from pipeline.analysis.comparison import Run
from pipeline.mlflow_client import searches
from pipeline.mlflow_client.asking import is_final, is_not_there
from pipeline.mlflow_client.connection import address, connect
from pipeline.mlflow_client.tracking_uri import sqlite_path
from pipeline.values import did_you_mean

MANY_RUNS = 100  # more are compared without their curves
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


class StoreError(ValueError):
    """MLflow's store cannot be asked, or does not have what was asked for."""


def open_store() -> mlflow.MlflowClient:
    """A client of the store that the environment names, or of the file `mlflow.db` here.

    Raises:
        StoreError: if there is no such file: nothing has been recorded here yet.
    """
    uri = address()
    path = sqlite_path(uri)
    if path and not path.exists():
        raise StoreError(
            f"no runs in {without_secrets(uri)}: the file does not exist; "
            "run from the project's folder, or set MLFLOW_TRACKING_URI"
        )
    return connect()


def find_runs(client: mlflow.MlflowClient, words: Sequence[str], filter_text: str = "") -> list[Run]:
    """The runs that the words name, parents of experiments left out.

    Args:
        client: the store.
        words: names of MLflow experiments, run ids or run names; none: every experiment.
        filter_text: MLflow's own filter language, `params.optimizer = 'sgd'`.

    Raises:
        StoreError: if a word names nothing, nothing is found, or the filter is not understood.
    """
    try:
        experiments = {each.name: each.experiment_id for each in searches.experiments(client)}
        chosen = [word for word in words if word in experiments]
        run_words = [word for word in words if word not in experiments]
        ids = [experiments[word] for word in chosen] or list(experiments.values())
        found = [] if run_words and not chosen else searches.runs(client, ids, filter_text)
        for word in run_words:
            found += _named(client, word, list(experiments.values()), experiments)
    except MlflowException as error:
        if not filter_text or not is_final(error):
            raise
        reason = " ".join(str(error).split())
        raise StoreError(f"filter {filter_text!r}: {reason}; write it like params.optimizer = 'sgd'") from None
    runs = {run.info.run_id: run_of(run) for run in found if "question" not in run.data.tags}
    if not runs:
        where = f"in {', '.join(chosen)}" if chosen else "in any experiment"
        matching = f" with {filter_text!r}" if filter_text else ""
        raise StoreError(f"no runs {where}{matching}; experiments here: {', '.join(sorted(experiments))}")
    return list(runs.values())


def _named(client: mlflow.MlflowClient, word: str, ids: list[str], experiments: dict[str, str]) -> list[Any]:
    """The run of that id, or the runs of that name."""
    try:
        return [client.get_run(word)]
    except MlflowException as error:
        if not is_not_there(error):
            raise
    found = searches.runs_named(client, ids, word)
    if not found:
        raise StoreError(
            f"{word!r} is no experiment, run id or run name{did_you_mean(word, experiments)} "
            f"(experiments here: {', '.join(sorted(experiments))})"
        )
    return found


def run_of(run: Any) -> Run:
    """An MLflow run as the comparison takes it, without curves."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    metrics = dict(run.data.metrics)
    tags = dict(run.data.tags)
    if divergence.TAG not in tags and any(not divergence.is_finite(metrics.get(name, 0.0)) for name in CURVES[::2]):
        tags[divergence.TAG] = "?"  # a run of somebody else's, or of an older day
    metrics.setdefault("seconds_per_epoch", metrics.get("epoch_seconds", float("nan")))
    return Run(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        started_ms=run.info.start_time,
        params=run.data.params,
        tags=tags,
        metrics={name: value for name, value in metrics.items() if value == value},
        data=inputs[0].dataset.digest if inputs else "",
        experiment_id=run.info.experiment_id,
    )


def with_curves(client: mlflow.MlflowClient, run: Run) -> Run:
    """The run with its values of every epoch."""
    curves = {
        name: {metric.step: metric.value for metric in client.get_metric_history(run.run_id, name)}
        for name in CURVES
        if name in run.metrics
    }
    return Run(**{**vars(run), "curves": curves})


def parent_of(client: mlflow.MlflowClient, experiment_id: str, name: str) -> Any:
    """The newest run that holds the question of that name, or None."""
    found = searches.runs_tagged(client, [experiment_id], "question", name)
    return found[0] if found else None


def log_comparison(client: mlflow.MlflowClient, run_id: str, folder: str, tags: dict[str, str]) -> None:
    """Put a comparison's files and its answer on the run that holds the question."""
    client.log_artifacts(run_id, folder, "comparison")
    for name, text in tags.items():
        client.set_tag(run_id, name, text)


def ui_link() -> str:
    """Where MLflow's UI answers: the server itself, or `make ui` for a file."""
    uri = without_secrets(mlflow.get_tracking_uri())
    return uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"


def all_with_curves(client: Any, runs: list[Run]) -> list[Run]:
    """The runs with their curves; without, if they are many: each would cost MLflow four requests."""
    return [with_curves(client, run) for run in runs] if len(runs) <= MANY_RUNS else runs
