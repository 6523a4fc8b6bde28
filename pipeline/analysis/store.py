"""Finding in MLflow what is to be compared: runs, their curves, and the question that they answer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from pipeline.analysis import runs
from pipeline.comparing.groups import Run
from pipeline.mlflow_client import searches
from pipeline.mlflow_client.errors import is_refusal
from pipeline.recording.resuming import QUESTION
from pipeline.values import did_you_mean

MANY_RUNS = 100  # more are compared without their curves: each would cost MLflow four requests
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


def find_runs(client: mlflow.MlflowClient, words: Sequence[str], filter_text: str = "") -> list[Run]:
    """The runs that the words name, parents of experiments left out.

    Args:
        client: the store.
        words: names of MLflow experiments, run ids or run names; none: every experiment.
        filter_text: MLflow's own filter language, `params.optimizer = 'sgd'`.

    Raises:
        ValueError: if a word names nothing, nothing is found, or the filter is not understood.
    """
    try:
        experiments = {each.name: each.experiment_id for each in searches.experiments(client)}
        chosen = [word for word in words if word in experiments]
        ids = [experiments[word] for word in chosen] or list(experiments.values())
        found = searches.runs(client, ids, filter_text) if chosen or not words else []
        for word in words:
            if word not in experiments:
                found += _named(client, word, experiments)
    except MlflowException as error:
        if not filter_text or not is_refusal(error):
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"filter {filter_text!r}: {reason}; write it like params.optimizer = 'sgd'") from None
    by_id = {run.info.run_id: runs.of_mlflow(run) for run in found if QUESTION not in run.data.tags}
    if not by_id:
        where = f"in {', '.join(chosen)}" if chosen else "in any experiment"
        matching = f" with {filter_text!r}" if filter_text else ""
        raise ValueError(f"no runs {where}{matching}; experiments here: {', '.join(sorted(experiments))}")
    return list(by_id.values())


def _named(client: mlflow.MlflowClient, word: str, experiments: Mapping[str, str]) -> list[Any]:
    """The run of that id, or the runs of that name."""
    if run := searches.run_of_id(client, word):
        return [run]
    found = searches.runs_named(client, list(experiments.values()), word)
    if not found:
        raise ValueError(
            f"{word!r} is no experiment, run id or run name{did_you_mean(word, experiments)} "
            f"(experiments here: {', '.join(sorted(experiments))})"
        )
    return found


def with_curves(client: mlflow.MlflowClient, found: list[Run], most: float = MANY_RUNS) -> list[Run]:
    """The runs with their values of every epoch, if they are not too many."""
    if len(found) > most:
        return found
    return [replace(run, curves=_curves(client, run)) for run in found]


def _curves(client: mlflow.MlflowClient, run: Run) -> dict[str, dict[int, float]]:
    names = [name for name in CURVES if name in run.metrics]
    return {name: {each.step: each.value for each in client.get_metric_history(run.run_id, name)} for name in names}


def parents_of(client: mlflow.MlflowClient, experiment_id: str, name: str) -> list[Any]:
    """The runs that hold a question of that name, the newest first; a store may have those of several folders."""
    return searches.runs_tagged(client, [experiment_id], QUESTION, name)
