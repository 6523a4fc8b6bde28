"""Which store the records go to, and which file a SQLite address means. The one place that decides it; stdlib only."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from pipeline.redaction import address_without_secrets

DATABASE = "mlflow.db"
OLD_STORE = "mlruns"  # where MLflow kept records as files; also where it keeps the artifacts of a local database
_SQLITE = re.compile(r"sqlite(?:\+\w+)?://(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?", re.DOTALL)
_TRUE = ("true", "yes", "on", "y", "t", "1")


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, a relative file's address made absolute; else `mlflow.db` in the working directory.

    MLflow's own default would be an old folder ./mlruns, where there is one, which MLflow then refuses to open.
    """
    return absolute(os.environ.get("MLFLOW_TRACKING_URI") or default_uri())


def absolute(uri: str) -> str:
    """The address as it means the same file wherever it is read: a run's folder keeps it."""
    path, found = sqlite_path(uri), _SQLITE.fullmatch(uri)
    if path is None or path.is_absolute() or found is None or (found["database"] or "").startswith("file:"):
        return uri
    return sqlite_uri(path) + (f"?{found['query']}" if found["query"] else "")


def default_uri() -> str:
    """The database in the working directory, as an absolute address."""
    return sqlite_uri(Path(DATABASE))


def sqlite_uri(path: Path) -> str:
    """The address of a SQLite file; what SQLAlchemy would take for an escape or a query is escaped."""
    return "sqlite:///" + str(path.absolute()).replace("%", "%25").replace("?", "%3F")


def is_sqlite(uri: str) -> bool:
    """Whether the address is SQLite's, right or wrong."""
    return re.match(r"sqlite(\+\w+)?:", uri) is not None


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite address, read as SQLAlchemy reads it; None for other addresses and for a store in memory.

    `sqlite:///x.db` is relative, `sqlite:////x.db` absolute, percent signs are escapes, `?timeout=60` is no part of it.
    """
    found = _SQLITE.fullmatch(uri)
    if found is None:
        return None
    database, query = unquote(found["database"] or ""), dict(parse_qsl(found["query"] or ""))
    if query.get("uri", "").lower() in _TRUE and database.startswith("file:"):
        if query.get("mode") == "memory":
            return None
        database = unquote(re.sub(r"^//[^/]*", "", database.removeprefix("file:").partition("?")[0]))
    return None if database in ("", ":memory:") else Path(database)


def store_of(state: Mapping[str, object], *, as_before: bool = False) -> str:
    """Where a run's record goes: where the environment says, else where it went before, else to the default.

    A file that is gone, not one that cannot be reached, is where it went no more: the project's folder has been moved.

    Args:
        state: what the run's uploader has said of itself.
        as_before: where it went before has precedence; if the environment says the same, with its user and password.
    """
    before, told = str(state.get("tracking_uri") or ""), os.environ.get("MLFLOW_TRACKING_URI", "")
    path = sqlite_path(before)
    kept = before if path is None or not _is_gone(path) else ""
    if as_before and kept and kept != address_without_secrets(absolute(told)):
        told = ""
    return absolute(told or kept or default_uri())


def _is_gone(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:
        return False


def keep_store(state: Mapping[str, object]) -> None:
    """Let this process and those that it starts go on with a run in its store, wherever they are started."""
    if state.get("tracking_uri"):
        os.environ["MLFLOW_TRACKING_URI"] = store_of(state)


def has_old_store() -> bool:
    """Whether the working directory has records that an old MLflow kept as files."""
    return any(Path(OLD_STORE).glob("[0-9]*/meta.yaml"))
