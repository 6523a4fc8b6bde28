"""The connection to MLflow: a client that is quiet and does not wait long, and what its errors mean in words."""

import importlib
import logging
import os
import warnings
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import mlflow
from filelock import FileLock

from pipeline.addresses import without_secrets
from pipeline.tracking_uri import default_uri, is_sqlite, sqlite_path, sqlite_uri

QUIET_AND_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
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
    return mlflow.get_tracking_uri() if told else default_uri()


def connect(uri: str | None = None) -> mlflow.MlflowClient:
    """A client of the tracking server. MLflow's own retries are cut short: the sender has its own."""
    for name, value in QUIET_AND_IMPATIENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")
    mlflow.set_tracking_uri(uri or address())
    _take_credentials_out()
    for store in {mlflow.get_tracking_uri(), mlflow.get_registry_uri()}:
        if path := sqlite_path(store):
            _create_database(path)
    return mlflow.MlflowClient()


def _take_credentials_out() -> None:
    """Hand MLflow user and password as it takes them beside the address: then no word of a library can hold them."""
    parts = urlsplit(mlflow.get_tracking_uri())
    if parts.scheme in ("http", "https") and parts.username and parts.password:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
        mlflow.set_tracking_uri(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))


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
        partial = path.with_name(f"{path.name}.partial")
        partial.unlink(missing_ok=True)
        uri = sqlite_uri(partial)
        mlflow.MlflowClient(uri, uri).search_registered_models(max_results=1)
        partial.replace(path)


def in_words(error: BaseException) -> str:
    """An error in one line that fits a terminal and tells no secret."""
    text = without_secrets(" ".join(str(error).split()))
    if "failed with exception" in text or isinstance(error, OSError):
        return f"no answer from {without_secrets(mlflow.get_tracking_uri())}"
    return f"{type(error).__name__}: {text}"[:160]
