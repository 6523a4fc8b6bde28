"""The one check before a training: that its record can be delivered, as far as that can be known now.

Nothing here imports MLflow, and a server is asked once, for two seconds at most: a training never waits for MLflow.
What is known to be wrong is the user's to mend before hours are spent on it, and is told in one line.
"""

import contextlib
import os
import re
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pipeline.config import ConfigError
from pipeline.mlflow_client.lookups import DELETED, MISSING, ServerStore, SqliteStore, StoreFileError
from pipeline.mlflow_client.naming import problems_of
from pipeline.mlflow_client.tracking_uri import DATABASE, OLD_STORE, has_old_store, is_sqlite, sqlite_path, tracking_uri
from pipeline.redaction import address_without_secrets
from pipeline.terminal.shell import command, quoted
from pipeline.values import did_you_mean, is_unicode

# MLflow's rules; a test holds them to MLflow's.
RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
EXPERIMENT_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,63}")
UNITY_CATALOG = re.compile(r"(databricks-uc|uc)(:|$)")
DATABASES = ("postgresql", "mysql", "mssql")
SCHEMES = ("http", "https", "sqlite", *DATABASES, "file", "databricks")
ELSEWHERE = "give sqlite:///mlflow.db, a server's http://HOST:PORT, or nothing"
ESCAPE = f"write / ? # @ of a password as %2F %3F %23 %40, or {ELSEWHERE}"
# Without the libraries' own words: what they take for the port or the host may be part of a password.
NO_PORT = f"is no address (its port is no number up to 65535); {ESCAPE}"
NO_HOST = f"is no address (an @ stands in its host or behind it); {ESCAPE}"
NO_TEXT = "has bytes that are no UTF-8 text, which MLflow cannot open; rename that folder, or start in another"


def check(params: Mapping[str, object]) -> None:
    """Make sure that a new run of these knobs can be recorded: names, address, experiment, run.

    Args:
        params: knob -> value, as the run will record them.

    Raises:
        ValueError: naming what MLflow would refuse for ever, and what to do.
    """
    chosen = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    check_names({**params, "experiment_name": chosen} if chosen else params)
    check_store(chosen or str(params["experiment_name"]))
    tell_of_old_store()


def check_names(params: Mapping[str, object]) -> None:
    """Make sure that MLflow takes every name and value.

    Raises:
        ConfigError: naming each that it does not take.
    """
    source = "MLFLOW_EXPERIMENT_NAME" if os.environ.get("MLFLOW_EXPERIMENT_NAME") else "experiment_name"
    where = {"runs_dir": Path(str(params["runs_dir"])).absolute()}  # whose files others open by their whole name
    if problems := problems_of({**params, **where}, source):
        raise ConfigError(problems)


def check_store(experiment_name: str, run_id: str = "", folder: Path | None = None) -> None:
    """Make sure that the store can be opened, and has the run and the experiment that are meant.

    Args:
        experiment_name: where a new run goes, unless the environment says otherwise; it need not exist.
        run_id: the run to go on with, unless the record is new.
        folder: where its record lies.

    Raises:
        ValueError: if it is known that it is not so.
    """
    uri = tracking_uri()
    check_addresses(uri)
    _check_content(uri, experiment_name, known_run=run_id, folder=folder)


def check_addresses(uri: str) -> None:
    """Make sure that the store of that address and the registry can be opened, as far as can be seen from here.

    A file need not exist, and a server is not asked.

    Raises:
        ValueError: if it is known that one is no address, or its file no database of this MLflow.
    """
    addresses, registry = {"MLFLOW_TRACKING_URI": uri}, os.environ.get("MLFLOW_REGISTRY_URI", "")
    if registry and not UNITY_CATALOG.match(registry):
        addresses["MLFLOW_REGISTRY_URI"] = registry
    for name, address in addresses.items():
        if problem := address_problem(address):
            raise ValueError(f"{name} {quoted(address_without_secrets(address))} {problem}")
        try:
            if path := sqlite_path(address):
                SqliteStore(path)
        except StoreFileError as error:
            raise ValueError(f"{error}; or set {name} to another store") from None


def _check_content(uri: str, experiment_name: str, *, known_run: str, folder: Path | None) -> None:
    path = sqlite_path(uri)
    if path is None and urlsplit(uri).scheme not in ("http", "https"):
        return
    store: SqliteStore | ServerStore = SqliteStore(path) if path else ServerStore(uri)
    run_id = known_run or os.environ.get("MLFLOW_RUN_ID", "")
    experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID", "")
    if run_id:
        _check_run(store, uri, run_id, folder if known_run else None)
    elif experiment_id:
        _check_experiment_id(store, uri, experiment_id)
    elif not os.environ.get("MLFLOW_ENABLE_WORKSPACES") and store.experiment_named(experiment_name) == DELETED:
        raise ValueError(
            f"experiment {experiment_name!r} has been deleted in {address_without_secrets(uri)}: "
            "restore it (mlflow experiments restore), or give another name with --experiment_name"
        )


