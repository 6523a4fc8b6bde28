"""Looking into MLflow's store before a training, without MLflow: the SQLite file, or one short request to a server.

What cannot be known now (a server that is dead, slow, or hidden behind a proxy that answers in its place) is no reason
not to train: it is `UNKNOWN`.
"""

import base64
import configparser
import contextlib
import functools
import importlib.util
import json
import os
import re
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

from pipeline.mlflow_client.tracking_uri import sqlite_uri
from pipeline.terminal.shell import quoted

ACTIVE, DELETED, MISSING, UNKNOWN = "active", "deleted", "missing", "unknown"
PATIENCE_S = 2.0
LONGEST_ANSWER = 1 << 20
NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
FIRST_EXPERIMENT = "0"  # MLflow makes `Default` with its tables


class StoreFileError(ValueError):
    """The file is none that MLflow can open."""


class SqliteStore:
    """MLflow's tables in a file, read only."""

    def __init__(self, path: Path) -> None:
        """Look into the file; it need not exist.

        Raises:
            StoreFileError: if it is no database, a damaged one, another MLflow's, or where nobody may look.
        """
        self.path = path
        try:
            is_folder, is_there = path.is_dir(), path.exists()
        except OSError as error:
            raise StoreFileError(f"{path} cannot be reached ({error.strerror})") from None
        if is_folder:
            raise StoreFileError(f"{path} is a folder, not a database file")
        if is_there:
            self._check_schema()

    def run(self, run_id: str) -> str:
        """The lifecycle stage of a run."""
        return self._stage("SELECT lifecycle_stage FROM runs WHERE run_uuid = ?", run_id)

    def experiment(self, experiment_id: str) -> str:
        """The lifecycle stage of an experiment; `Default` comes with the tables."""
        if experiment_id == FIRST_EXPERIMENT and not self._rows("SELECT 1 FROM experiments LIMIT 1"):
            return ACTIVE
        return self._stage("SELECT lifecycle_stage FROM experiments WHERE experiment_id = ?", experiment_id)

    def experiment_named(self, name: str) -> str:
        """The lifecycle stage of the experiment of that name."""
        return self._stage("SELECT lifecycle_stage FROM experiments WHERE name = ?", name)

    def _stage(self, question: str, value: str) -> str:
        rows = self._rows(question, value)
        if rows is None:
            return UNKNOWN
        return str(rows[0][0] or ACTIVE) if rows else MISSING

    def _rows(self, question: str, *values: str) -> list[tuple[Any, ...]] | None:
        """The answer; none where there is no such file or table yet; None where it cannot be read now."""
        if not self.path.exists():
            return []
        try:
            uri = f"file:{quote(str(self.path))}?mode=ro"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE_S)) as database:
                return database.execute(question, values).fetchall()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise StoreFileError(f"{self.path} is no database that can be read ({error})") from None
            return [] if "no such table" in str(error) else None

    def _check_schema(self) -> None:
        """MLflow opens its own version's tables only."""
        rows = self._rows("SELECT version_num FROM alembic_version")
        there, (wanted, known) = str(rows[0][0]) if rows else "", schema_versions()
        if not there or not wanted or there == wanted:
            return
        if there in known:
            raise StoreFileError(
                f"{self.path} was made by an older MLflow; copy it, then bring it up to date: "
                f"mlflow db upgrade {quoted(sqlite_uri(self.path))}"
            )
        raise StoreFileError(f"{self.path} was made by a newer MLflow or by another program (its schema: {there})")


