"""The connection to MLflow: a client that is quiet and does not wait long, and what its errors mean in words."""

import contextlib
import errno
import importlib
import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from requests import HTTPError, Timeout

from pipeline.addresses import without_secrets
from pipeline.files import replaced_whole
from pipeline.mlflow_client.tracking_uri import absolute, default_uri, is_sqlite, sqlite_path, sqlite_uri

RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
FIRST_TIMEOUT_S, LONGEST_TIMEOUT_S = 10, 80
QUIET_AND_IMPATIENT = {
    RETRIES: "0",
    TIMEOUT: str(FIRST_TIMEOUT_S),
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


# What MLflow says in its own JSON, or as a local store, and no waiting or asking again mends. A proxy's page never has
# these codes: of a strange 400 MLflow's client makes BAD_REQUEST, of a 404 ENDPOINT_NOT_FOUND.
FINAL = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}
_SILENCE = re.compile("failed with timeout exception|ReadTimeoutError")
_STATUS = re.compile(r"too many (\d{3}) error responses|failed with error code (\d{3}) ")
_DRIVER = re.compile(r"\((?:\w+\.)+\w+\) ([^\[\n]+)")  # SQLAlchemy's `(sqlite3.OperationalError) database is locked`
_WHO = "; check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN, or the proxy in between"


class ToldError(RuntimeError):
    """An error whose text is what a person is to read."""


def import_store() -> None:
    """Import what `connect` will need, a second's worth, without touching the store."""
    if is_sqlite(address()):
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
        importlib.import_module("mlflow.store.model_registry.sqlalchemy_store")


def address() -> str:
    """Where the records go: what MLflow has been told, else our own default, whatever lies in the folder."""
    told = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    return absolute(mlflow.get_tracking_uri()) if told else default_uri()


def connect(uri: str | None = None) -> mlflow.MlflowClient:
    """A client of the tracking server. MLflow's own retries are cut short: the sender has its own."""
    for name, value in QUIET_AND_IMPATIENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback for each locked database
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")
    mlflow.set_tracking_uri(uri or address())
    _take_credentials_out()
    for store in {mlflow.get_tracking_uri(), mlflow.get_registry_uri()}:
        if path := sqlite_path(store):
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


def is_final(error: BaseException) -> bool:
    """Whether MLflow itself says that it will never take this."""
    if isinstance(error, HTTPError):  # files go up by another way, with errors of another class
        return _code(error) in FINAL
    return isinstance(error, MlflowException) and error.error_code in FINAL


def is_silence(error: BaseException) -> bool:
    """Whether nobody answered within the time."""
    return isinstance(error, Timeout) or (
        isinstance(error, MlflowException) and _SILENCE.search(str(error)) is not None
    )


def is_answer(error: BaseException) -> bool:
    """Whether somebody answered, if only to say no; a rate limit (429) speaks of the server, not of what was sent."""
    if not isinstance(error, MlflowException | HTTPError) or _DRIVER.search(str(error)):
        return False
    status = _status(error)
    return status != 429 if status else "API request to" not in str(error)


def _code(error: HTTPError) -> str:
    """MLflow's error code in the answer; nothing if the answer is not MLflow's."""
    try:
        return str(error.response.json()["error_code"])
    except (AttributeError, ValueError, TypeError, KeyError):
        return ""


def _status(error: BaseException) -> int | None:
    if isinstance(error, HTTPError) and error.response is not None:
        return error.response.status_code
    found = _STATUS.search(str(error))
    return int(found[1] or found[2]) if found else None


def in_words(error: BaseException) -> str:
    """An error in one line that fits a terminal and tells no secret."""
    text = without_secrets(" ".join(str(error).split()))
    uri = without_secrets(mlflow.get_tracking_uri())
    if isinstance(error, ToldError):
        return text
    if isinstance(error, sqlite3.Error):
        return f"{uri}: {text}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk{f' of {error.filename}' if error.filename else ''}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {without_secrets(str(error.filename))}"
    if driver := _DRIVER.search(text):
        return f"{uri}: {driver[1].strip()}"[:160]
    if status := _status(error):
        return f"{uri} answers {status}" + _WHO * (status in (401, 403))
    if "failed with" in text or isinstance(error, OSError):
        return f"no answer from {uri}"
    return f"{type(error).__name__}: {text}"[:160]
