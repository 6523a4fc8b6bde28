"""Asking MLflow on a person's behalf: whatever it answers, or does not, ends as one line and the exit code it means."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow.exceptions import MlflowException, RestException
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from pipeline.addresses import without_secrets
from pipeline.mlflow_client.connection import in_words
from pipeline.terminal.shell import UnreachableError

NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
# What MLflow itself says for good; everything else may be the network's, a proxy's, or over in a while.
FINAL = NOT_THERE | {"RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED", "INVALID_STATE", "BAD_REQUEST"}
_STATUS = re.compile(r"(?:failed with error code|too many) (\d{3})\b")


@contextmanager
def asking(afterwards: str = "try again when it does") -> Iterator[None]:
    """Turn MLflow's errors into the command's.

    Args:
        afterwards: what to do once the server answers.

    Raises:
        UnreachableError: if the server, or what stands before it, does not answer as MLflow.
        ValueError: if MLflow itself refuses.
    """
    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error) as error:
        if is_final(error):
            raise ValueError(without_secrets(f"MLflow refuses: {' '.join(str(error).split())[:300]}")) from None
        raise UnreachableError(f"{_unreachable(error)}; {afterwards}") from None


def is_final(error: BaseException) -> bool:
    """Whether MLflow itself has said it, for good. A proxy's page with the same status is not MLflow's word."""
    if not isinstance(error, MlflowException) or error.error_code not in FINAL:
        return False
    return isinstance(error, RestException) or _STATUS.search(str(error)) is None


def is_not_there(error: BaseException) -> bool:
    """Whether MLflow itself says that there is no such thing."""
    return is_final(error) and isinstance(error, MlflowException) and error.error_code in NOT_THERE


def _unreachable(error: Exception) -> str:
    found = _STATUS.search(str(error))
    status = found[1] if found else str(getattr(getattr(error, "response", None), "status_code", ""))
    if not status:
        return in_words(error)
    told = f"{without_secrets(mlflow.get_tracking_uri())} answers {status}, not as MLflow does"
    if status in ("401", "403"):
        told += " (MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN, say who asks)"
    return told
