"""The one check before a training: what MLflow could never take is told in one line; what cannot be known is let be."""

import base64
import http.server
import json
import os
import shlex
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModel
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlRun
from mlflow.utils import validation
from mlflow.utils.uri import get_uri_scheme
from sqlalchemy.engine import make_url

from pipeline import cli
from pipeline.config import ConfigError, RunConfig
from pipeline.mlflow_client import lookups, naming, preflight, tracking_uri
from pipeline.mlflow_client.connection import connect
from pipeline.mlflow_client.tracking_uri import default_uri, sqlite_path, sqlite_uri
from tests.conftest import environment, run_pipeline

NAMES = [
    "mnist-mlp", "", " ", "  a", "a/b", "a:b", ":", "/", "/a", "a/", ".", "..", "...", "..a", "a..", ".a", "a.b", "./a",
    "it's", 'say "hi"', "a\\b", "a%b", "a?b", "ä", "日本", "a b", "a" * 256, "-", "models:/x", "a//b", "%2F", "~",
]  # fmt: skip


def refused(check, *words):
    try:
        check(*words)
    except MlflowException:
        return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_the_rules_for_names_are_mlflows(name):
    taken_and_not_found = "?" in name  # models:/NAME/1 ends there
    wanted = refused(validation._validate_model_name, name) or taken_and_not_found
    assert bool(naming.model_problem(name)) == (wanted and name != "")
    assert bool(naming.experiment_problem(name)) == refused(validation._validate_experiment_name, name)


@pytest.mark.parametrize(
    "text", ["1", "0", "x", "-", "a-b_c", "a" * 64, "a" * 65, "a" * 256, "a" * 257, "", "a b", "ä"]
)
def test_the_rules_for_ids_are_mlflows(text):
    assert bool(preflight.RUN_ID.fullmatch(text)) == (not refused(validation._validate_run_id, text))
    assert bool(preflight.EXPERIMENT_ID.fullmatch(text)) == (not refused(validation._validate_experiment_id, text))


def test_the_limits_are_mlflows_or_those_of_its_databases():
    assert (naming.MAX_PARAM, naming.MAX_TAG) == (validation.MAX_PARAM_VAL_LENGTH, validation.MAX_TAG_VAL_LENGTH)
    assert SqlExperiment.name.type.length == naming.MAX_EXPERIMENT_NAME <= validation.MAX_EXPERIMENT_NAME_LENGTH
    assert SqlRegisteredModel.name.type.length == naming.MAX_MODEL_NAME
    assert SqlRun.name.type.length == naming.MAX_RUN_NAME
    assert set(DATABASE_ENGINES) < set(preflight.SCHEMES)


@pytest.mark.parametrize(
    ("knob", "value", "words"),
    [
        ("model_name", "a/b", "model_name 'a/b' has a '/', ':' or '?', which an address of a registered model"),
        ("model_name", "a?", "model_name 'a?' has a '/', ':' or '?', which an address of a registered model"),
        ("model_name", "m" * 257, "has 257 characters, MLflow takes 256"),
        ("experiment_name", "", "experiment_name '' is empty"),
        ("experiment_name", "two\nlines", "has line breaks or other control characters; give a name on one line"),
        ("run_name", "r" * 251, "has 251 characters, MLflow takes 250"),
        ("data_dir", "d" * 6001, "has 6,001 characters, MLflow takes 6,000"),
        ("run_name", "caf\udce9", r"run_name 'caf\udce9' has bytes that are no UTF-8 text"),
    ],
)
def test_a_name_that_mlflow_never_takes_is_refused_before_anything_is_left_behind(knob, value, words, capsys, tmp_path):
    assert cli.main(["train", "--dataset", "digits", f"--{knob}={value}"]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["it's", 'say "hi"', "50 %", "a?b", "Größe", "  x", "a.b", "back\\slash"])
def test_a_name_that_mlflow_takes_is_let_pass(name):
    given = {"model_name": name.replace("?", ""), "experiment_name": name, "run_name": name}
    preflight.check_names({**RunConfig().as_dict(), **given})


ADDRESSES = [
    "sqlite:///x.db", "sqlite:////a/x.db", "sqlite:///x.db?timeout=60", "sqlite:///a%20b.db", "sqlite:///a b.db",
    "sqlite:///50%25.db?check_same_thread=false", "sqlite+pysqlite:///x.db", "sqlite:///./x.db", "sqlite:///../x.db",
    "sqlite:///:memory:", "sqlite://", "sqlite:///", "sqlite:///x.db?", "sqlite:///a%3Fb.db", "sqlite:///ä.db",
    "sqlite:///C:\\x.db", "sqlite:///x#y.db", "sqlite:///file:x.db?mode=ro&uri=true", "sqlite:///x@y.db",
]  # fmt: skip


