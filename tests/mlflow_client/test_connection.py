"""The client of MLflow: what it is set to, how it opens a database, and what is kept for once only or for longer."""

import contextlib
import importlib
import logging
import os
import sqlite3
import threading
import warnings

import mlflow
import pytest
from filelock import FileLock

from pipeline.mlflow_client import connection
from pipeline.mlflow_client.tracking_uri import sqlite_uri

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@pytest.fixture(autouse=True)
def as_before():
    """Neither environment, nor address, nor log levels are left to the next test."""
    variables = dict(os.environ)
    levels = {name: logging.getLogger(name).level for name in ("mlflow", "mlflow.store.db.utils", "alembic")}
    mlflow.set_tracking_uri(None)
    yield
    os.environ.clear()
    os.environ.update(variables)
    mlflow.set_tracking_uri(None)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


class Migrating:
    """In MLflow's place: a client that makes the tables of the database that it is asked something of."""

    made = ()

    def __init__(self, *uris):
        self.uris = uris

    def search_registered_models(self, max_results):
        Migrating.made = (*Migrating.made, (*self.uris, max_results))
        with sqlite3.connect(self.uris[0].removeprefix("sqlite:///")) as database:
            database.execute("CREATE TABLE runs (id)")
        database.close()


@pytest.fixture
def migrating(monkeypatch):
    monkeypatch.setattr(mlflow, "MlflowClient", Migrating)
    monkeypatch.setattr(Migrating, "made", ())
    return Migrating


def test_the_client_is_quiet_and_impatient(migrating):
    with warnings.catch_warnings():
        assert isinstance(connection.connect("http://mlflow.test"), Migrating)
        action, message, category, module, line = warnings.filters[0]
    assert SETTINGS.items() <= os.environ.items()
    assert mlflow.get_tracking_uri() == "http://mlflow.test"
    levels = {name: logging.getLogger(name).level for name in ("mlflow", "mlflow.store.db.utils", "alembic")}
    assert levels == {"mlflow": logging.ERROR, "mlflow.store.db.utils": logging.CRITICAL, "alembic": logging.ERROR}
    assert (action, message, category, module.pattern, line) == ("ignore", None, Warning, "mlflow", 0)
    assert migrating.made == ()


def test_what_a_user_has_set_stays(migrating):
    os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7", "MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}
    connection.connect("http://mlflow.test")
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "120"


def test_without_a_word_the_records_go_to_the_database_of_this_folder(migrating, tmp_path, monkeypatch):
    (tmp_path / "mlruns/0").mkdir(parents=True)  # what MLflow itself would take
    (tmp_path / "mlruns/0/meta.yaml").touch()
    assert connection.address() == sqlite_uri(tmp_path / "mlflow.db")
    connection.connect()
    assert (mlflow.get_tracking_uri(), (tmp_path / "mlflow.db").exists()) == (sqlite_uri(tmp_path / "mlflow.db"), True)
    mlflow.set_tracking_uri("http://told.test")
    assert connection.address() == "http://told.test"
    mlflow.set_tracking_uri("sqlite:///below/x.db")
    assert connection.address() == sqlite_uri(tmp_path / "below/x.db")
    mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment.test")
    assert connection.address() == "http://environment.test"


@pytest.mark.parametrize(
    ("uri", "modules"),
    [
        ("http://mlflow.test", []),
        ("sqlite:///x.db", ["mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"]),
    ],
)
def test_only_a_store_of_ones_own_is_imported_ahead(uri, modules, monkeypatch):
    imported = []
    monkeypatch.setattr(importlib, "import_module", imported.append)
    mlflow.set_tracking_uri(uri)
    connection.import_store()
    assert imported == modules


@pytest.mark.parametrize(
    ("uri", "left", "user", "password"),
    [
        ("http://bob:pw@mlflow.test:5000/a?b=1", "http://mlflow.test:5000/a?b=1", "bob", "pw"),
        ("https://b%40b:p%40w%21@mlflow.test", "https://mlflow.test", "b@b", "p@w!"),
        ("http://a:b@c@mlflow.test", "http://mlflow.test", "a", "b@c"),
        ("http://bob@mlflow.test", "http://bob@mlflow.test", None, None),
        ("http://:pw@mlflow.test", "http://:pw@mlflow.test", None, None),
        ("postgresql://bob:pw@mlflow.test/x", "postgresql://bob:pw@mlflow.test/x", None, None),
        ("http://mlflow.test", "http://mlflow.test", None, None),
    ],
)
def test_a_password_leaves_the_address_for_where_mlflow_looks_for_it(uri, left, user, password):
    mlflow.set_tracking_uri(uri)
    connection._take_credentials_out()
    assert mlflow.get_tracking_uri() == left
    assert os.environ.get("MLFLOW_TRACKING_USERNAME") == user
    assert os.environ.get("MLFLOW_TRACKING_PASSWORD") == password


def test_connecting_takes_the_password_out(migrating):
    connection.connect("http://bob:pw@mlflow.test")
    assert mlflow.get_tracking_uri() == "http://mlflow.test"