@functools.cache
def schema_versions() -> tuple[str, frozenset[str]]:
    """The schema of the MLflow that is installed, and all that lead to it; nothing where that cannot be told."""
    package = importlib.util.find_spec("mlflow")
    before: dict[str, str | None] = {}
    for root in (package.submodule_search_locations or []) if package else []:
        for path in Path(root, "store/db_migrations/versions").glob("*.py"):
            text = path.read_text(encoding="utf-8")
            revision = re.search(r"^revision\s*=\s*[\"'](\w+)", text, re.M)
            down = re.search(r"^down_revision\s*=\s*[\"'](\w+)", text, re.M)
            if revision:
                before[revision[1]] = down[1] if down else None
    heads = before.keys() - before.values()
    return (heads.pop() if len(heads) == 1 else ""), frozenset(before)


@dataclass
class ServerStore:
    """A tracking server, asked once and briefly, for what `SqliteStore` tells."""

    uri: str

    def run(self, run_id: str) -> str:
        return _stage_of(self._ask("runs/get", run_id=run_id), "run", "info")

    def experiment(self, experiment_id: str) -> str:
        return _stage_of(self._ask("experiments/get", experiment_id=experiment_id), "experiment")

    def experiment_named(self, name: str) -> str:
        return _stage_of(self._ask("experiments/get-by-name", experiment_name=name), "experiment")

    def _ask(self, path: str, **query: str) -> dict[str, Any] | None:
        """MLflow's own answer, whole and in time, or None; DNS knows no limit, hence the thread."""
        answers: list[dict[str, Any] | None] = []
        url, headers = _request(self.uri)
        url = f"{url}/api/2.0/mlflow/{path}?{urlencode(query)}"
        thread = threading.Thread(target=lambda: answers.append(_get(url, headers)), daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        return answers[0] if answers else None


def _stage_of(answer: dict[str, Any] | None, *keys: str) -> str:
    """What MLflow's answer says; what is not MLflow's says nothing."""
    if answer is None:
        return UNKNOWN
    if "error_code" in answer:
        return MISSING if answer["error_code"] in NOT_THERE else UNKNOWN
    found: Any = answer
    for key in (*keys, "lifecycle_stage"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if found in (ACTIVE, DELETED) else UNKNOWN


def _request(uri: str) -> tuple[str, dict[str, str]]:
    """The address without userinfo, and the headers by which MLflow's client would identify itself."""
    parts = urlsplit(uri)
    userinfo, _, host = parts.netloc.rpartition("@")
    user, password = _credentials()
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    basic = f"{user}:{password}" if user and password else ""
    if not basic and not token and userinfo:
        basic = ":".join(unquote(part) for part in userinfo.split(":", 1))
    headers = {"Accept": "application/json", "User-Agent": "mlflow-python-client (pipeline)"}
    if basic:
        headers["Authorization"] = "Basic " + base64.b64encode(basic.encode()).decode()
    elif token:
        headers["Authorization"] = f"Bearer {token}"
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")), headers


def _credentials() -> tuple[str, str]:
    """User and password, each from the environment, else from ~/.mlflow/credentials."""
    kept = configparser.ConfigParser()
    try:
        kept.read(Path("~/.mlflow/credentials").expanduser())
    except (configparser.Error, OSError, RuntimeError, UnicodeDecodeError):
        kept.clear()
    names = ("mlflow_tracking_username", "mlflow_tracking_password")
    user, password = (
        os.environ.get(name.upper()) or kept.get("mlflow", name, fallback="", raw=True) or "" for name in names
    )
    return user, password


def _get(url: str, headers: dict[str, str]) -> dict[str, Any] | None:
    import ssl
    import urllib.request

    class AsItIs(urllib.request.HTTPErrorProcessor):
        """Gives every answer, also a no; follows no redirection: the credentials are for this server."""

        def http_response(self, request: Any, response: Any) -> Any:
            return response

        https_response = http_response

    try:
        context = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
        if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), AsItIs)
        with opener.open(urllib.request.Request(url, headers=headers), timeout=PATIENCE_S) as response:
            answer = json.loads(response.read(LONGEST_ANSWER))
    except Exception:  # whatever is in the way, it is the uploader's to deal with
        return None
    return answer if isinstance(answer, dict) else None
