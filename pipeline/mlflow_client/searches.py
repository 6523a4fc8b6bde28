"""Searches in MLflow whose values may hold anything, and that give every page of their answer.

MLflow's filter language knows no escapes: a value stands in single or in double quotes, and is taken as it stands. What
fits in neither is not put into the filter but looked for among all that there is.
"""

from collections.abc import Callable
from typing import Any

import mlflow
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from pipeline.mlflow_client.errors import is_not_there

PAGE = 1000


def condition(field: str, value: str) -> str:
    """`field = 'value'`, or nothing where no filter can say it."""
    if "\\" in value or "\0" in value:
        return ""
    quote = next((mark for mark in ("'", '"') if mark not in value), "")
    return f"{field} = {quote}{value}{quote}" if quote and value else ""


def _all(conditions: list[str]) -> str:
    return " and ".join(filter(None, conditions))


def every_page(search: Callable[..., Any], *words: Any, **options: Any) -> list[Any]:
    """What a search of MLflow's client gives, page after page."""
    found: list[Any] = []
    token = None
    while True:
        page = search(*words, **options, max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def versions(client: mlflow.MlflowClient, name: str, run_id: str = "") -> list[Any]:
    """The model's versions, those of one run if it is given, oldest first."""
    conditions = [condition("name", name), condition("run_id", run_id)]
    found = every_page(client.search_model_versions, filter_string=_all(conditions) or None)
    mine = [each for each in found if each.name == name and (not run_id or each.run_id == run_id)]
    return sorted(mine, key=lambda each: int(each.version))


def models(client: mlflow.MlflowClient) -> list[Any]:
    """Every registered model."""
    return every_page(client.search_registered_models)


def experiments(client: mlflow.MlflowClient) -> list[Any]:
    """Every experiment that is not deleted."""
    return every_page(client.search_experiments)


def runs(client: mlflow.MlflowClient, experiment_ids: list[str], filter_text: str = "") -> list[Any]:
    """Every run of the experiments that passes MLflow's filter, newest first."""
    return every_page(client.search_runs, experiment_ids, filter_text, ViewType.ACTIVE_ONLY)


def run_of_id(client: mlflow.MlflowClient, run_id: str) -> Any:
    """The run, or None if MLflow says that it has none of that id."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not is_not_there(error):
            raise
    return None


def runs_named(client: mlflow.MlflowClient, experiment_ids: list[str], name: str) -> list[Any]:
    """The runs of that name."""
    found = runs(client, experiment_ids, condition("attributes.run_name", name))
    return [run for run in found if run.info.run_name == name]


def runs_tagged(client: mlflow.MlflowClient, experiment_ids: list[str], tag: str, value: str) -> list[Any]:
    """The runs with that tag, newest first."""
    found = runs(client, experiment_ids, condition(f"tags.`{tag}`", value))
    return [run for run in found if run.data.tags.get(tag) == value]


def logged_models(client: mlflow.MlflowClient, experiment_id: str, run_id: str) -> list[Any]:
    """The models that the run has logged."""
    found = every_page(
        client.search_logged_models, [experiment_id], filter_string=condition("source_run_id", run_id) or None
    )
    return [model for model in found if model.source_run_id == run_id]
