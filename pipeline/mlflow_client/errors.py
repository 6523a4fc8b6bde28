"""What an error of MLflow's client means: its own word for good, an answer, silence; and how it is told."""

import errno
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow.exceptions import MlflowException, RestException
from requests import HTTPError, RequestException, Timeout
from sqlalchemy.exc import SQLAlchemyError

from pipeline.mlflow_client.lookups import NOT_THERE
from pipeline.redaction import address_without_secrets, without_secrets
from pipeline.terminal.shell import UnreachableError

# What MLflow says in its own JSON, or as a local store, and no waiting or asking again mends. A proxy's page never has
# these codes: of a strange 400 MLflow's client makes BAD_REQUEST, of a 404 ENDPOINT_NOT_FOUND.
FINAL = NOT_THERE | {"RESOURCE_ALREADY_EXISTS"}
# What it refuses for now, and what a proxy's page may be taken for.
REFUSED = {"PERMISSION_DENIED", "INVALID_STATE", "BAD_REQUEST"}
_SILENCE = re.compile("failed with timeout exception|ReadTimeoutError")
_STATUS = re.compile(r"(?:too many|failed with error code) (\d{3}) ")
_DRIVER = re.compile(r"\((?:\w+\.)+\w+\) ([^\[\n]+)")  # SQLAlchemy's `(sqlite3.OperationalError) database is locked`
_WHO = "; check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN, or the proxy in between"


class ToldError(RuntimeError):
    """An error whose text is what a person is to read."""


@contextmanager
def asking(afterwards: str = "try again when it does") -> Iterator[None]:
    """Turn the errors of asking MLflow on a person's behalf into the command's: one line and the exit code it means.

    Raises:
        UnreachableError: if the server, or what stands before it, does not answer as MLflow; with what to do then.
        ValueError: if MLflow itself refuses.
    """
    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error) as error:
        if is_refusal(error):
            raise ValueError(f"MLflow refuses: {without_secrets(' '.join(str(error).split()))[:300]}") from None
        raise UnreachableError(f"{_unreachable(error)}; {afterwards}") from None


def told_tracking_uri() -> str:
    """Where records go, as it may be told."""
    return address_without_secrets(mlflow.get_tracking_uri())


def _unreachable(error: Exception) -> str:
    status = _status(error)
    if not status:
        return in_words(error)
    told = f"{told_tracking_uri()} answers {status}, not as MLflow does"
    if status in (401, 403):
        told += " (MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN, say who asks)"
    return told


def is_final(error: BaseException) -> bool:
    """Whether MLflow itself says that it will never take this."""
    if isinstance(error, HTTPError):  # files go up by another way, with errors of another class
        return _code(error) in FINAL
    return isinstance(error, MlflowException) and error.error_code in FINAL


def is_refusal(error: BaseException) -> bool:
    """Whether MLflow itself refuses what is asked, be it for now. A proxy's page of the same status is not its word."""
    if not isinstance(error, MlflowException) or error.error_code not in FINAL | REFUSED:
        return False
    return isinstance(error, RestException) or _status(error) is None


def is_not_there(error: BaseException) -> bool:
    """Whether MLflow itself says that there is no such thing."""
    return isinstance(error, MlflowException) and is_refusal(error) and error.error_code in NOT_THERE


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
    if isinstance(error, RequestException) and error.response is not None:
        return error.response.status_code
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def in_words(error: BaseException) -> str:
    """An error in one line that fits a terminal and tells no secret."""
    text = without_secrets(" ".join(str(error).split()))
    uri = told_tracking_uri()
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
