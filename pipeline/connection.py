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

SQLITE = "sqlite:///"
QUIET_AND_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def import_store() -> None:
    """Import what `connect` will need, a second's worth, without touching the store."""
    if mlflow.get_tracking_uri().startswith(SQLITE):
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
        importlib.import_module("mlflow.store.model_registry.sqlalchemy_store")


def connect(uri: str | None = None) -> mlflow.MlflowClient:
    """A client of the tracking server. MLflow's own retries are cut short: the sender has its own."""
    for name, value in QUIET_AND_IMPATIENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")
    if uri:
        mlflow.set_tracking_uri(uri)
    _take_credentials_out()
    if mlflow.get_tracking_uri().startswith(SQLITE):
        _create_database(Path(mlflow.get_tracking_uri().removeprefix(SQLITE)))
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
    with FileLock(f"{path}.lock"):
        if path.exists():
            return
        partial = path.with_name(f"{path.name}.partial")
        partial.unlink(missing_ok=True)
        mlflow.MlflowClient(f"{SQLITE}{partial}", f"{SQLITE}{partial}").search_registered_models(max_results=1)
        partial.replace(path)


def in_words(error: BaseException) -> str:
    """An error in one line that fits a terminal and tells no secret."""
    text = without_secrets(" ".join(str(error).split()))
    if "failed with exception" in text or isinstance(error, OSError):
        return f"no answer from {without_secrets(mlflow.get_tracking_uri())}"
    return f"{type(error).__name__}: {text}"[:160]