def _check_run(store: SqliteStore | ServerStore, uri: str, run_id: str, folder: Path | None) -> None:
    stage = store.run(run_id) if RUN_ID.fullmatch(run_id) else MISSING
    if stage not in (DELETED, MISSING):
        return
    what = f"run {run_id}" if folder else f"MLFLOW_RUN_ID {run_id!r}"
    fault, advice = "is no run of", "set MLFLOW_TRACKING_URI to the store that has it"
    if stage == DELETED:
        fault, advice = "has been deleted in", f"restore it (mlflow runs restore --run-id {run_id})"
    again = command("sync", folder.name, "--as-new", runs_dir=folder.parent) if folder else ""
    other = f"send the record elsewhere: {again}" if folder else "unset it"
    raise ValueError(f"{what} {fault} {address_without_secrets(uri)}: {advice}, or {other}")


def _check_experiment_id(store: SqliteStore | ServerStore, uri: str, experiment_id: str) -> None:
    stage = store.experiment(experiment_id) if EXPERIMENT_ID.fullmatch(experiment_id) else MISSING
    if stage not in (DELETED, MISSING):
        return
    fault, advice = "is no experiment of", "give another"
    if stage == DELETED:
        fault, advice = "has been deleted in", f"restore it (mlflow experiments restore -x {experiment_id})"
    other = "unset it: --experiment_name then says where the run goes"
    raise ValueError(
        f"MLFLOW_EXPERIMENT_ID {experiment_id!r} {fault} {address_without_secrets(uri)}: {advice}, or {other}"
    )


def address_problem(uri: str) -> str:
    """Why MLflow could never open a store at the address, or nothing."""
    if not is_unicode(uri):
        return NO_TEXT
    if is_sqlite(uri):
        return _sqlite_problem(uri)
    if UNITY_CATALOG.match(uri):
        return f"is a registry, not a store of runs; {ELSEWHERE}"
    try:
        parts = urlsplit(uri)
    except ValueError:
        return f"is no address (its host cannot be read); {ELSEWHERE}"
    scheme = "databricks" if uri == "databricks" else parts.scheme
    if scheme in ("http", "https"):
        return _server_problem(parts)
    if scheme == "databricks":
        return _databricks_problem()
    if scheme.split("+")[0] in DATABASES:
        return _driver_problem(uri)
    return _other_problem(uri, scheme)


def _server_problem(parts: SplitResult) -> str:
    try:
        port = parts.port
    except ValueError:
        return NO_PORT
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return NO_HOST
    return "" if parts.hostname and port != 0 else f"names no host; {ELSEWHERE}"


def _sqlite_problem(uri: str) -> str:
    if sqlite_path(uri) is not None:
        return ""
    if re.fullmatch(r"sqlite(\+\w+)?://(/?|/:memory:)(\?.*)?", uri):
        return f"is a database in memory, which ends with the process that fills it; {ELSEWHERE}"
    return "is no address of SQLite; write sqlite:///FILE for a file here, sqlite:////FOLDER/FILE for one elsewhere"


def _databricks_problem() -> str:
    config = Path(os.environ.get("DATABRICKS_CONFIG_FILE") or "~/.databrickscfg")
    known = any(name.startswith("DATABRICKS_") for name in os.environ)
    with contextlib.suppress(RuntimeError):  # a user without a home
        known = known or config.expanduser().exists()
    return "" if known else "needs DATABRICKS_HOST and DATABRICKS_TOKEN, or ~/.databrickscfg (databricks configure)"


def _driver_problem(uri: str) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
        if "@" in f"{url.host}/{url.database}":  # the driver tells in its own words the host that it looked for
            return NO_HOST
        url.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        return f"needs the package {error.name}, which is not installed here; install it, or {ELSEWHERE}"
    except (ImportError, ArgumentError) as error:
        return f"cannot be opened ({' '.join(str(error).split())}); {ELSEWHERE}"
    except ValueError:
        return NO_PORT
    return ""


def _other_problem(uri: str, scheme: str) -> str:
    """A plain path, a folder, a typing error, or a store that another package brings along."""
    if re.match(r"[\w.-]+:\d+(/|$)", shown := address_without_secrets(uri)):
        return f"lacks its scheme; did you mean http://{shown}?"
    if scheme in ("", "file") or len(scheme) == 1:
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
            return ""
        return f"is a folder, and MLflow keeps no more records as files; {ELSEWHERE}"
    if any(each.name == scheme for each in entry_points(group="mlflow.tracking_store")):
        return ""
    return f"has the unknown scheme {scheme!r}{did_you_mean(scheme, SCHEMES)}; {ELSEWHERE}"


def tell_of_old_store() -> None:
    """Say once where the records go, if a folder here has older ones, for which MLflow would take it."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and has_old_store():
        print(
            f"records go to {DATABASE} here; the older ones in ./{OLD_STORE} stay as they are: MLflow no longer opens "
            "them (mlflow migrate-filestore copies them into a database)",
            file=sys.stderr,
        )