@pytest.mark.parametrize("uri", ADDRESSES)
def test_a_sqlite_address_is_read_as_sqlalchemy_reads_it(uri):
    url = make_url(uri)
    (database,), _ = url.get_dialect()().create_connect_args(url)
    expected = None if database == ":memory:" else Path(database.removeprefix("file:").partition("?mode")[0]).resolve()
    found = sqlite_path(uri)
    assert (found and found.resolve()) == expected


@pytest.mark.parametrize("name", ["a b", "50%", "a?b", "ä", "a%20b", "x#y", "it's"])
def test_the_default_is_a_database_in_this_folder_whatever_the_folder_is_called(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    assert sqlite_path(default_uri()) == tmp_path / name / "mlflow.db"
    assert make_url(default_uri()).database == str(tmp_path / name / "mlflow.db")
    assert sqlite_path(sqlite_uri(Path("x"))) == Path("x").absolute()


POSTGRESQL = make_url("postgresql://").get_dialect().driver  # another one with each version of SQLAlchemy


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("sqlite://x.db", "is no address of SQLite; write sqlite:///FILE"),
        ("sqlite://", "is a database in memory, which ends with the process that fills it"),
        ("localhost:5000", "lacks its scheme; did you mean http://localhost:5000?"),
        ("htp://host", "has the unknown scheme 'htp'; did you mean 'http'?"),
        ("http://host:port", "is no address (its port is no number up to 65535); "),
        ("http://host:65536", "is no address (its port is no number up to 65535); "),
        ("mssql+pymssql://host:port/x", "is no address (its port is no number up to 65535); "),
        ("http://[::1", "is no address (its host cannot be read); "),
        ("http:/host", "names no host"),
        (
            "http://host:5000/a@b",
            "is no address (an @ stands in its host or behind it); write / ? # @ of a password as",
        ),
        ("http://bob:2024#Secret@host", "is no address (an @ stands in its host or behind it); "),
        ("postgresql://bob:p@ss@db/mlflow", "is no address (an @ stands in its host or behind it); "),
        ("postgresql://bob:p@ss/w@db/mlflow", "is no address (an @ stands in its host or behind it); "),
        ("./mlruns", "is a folder, and MLflow keeps no more records as files"),
        ("file:///tmp/mlruns", "is a folder, and MLflow keeps no more records as files"),
        ("databricks", "needs DATABRICKS_HOST and DATABRICKS_TOKEN"),
        ("databricks-uc", "is a registry, not a store of runs"),
        ("mssql+pymssql://host/x", "needs the package pymssql, which is not installed here"),
        ("postgresql://host/x", f"needs the package {POSTGRESQL}, which is not installed here"),
        ("postgresql+typo://host/x", "cannot be opened (Can't load plugin: sqlalchemy.dialects:postgresql.typo)"),
    ],
)
def test_an_address_that_mlflow_never_opens_is_refused(uri, words, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"^MLFLOW_TRACKING_URI ") as caught:
        preflight.check(RunConfig().as_dict())
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["", "http://127.0.0.1:9"])
def test_a_folder_whose_name_is_no_text_is_refused_before_the_training(uri, monkeypatch, tmp_path):
    folder = tmp_path / os.fsdecode(b"Gr\xf6\xdfe")
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(
        ValueError, match=r"^runs_dir '.*' has bytes that are no UTF-8 text, which MLflow cannot store$"
    ):
        preflight.check(RunConfig().as_dict())
    if not uri:
        with pytest.raises(ValueError, match=r"no UTF-8 text, .*; rename that folder, or start in another$"):
            preflight.check_store("mnist-mlp")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://bob:S3cret/Pass@mlflow.test:5000", "http://mlflow.test:5000 is no address (its port is no number"),
        ("http://bob:S3cret@[mlflow.test", "'http://[mlflow.test' is no address (its host cannot be read)"),
        ("http://bob:2024#S3cret@mlflow.test", "http://mlflow.test is no address (an @ stands in its host or behind"),
        ("http://bob:2024/S3cret@mlflow.test", "http://mlflow.test is no address (an @ stands in its host or behind"),
        ("postgresql://bob:S3@cret@mlflow.test/x", "postgresql://mlflow.test/x is no address (an @ stands in its"),
        ("bob:S3cret@mlflow.test:5000", "mlflow.test:5000 lacks its scheme; did you mean http://mlflow.test:5000?"),
        ("bob:S3cret@mlflow.test", "mlflow.test has the unknown scheme 'bob'"),
        ("mssql+pymssql://bob:a@b:S3cret/c@mlflow.test/x", "mssql+pymssql://mlflow.test/x is no address (its port"),
    ],
)
def test_an_address_that_mlflow_never_opens_is_told_without_its_password(uri, told, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match=r"^MLFLOW_TRACKING_URI ") as caught:
        preflight.check(RunConfig().as_dict())
    assert str(caught.value).startswith(f"MLFLOW_TRACKING_URI {told}")
    assert "S3cret" not in str(caught.value)


