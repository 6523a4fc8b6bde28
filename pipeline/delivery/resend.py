"""A record sent elsewhere than it was meant to go, or once more as a new run: `sync --experiment_name`, `--as-new`."""

import uuid

from filelock import FileLock, Timeout

from pipeline.mlflow_client import searches
from pipeline.mlflow_client.connection import connect
from pipeline.mlflow_client.errors import asking
from pipeline.mlflow_client.naming import experiment_problem
from pipeline.mlflow_client.tracking_uri import store_of
from pipeline.redaction import address_without_secrets
from pipeline.terminal.shell import command, shown
from pipeline.tracking.folders import all_folders
from pipeline.tracking.journal import Journal, RunFolder, RunIsAliveError
from pipeline.tracking.uploader import DELIVERING, DELIVERING_PATIENCE_S


def send_elsewhere(folders: list[RunFolder], experiment_name: str, as_new: bool) -> list[RunFolder]:
    """Let the next delivery of the runs go to another experiment, or begin anew; returns all that are to be delivered.

    With an experiment's own run go its runs: those that MLflow still has are nested under the new one, the others are
    sent anew as well.

    Args:
        folders: the runs.
        experiment_name: where to; empty: where they were meant to go.
        as_new: forget the runs that MLflow has, or had.

    Raises:
        ValueError: if a run is alive, or MLflow has it and it is not to be sent anew; nothing is changed then.
    """
    if experiment_name and (problem := experiment_problem(experiment_name)):
        raise ValueError(f"experiment_name {experiment_name!r} {problem}")
    children = [child for folder in folders for child in children_of(folder)] if as_new else []
    known = {folder.path for folder in folders}
    children = [child for child in children if child.path not in known]
    for folder in [*folders, *children]:
        if folder.is_alive():
            raise RunIsAliveError(f"run {folder.path.name} is still running; end it before it is sent elsewhere")
        run_id = folder.state().get("run_id")
        if run_id and not as_new:
            again = command(
                "sync", folder.path.name, "--as-new", runs_dir=folder.path.parent, experiment_name=experiment_name
            )
            raise ValueError(f"MLflow has run {folder.path.name} already, as {run_id}; all of it as a new run: {again}")
    for folder in folders:
        _redirect(folder, experiment_name, as_new)
    for child in children:
        if experiment_name or not _is_there(child):
            _redirect(child, experiment_name, as_new)
        else:
            journal = Journal(child)
            journal.append("parent", parent=parent_of(child))
            journal.close()
    return [*folders, *children]


def parent_of(folder: RunFolder) -> str:
    """The name of the folder of the run that this one belongs to, or nothing."""
    return next((str(each["parent"]) for each in reversed(folder.events()) if each.get("parent")), "")


def children_of(folder: RunFolder) -> list[RunFolder]:
    """The runs of an experiment's own run, which lie beside it."""
    beside = all_folders(folder.path.parent)
    return [each for each in beside if each.path != folder.path and parent_of(each) == folder.path.name]


def _is_there(folder: RunFolder) -> bool:
    """Whether MLflow has the run, not deleted."""
    state = folder.state()
    if not state.get("run_id"):
        return False
    with asking():
        run = searches.run_of_id(connect(store_of(state)), state["run_id"])
    return run is not None and run.info.lifecycle_stage == "active"


def _redirect(folder: RunFolder, experiment_name: str, as_new: bool) -> None:
    """Write into the folder's state where its record goes from now on; `Delivery` reads it.

    A new run has a key of its own, else the old one would be found by it.
    """
    before = folder.state()
    uri = address_without_secrets(store_of(before))
    elsewhere = dict(before.get("elsewhere", {}))
    if as_new:
        elsewhere["run_key"] = uuid.uuid4().hex
    if experiment_name:
        elsewhere["experiment_name"] = experiment_name
    elsewhere["keep_experiment_id"] = not experiment_name and uri == before.get("tracking_uri", uri)
    try:
        with FileLock(folder.path / DELIVERING, timeout=DELIVERING_PATIENCE_S):
            folder.write_state({"tracking_uri": uri, "elsewhere": elsewhere})
    except Timeout:
        raise RunIsAliveError(f"run {folder.path.name} is being delivered by another process; try again") from None
    except OSError as error:
        raise ValueError(f"{shown(folder.path)} cannot be written ({error.strerror})") from None
    was = before.get("run_id")
    where = f" in experiment {experiment_name!r}" if experiment_name else ""
    print(f"{shown(folder.path)}: sent{' as a new run' if as_new else ''}{where}" + f", {was} is forgotten" * bool(was))
