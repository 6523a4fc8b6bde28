"""Where MLflow's UI shows the list of runs, with loss and accuracy as columns; `make ui` prints it."""

import json
import sys
from typing import Any
from urllib.parse import quote

from pipeline.mlflow_client.tracking_uri import default_uri
from pipeline.terminal.shell import DONE
from pipeline.tracking.folders import all_folders

HOST, PORT = "127.0.0.1", 5000
# MLflow's own shared view: a tag of the experiment that the UI reads when an address names its key.
VIEW = "loss-and-accuracy"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
COLUMNS = ("val_accuracy", "val_loss", "train_accuracy", "train_loss", "test_accuracy")
VIEW_STATE = json.dumps({"selectedColumns": [f"metrics.`{name}`" for name in COLUMNS]})


def share_view(client: Any, experiment_id: str, tags: dict[str, str]) -> None:
    """Put the view on the experiment, unless it is there; `tags` are those that the experiment has."""
    if tags.get(VIEW_TAG) != VIEW_STATE:
        client.set_experiment_tag(experiment_id, VIEW_TAG, VIEW_STATE)


def run_list(address: str, experiment_id: str) -> str:
    """The page of the experiment's runs; without an experiment that of all experiments."""
    if not experiment_id:
        return f"{address.rstrip('/')}/#/experiments"
    where = f"#/experiments/{quote(experiment_id)}/runs"
    return f"{address.rstrip('/')}/{where}?workflowType=machine_learning&viewStateShareKey={VIEW}"


def newest_experiment(runs_dir: str, tracking_uri: str) -> str:
    """The id of the experiment that the newest run delivered to that store belongs to, or nothing."""
    for folder in reversed(all_folders(runs_dir)):
        state = folder.state()
        if state.get("tracking_uri") == tracking_uri and state.get("experiment_id"):
            return str(state["experiment_id"])
    return ""


def main(port: str, runs_dir: str) -> int:
    """Say where the UI of `mlflow.db` here is about to answer."""
    experiment_id = newest_experiment(runs_dir, default_uri())
    print(f"runs       {run_list(f'http://{HOST}:{port}', experiment_id)}\n", flush=True)
    return DONE


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