def test_a_databases_password_may_have_a_slash_as_sqlalchemy_reads_it():
    needs = preflight.address_problem("mssql+pymssql://bob:S3cret/Pass@mlflow.test/x")
    assert needs.startswith("needs the package pymssql, which is not installed here")


def test_schemes_are_told_apart_as_mlflow_does():
    for uri in ("http://h", "HTTPS://h/x", "postgresql+psycopg2://h/x", "sqlite:///x", "file:///x", "/x", "C:\\x"):
        assert get_uri_scheme(uri) in (*preflight.SCHEMES, "", uri.partition("+")[0])


def test_a_file_store_that_the_user_has_allowed_is_let_pass(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert preflight.address_problem("file:///tmp/mlruns") == ""


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A store with an experiment and a run that live, and one of each that is deleted: (path, ids)."""
    folder = tmp_path_factory.mktemp("it's 50 % full")
    path = folder / "mlflow.db"
    before, variable = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    client = connect(sqlite_uri(path))
    ids = {name: client.create_experiment(name) for name in ("here", "gone")}
    ids |= {"run": client.create_run(ids["here"]).info.run_id, "gone run": client.create_run(ids["here"]).info.run_id}
    client.delete_run(ids["gone run"])
    client.delete_experiment(ids["gone"])
    mlflow.set_tracking_uri(before if variable else None)
    assert [each.name for each in folder.iterdir() if "%25" in each.name] == []
    return path, ids


@pytest.fixture
def check(database, monkeypatch):
    """The check of that store, with the variables given."""

    def run(experiment_name="here", **variables):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri(database[0]) + "?timeout=60")
        for name, value in variables.items():
            monkeypatch.setenv(name, database[1].get(value, value) if name.endswith("_ID") else value)
        preflight.check({**RunConfig().as_dict(), "experiment_name": experiment_name})

    return run


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"experiment_name": "new"},
        {"MLFLOW_EXPERIMENT_ID": "here"},
        {"MLFLOW_EXPERIMENT_ID": "0"},
        {"MLFLOW_RUN_ID": "run"},
        {"MLFLOW_EXPERIMENT_NAME": "it's"},
    ],
)
def test_what_the_store_has_or_will_have_is_let_pass(check, variables):
    check(**variables)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"experiment_name": "gone"}, "experiment 'gone' has been deleted in sqlite:"),
        ({"MLFLOW_EXPERIMENT_NAME": "gone"}, "restore it (mlflow experiments restore), or give another name"),
        ({"MLFLOW_EXPERIMENT_ID": "77"}, "MLFLOW_EXPERIMENT_ID '77' is no experiment of sqlite:"),
        ({"MLFLOW_EXPERIMENT_ID": "a b"}, "MLFLOW_EXPERIMENT_ID 'a b' is no experiment of sqlite:"),
        ({"MLFLOW_EXPERIMENT_ID": "gone"}, "has been deleted in sqlite:"),
        ({"MLFLOW_RUN_ID": "0" * 32}, f"MLFLOW_RUN_ID '{'0' * 32}' is no run of sqlite:"),
        ({"MLFLOW_RUN_ID": "gone run"}, "restore it (mlflow runs restore --run-id "),
    ],
)
def test_what_the_store_is_known_not_to_have_is_refused(check, variables, words):
    with pytest.raises(ValueError, match=r"(in|of) sqlite:") as caught:
        check(**variables)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_check_answers_as_mlflow_does(database):
    path, ids = database
    client = mlflow.MlflowClient(sqlite_uri(path), sqlite_uri(path))
    store = lookups.SqliteStore(path)
    for name in ("here", "gone"):
        stage = client.get_experiment_by_name(name).lifecycle_stage
        assert stage == store.experiment_named(name) == store.experiment(ids[name])
    assert client.get_run(ids["gone run"]).info.lifecycle_stage == store.run(ids["gone run"]) == "deleted"


def test_a_store_that_is_locked_is_no_reason_not_to_train(database, monkeypatch, tmp_path):
    copy = tmp_path / "locked.db"
    copy.write_bytes(database[0].read_bytes())
    monkeypatch.setattr(lookups, "PATIENCE_S", 0.05)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri(copy))
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with sqlite3.connect(copy) as other:
        other.execute("BEGIN EXCLUSIVE")
        preflight.check(RunConfig().as_dict())
    with pytest.raises(ValueError, match="is no run of"):
        preflight.check(RunConfig().as_dict())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_text("not a database, but long enough to be taken for one" * 40), "is no database"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder, not a database file"),
        (
            lambda path: _set_schema(path, "0584bdc529eb"),
            "was made by an older MLflow; copy it, then bring",
        ),
        (lambda path: _set_schema(path, "v3.2.0.a"), "was made by a newer MLflow or by another program"),
    ],
)
def test_a_file_that_mlflow_never_opens_is_refused(database, monkeypatch, tmp_path, damage, words):
    path = tmp_path / "mlflow.db"
    path.write_bytes(database[0].read_bytes())
    damage(path)
    with pytest.raises(ValueError, match="or set MLFLOW_TRACKING_URI to another store") as caught:
        preflight.check(RunConfig().as_dict())
    assert words in str(caught.value)


def test_a_file_whose_name_is_too_long_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:////{'a' * 256}")
    assert cli.main(["train", "--dataset", "digits"]) == 2
    told = f"/{'a' * 256} cannot be reached (File name too long); or set MLFLOW_TRACKING_URI to another store"
    assert capsys.readouterr().err == f"pipeline: {told}\n"


def test_a_file_in_a_folder_of_somebody_else_is_refused_in_one_line(monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////home/other/mlflow.db")
    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(ValueError, match=r"^/home/other/mlflow.db cannot be reached \(Permission denied\); or set MLF"):
        preflight.check_store("flowers")


def test_a_store_that_cannot_be_reached_is_where_a_record_went_all_the_same(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri.store_of({"tracking_uri": f"sqlite:////{'a' * 256}"}) == f"sqlite:////{'a' * 256}"


def test_an_older_file_in_a_folder_of_any_name_is_upgraded_by_what_is_told(database, tmp_path):
    path = tmp_path / "50 %" / "a?b.db"
    path.parent.mkdir()
    path.write_bytes(database[0].read_bytes())
    _set_schema(path, "0584bdc529eb")
    with pytest.raises(ValueError, match="mlflow db upgrade ") as caught:
        lookups.SqliteStore(path)
    (uri,) = shlex.split(str(caught.value).partition("mlflow db upgrade ")[2])
    assert make_url(uri).database == str(path)


def _set_schema(path, version):
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))


def test_the_schema_that_is_wanted_is_the_one_that_mlflow_makes(database):
    with sqlite3.connect(database[0]) as connection:
        ((made,),) = connection.execute("SELECT version_num FROM alembic_version")
    assert lookups.schema_versions()[0] == made


class Answering(http.server.BaseHTTPRequestHandler):
    """Gives every request the server's one answer."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Authorization")))
        status, text = server.answer
        server.goes_on.wait(60)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:{server.server_port}/login")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words):
        pass


@pytest.fixture
def server(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as running:
        running.asked, running.answer, running.daemon_threads = [], (200, "{}"), True
        running.goes_on = threading.Event()
        running.goes_on.set()
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.uri = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
        yield running
        running.goes_on.set()
        running.shutdown()


def not_there(code="RESOURCE_DOES_NOT_EXIST"):
    return json.dumps({"error_code": code, "message": "no"})


@pytest.mark.parametrize("status", [404, 200])
def test_mlflows_own_word_that_there_is_no_such_run_is_believed(server, status, monkeypatch):
    server.answer = (status, not_there())
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(ValueError, match=rf"is no run of {server.uri}: set MLFLOW_TRACKING_URI"):
        preflight.check(RunConfig().as_dict())
    assert [path for path, _ in server.asked] == [f"/api/2.0/mlflow/runs/get?run_id={'0' * 32}"]


def test_the_command_that_sends_a_record_elsewhere_finds_the_run_where_it_lies(server):
    server.answer = (404, not_there())
    for folder, words in (
        (Path("runs/one"), "sync one --as-new"),
        (Path("my runs/one"), "sync one --as-new --runs_dir 'my runs'"),
    ):
        with pytest.raises(ValueError, match="is no run of") as caught:
            preflight.check_store("any", "0" * 32, folder)
        assert str(caught.value).endswith(f"or send the record elsewhere: python -m pipeline {words}")


@pytest.mark.parametrize(
    "answer",
    [
        (404, "<html>no such page</html>"),
        (401, "You are not authenticated"),
        (403, '{"error": "forbidden"}'),
        (500, not_there("INTERNAL_ERROR")),
        (502, ""),
        (200, "<html>please log in</html>"),
        (200, "[]"),
        (302, ""),
        (404, not_there("ENDPOINT_NOT_FOUND")),
    ],
)
def test_what_a_proxy_says_in_its_place_is_not(server, answer, monkeypatch):
    server.answer = answer
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    preflight.check(RunConfig().as_dict())
    assert len(server.asked) == 1


def test_a_deleted_experiment_of_a_server_is_refused(server):
    server.answer = (200, json.dumps({"experiment": {"experiment_id": "3", "lifecycle_stage": "deleted"}}))
    with pytest.raises(ValueError, match="experiment 'mnist-mlp' has been deleted in http:"):
        preflight.check(RunConfig().as_dict())
    server.answer = (404, not_there())  # it is going to be made
    preflight.check(RunConfig().as_dict())


def test_a_dead_or_slow_server_costs_seconds_and_nothing_else(server, monkeypatch):
    monkeypatch.setattr(lookups, "PATIENCE_S", 0.1)
    server.answer = (404, not_there())
    server.goes_on.clear()
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    preflight.check(RunConfig().as_dict())  # nobody waits for the answer, which would be that there is no such run
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    preflight.check(RunConfig().as_dict())


@pytest.mark.parametrize(
    ("variables", "userinfo", "expected"),
    [
        ({"MLFLOW_TRACKING_USERNAME": "bob", "MLFLOW_TRACKING_PASSWORD": "pw"}, "", "Basic " + "bob:pw"),
        ({"MLFLOW_TRACKING_TOKEN": "secret-token"}, "", "Bearer secret-token"),
        ({}, "bob:p%40w@", "Basic bob:p@w"),
        ({}, "", None),
    ],
)
def test_the_server_is_asked_with_the_credentials_that_mlflow_sends(server, variables, userinfo, expected, monkeypatch):
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("//", f"//{userinfo}"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    preflight.check(RunConfig().as_dict())
    ((_, sent),) = server.asked
    if expected and expected.startswith("Basic"):
        sent = "Basic " + base64.b64decode(sent.removeprefix("Basic ")).decode()
    assert sent == expected


def test_the_check_imports_no_mlflow():
    code = """import sys
from pipeline.mlflow_client import preflight
preflight.check({"experiment_name": "a", "model_name": "b", "run_name": "", "runs_dir": "runs"})
print({"mlflow", "torch", "sqlalchemy", "requests"} & set(sys.modules))"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.slow
def test_an_old_folder_of_records_does_not_decide_where_new_ones_go(tmp_path, capsys):
    (tmp_path / "mlruns/0").mkdir(parents=True)
    (tmp_path / "mlruns/0/meta.yaml").write_text("artifact_location: x\nexperiment_id: '0'\nname: Default\n")
    assert mlflow.tracking._tracking_service.utils._get_default_tracking_uri() == "./mlruns"  # MLflow's choice
    preflight.check(RunConfig().as_dict())
    assert "records go to mlflow.db here; the older ones in ./mlruns stay as they are" in capsys.readouterr().err
    knobs = ["--dataset", "digits", "--epochs", "1", "--hidden_units", "8", "--accelerator", "cpu"]
    done = run_pipeline("train", *knobs, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1
    compared = run_pipeline("compare", "mnist-mlp", cwd=tmp_path)
    assert f"in sqlite:///{tmp_path}/mlflow.db" in done.stdout
    assert (compared.returncode, compared.stderr) == (0, "")


def test_config_errors_are_told_together():
    with pytest.raises(ConfigError) as caught:
        preflight.check_names({**RunConfig().as_dict(), "model_name": "a/b", "experiment_name": ""})
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("sqlite:///a%20b.db?timeout=60", "sqlite:///{here}/a b.db?timeout=60"),
        ("sqlite:////absolute/x.db", "sqlite:////absolute/x.db"),
        ("http://server:5000", "http://server:5000"),
    ],
)
def test_a_relative_store_is_kept_as_the_file_that_it_means_here(monkeypatch, tmp_path, given, kept):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert tracking_uri.tracking_uri() == kept.format(here=tmp_path)
    assert tracking_uri.store_of({"tracking_uri": "sqlite:////elsewhere.db"}) == kept.format(here=tmp_path)
