"""The connection to MLflow: a client that is quiet and does not wait long."""

import contextlib
import importlib
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking._tracking_service import utils
from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

from pipeline.files import replaced_whole
from pipeline.mlflow_client.preflight import check_addresses
from pipeline.mlflow_client.tracking_uri import absolute, default_uri, is_sqlite, sqlite_path, sqlite_uri
from pipeline.redaction import without_secrets

RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
PLACES = 64  # of so many runs and models is remembered where their files lie
FIRST_TIMEOUT_S, LONGEST_TIMEOUT_S = 10, 80
QUIET_AND_IMPATIENT = {
    RETRIES: "0",
    TIMEOUT: str(FIRST_TIMEOUT_S),
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def import_store() -> None:
    """Import what `connect` will need, a second's worth, without touching the store."""
    if is_sqlite(address()):
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
        importlib.import_module("mlflow.store.model_registry.sqlalchemy_store")


def address() -> str:
    """Where the records go: what MLflow has been told, else our own default, whatever lies in the folder."""
    told = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    return absolute(mlflow.get_tracking_uri()) if told else default_uri()


def connect(uri: str | None = None, *, looking_for: str = "") -> mlflow.MlflowClient:
    """A client of the tracking server. MLflow's own retries are cut short: the uploader has its own.

    For who only looks for something, `runs` or `models`, no database is made, and what MLflow could never open is told
    as before a training.

    Raises:
        ValueError: if there is no file in which that could be, or the address is known to be wrong.
    """
    uri = uri or address()
    if looking_for:
        check_addresses(uri)
    for name, value in QUIET_AND_IMPATIENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback for each locked database
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")
    mlflow.set_tracking_uri(uri)
    _take_credentials_out()
    for store in {mlflow.get_tracking_uri(), mlflow.get_registry_uri()}:
        if path := sqlite_path(store):
            if looking_for and not path.exists():
                raise ValueError(
                    f"no {looking_for} in {without_secrets(store)}: the file does not exist; "
                    "run from the project's folder, or set MLFLOW_TRACKING_URI"
                )
            _create_database(path)
            _check_database(path)
    return mlflow.MlflowClient()


def _take_credentials_out() -> None:
    """Hand MLflow user and password as it takes them beside the address: then no word of a library can hold them."""
    parts = urlsplit(mlflow.get_tracking_uri())
    if parts.scheme in ("http", "https") and parts.username and parts.password:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
        mlflow.set_tracking_uri(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Within, MLflow's client repeats no request by itself, whatever the environment allows it.

    A creation whose answer was lost may have been done: before the next attempt has to be looked whether it was.
    """
    before = os.environ.get(RETRIES)
    os.environ[RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[RETRIES]
        else:
            os.environ[RETRIES] = before


def remember_place(identity: str, artifact_uri: str) -> None:
    """Spare MLflow's client the question where the files of a run or a model lie, which has just been answered.

    It asks by itself where this does not take, so nothing is lost should its private cache be another's one day.
    """
    with contextlib.suppress(AttributeError, MlflowException):
        uri = mlflow.get_tracking_uri()
        place = add_databricks_profile_info_to_artifact_uri(artifact_uri, uri)  # type: ignore[no-untyped-call]
        utils._artifact_repos_cache[identity] = get_artifact_repository(place, tracking_uri=uri)
        while len(utils._artifact_repos_cache) > PLACES:
            utils._artifact_repos_cache.popitem(last=False)


def wait_longer() -> bool:
    """Let answers take twice as long from now on; False if they may take the longest time already, or as users say."""
    seconds = os.environ.get(TIMEOUT, "")
    ours = {str(FIRST_TIMEOUT_S << doublings) for doublings in range(4)}
    if seconds not in ours or int(seconds) >= LONGEST_TIMEOUT_S:
        return False
    os.environ[TIMEOUT] = str(2 * int(seconds))
    return True


def _create_database(path: Path) -> None:
    """Create MLflow's tables whole or not at all, by one process at a time, if the file does not exist yet.

    MLflow creates them in fifty migrations; two first users at once collide, and one that is killed on the way leaves a
    file that nobody can open again.
    """
    if path.exists():  # then it is whole, and its lock may be another user's
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.exists():
            return
        with replaced_whole(path) as partial:
            partial.unlink(missing_ok=True)
            uri = sqlite_uri(partial)
            mlflow.MlflowClient(uri, uri).search_registered_models(max_results=1)


def _check_database(path: Path) -> None:
    """Open the file once ourselves: MLflow tries ten times, two minutes, to open one that is damaged or locked.

    Raises:
        sqlite3.Error: if it cannot be read.
    """
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