def test_a_database_is_made_beside_its_place_and_put_there_whole(migrating, tmp_path):
    path = tmp_path / "a/b/mlflow.db"
    path.parent.mkdir(parents=True)
    (tmp_path / "a/b/mlflow.db.partial").write_bytes(b"left by a process that was killed amid its migrations")
    connection.connect(sqlite_uri(path))
    partial = sqlite_uri(tmp_path / "a/b/mlflow.db.partial")
    assert migrating.made == ((partial, partial, 1),)
    assert sorted(each.name for each in path.parent.iterdir()) == ["mlflow.db", "mlflow.db.lock"]
    connection.connect(sqlite_uri(path))
    assert len(migrating.made) == 1


def test_its_folder_is_made_and_one_that_is_there_is_left_alone(migrating, tmp_path):
    connection.connect(sqlite_uri(tmp_path / "new/er/mlflow.db"))
    assert (tmp_path / "new/er/mlflow.db").exists()
    (tmp_path / "new/er/mlflow.db.lock").unlink(missing_ok=True)
    connection.connect(sqlite_uri(tmp_path / "new/er/mlflow.db"))
    assert not (tmp_path / "new/er/mlflow.db.lock").exists()  # it may be another user's


def test_for_who_only_looks_no_database_is_made_and_one_that_is_there_is_opened(migrating, tmp_path):
    uri = sqlite_uri(tmp_path / "mlflow.db")
    with pytest.raises(ValueError, match="the file does not exist") as caught:
        connection.connect(uri, looking_for="runs")
    words = "the file does not exist; run from the project's folder, or set MLFLOW_TRACKING_URI"
    assert str(caught.value) == f"no runs in {uri}: {words}"
    assert (list(tmp_path.iterdir()), migrating.made) == ([], ())
    connection.connect(uri)
    assert isinstance(connection.connect(uri, looking_for="runs"), Migrating)
    assert isinstance(connection.connect("http://mlflow.test", looking_for="runs"), Migrating)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("127.0.0.1:5000", "lacks its scheme; did you mean http://127.0.0.1:5000?"),
        ("bob:S3cret@mlflow.test:5000", "MLFLOW_TRACKING_URI mlflow.test:5000 lacks its scheme"),
        ("mssql+pymssql://mlflow.test/x", "needs the package pymssql, which is not installed here"),
        (
            "sqlite:///damaged.db",
            "is no database that can be read (file is not a database); or set MLFLOW_",
        ),
    ],
)
def test_for_who_looks_what_mlflow_never_opens_is_told_as_before_a_training(migrating, tmp_path, uri, words):
    (tmp_path / "damaged.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ValueError, match=r"^MLFLOW_TRACKING_URI|^damaged") as caught:
        connection.connect(uri, looking_for="models")
    assert words in str(caught.value)
    assert migrating.made == ()


def test_a_registry_that_cannot_be_opened_is_told_by_its_name(migrating, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/damaged.db")
    (tmp_path / "damaged.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ValueError, match=r"; or set MLFLOW_REGISTRY_URI to another store$"):
        connection.connect("http://mlflow.test", looking_for="models")


def test_of_two_first_users_one_makes_the_database(migrating, tmp_path):
    path = tmp_path / "mlflow.db"
    lock = FileLock(f"{path}.lock")
    with lock:
        second = threading.Thread(target=connection._create_database, args=(path,), daemon=True)
        second.start()
        second.join(0.2)
        assert second.is_alive()
        sqlite3.connect(path).close()
        path.touch()
    second.join(20)
    assert (second.is_alive(), migrating.made) == (False, ())


def test_a_registry_of_its_own_is_opened_as_well(migrating, tmp_path):
    mlflow.set_registry_uri(sqlite_uri(tmp_path / "registry.db"))
    try:
        connection.connect("http://mlflow.test")
    finally:
        mlflow.set_registry_uri(None)
    assert (tmp_path / "registry.db").exists()


def test_a_database_that_cannot_be_read_is_an_error_at_once(migrating, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="file is not a database"):
        connection.connect(sqlite_uri(tmp_path / "mlflow.db"))


@pytest.mark.parametrize("before", [None, "5"])
def test_within_once_nothing_is_repeated_and_afterwards_it_is_as_before(before):
    if before:
        os.environ[connection.RETRIES] = before
    with contextlib.suppress(KeyError), connection.once():
        assert os.environ[connection.RETRIES] == "0"
        with connection.once():
            pass
        assert os.environ[connection.RETRIES] == "0"
        raise KeyError
    assert os.environ.get(connection.RETRIES) == before


def test_answers_get_twice_as_long_up_to_eighty_seconds():
    os.environ[connection.TIMEOUT] = "10"
    seen = []
    while connection.wait_longer():
        seen.append(os.environ[connection.TIMEOUT])
    assert (seen, os.environ[connection.TIMEOUT]) == (["20", "40", "80"], "80")


@pytest.mark.parametrize("seconds", ["5", "30", "160", "", None])
def test_whoever_has_said_how_long_is_taken_at_their_word(seconds):
    if seconds is not None:
        os.environ[connection.TIMEOUT] = seconds
    assert connection.wait_longer() is False
    assert os.environ.get(connection.TIMEOUT) == seconds
