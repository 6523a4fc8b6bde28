"""Promotion: looks are counted, the aliases move together, and the digits decide for real."""

import contextlib
import http.server
import shutil
import sqlite3
import threading

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from pipeline import cli
from pipeline.config import RunConfig
from pipeline.mlflow_client import searches
from pipeline.mlflow_client.connection import connect
from pipeline.registry import log_model, looks, promotion, promotion_lock
from pipeline.training import fit
from pipeline.training.onnx_export import export_onnx
from tests.conftest import ready_store


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with three digits networks: version 1 good, 2 worse, 3 better."""
    folder = tmp_path_factory.mktemp("promotion")
    before = mlflow.get_tracking_uri()
    client = connect(ready_store(folder))
    experiment = client.create_experiment("digits", artifact_location=str(folder / "artifacts"))
    np.save(folder / "example.npy", np.zeros((2, 28, 28), np.uint8))
    for epochs in (3, 1, 8):
        result = fit.fit(RunConfig(dataset="digits", hidden_units=32, epochs=epochs, accelerator="cpu"))
        export_onnx(result.classifier.network, result.data.source.spec, folder / "network.onnx")
        run_id = client.create_run(experiment).info.run_id
        model_id = log_model.log_model(client, run_id, folder / "network.onnx", folder / "example.npy")
        tags = {"dataset": "digits", "data_digest": result.data.source.digest}
        log_model.register(client, "digits-mlp", run_id, model_id, tags)
    mlflow.set_tracking_uri(before)
    return folder


@pytest.fixture
def client(trained):
    """A client of the store, where version 1 is champion."""
    before = mlflow.get_tracking_uri()
    client = connect(f"sqlite:///{trained}/mlflow.db")
    client.set_registered_model_alias("digits-mlp", "champion", "1")
    for look in client.get_registered_model("digits-mlp").tags:
        client.delete_registered_model_tag("digits-mlp", look)
    if "previous" in aliases(client):
        client.delete_registered_model_alias("digits-mlp", "previous")
    yield client
    mlflow.set_tracking_uri(before)


def aliases(client):
    return {name: str(version) for name, version in client.get_registered_model("digits-mlp").aliases.items()}


@pytest.fixture
def promote(client, capsys):
    """`python -m pipeline promote` in this process: (exit code, output, error output)."""

    def run(*arguments):
        code = cli.main(["promote", *arguments, "--model", "digits-mlp"])
        return code, *capsys.readouterr()

    return run


def test_a_worse_version_is_refused_and_the_verdict_is_kept_with_it(promote, client):
    code, out, err = promote("2")
    assert code == 1
    assert err.startswith("refuse: not shown to be better; needs p < 0.025 (look 1), has ")
    assert "look 1 at 360 test examples" in out
    assert aliases(client) == {"champion": "1"}
    tags = client.get_model_version("digits-mlp", "2").tags
    assert tags["promotion.verdict"].startswith("refuse: not shown to be better")
    assert tags["promotion.against"] == "version 1"


def test_a_better_version_becomes_champion_and_is_rolled_back(promote, client):
    code, out, _ = promote()
    assert code == 0
    assert "version 3 is champion now, version 1 previous" in out
    assert aliases(client) == {"champion": "3", "previous": "1"}
    assert promote("3") == (0, "digits-mlp version 3 is the champion already: nothing to do\n", "")
    assert promote("--rollback")[0] == 0
    assert aliases(client) == {"champion": "1", "previous": "3"}
    assert "in favour of version 1" in client.get_model_version("digits-mlp", "3").tags["promotion.rolled_back"]


def everything(folder):
    """Every row of the store, and every file beside it."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        rows = list(database.iterdump())
    return rows, {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


TARGETS = ["3", "2", "newest", "looked at before", "a run without a version", "without a champion"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_dry_run_changes_nothing(promote, client, trained, tmp_path, target):
    words = "dry run: nothing was changed"
    if target == "without a champion":
        client.delete_registered_model_alias("digits-mlp", "champion")
        target, words = "2", "digits-mlp has no champion; version 2 would become it"
    elif target == "looked at before":
        assert promote("2")[0] == 1
        target = "2"
    elif target == "a run without a version":
        experiment = client.get_experiment_by_name("digits").experiment_id
        target = client.create_run(experiment).info.run_id
        client.log_param(target, "dataset", "digits")
        log_model.log_model(client, target, trained / "network.onnx", trained / "example.npy")
    before = everything(trained)
    code, out, _ = promote(target, "--dry-run")
    assert code == ("right alone" in out) == bool(client.get_registered_model("digits-mlp").tags)
    assert out.splitlines()[-1] == words
    assert everything(trained) == before
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_takes_no_lock_file(promote, client, trained):
    lock = trained / "mlflow.db.promote.lock"
    lock.unlink(missing_ok=True)
    promote("3", "--dry-run")
    assert not lock.exists()
    promote("3")
    assert lock.exists()


@pytest.mark.parametrize("arguments", [["--dry-run"], [], ["--rollback"]], ids=" ".join)
def test_where_nothing_was_recorded_nothing_is_left_behind(promote, client, tmp_path, arguments):
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    words = f"pipeline: no models in sqlite:///{tmp_path}/mlflow.db: the file does not exist; "
    words += "run from the project's folder, or set MLFLOW_TRACKING_URI\n"
    assert promote(*arguments) == (2, "", words)
    assert list(tmp_path.iterdir()) == []


def test_force_promotes_all_the_same_and_its_reason_is_recorded(promote, client):
    assert promote("2", "--force", "the old one cannot be explained")[0] == 0
    assert aliases(client) == {"champion": "2", "previous": "1"}
    assert client.get_model_version("digits-mlp", "2").tags["promotion.forced"] == "the old one cannot be explained"


def test_of_an_earlier_verdict_nothing_stays_with_a_version(promote, client, monkeypatch):
    promote("2", "--force", "the old one cannot be explained")
    promote("--rollback")
    assert promote("2")[0] == 1
    tags = client.get_model_version("digits-mlp", "2").tags
    assert tags["promotion.verdict"].startswith("refuse: ")
    assert "promotion.forced" not in tags
    monkeypatch.setattr(promotion.challenge, "prepare", lambda *given, force: None)  # the champion does not open
    promote("2", "--force", "its files are gone")
    tags = client.get_model_version("digits-mlp", "2").tags
    assert tags["promotion.verdict"] == "not compared: the champion could not be opened"
    assert not {"promotion.accuracy", "promotion.look"} & tags.keys()


def test_a_run_stands_for_its_version(promote, client):
    run_id = client.get_model_version("digits-mlp", "3").run_id
    assert "version 3 would be compared" in promote(run_id, "--dry-run")[1]


def test_models_of_other_data_are_not_compared(promote, client):
    digest = client.get_model_version("digits-mlp", "2").tags["data_digest"]
    client.set_model_version_tag("digits-mlp", "2", "data_digest", "other")
    try:
        code, _, err = promote("2")
    finally:
        client.set_model_version_tag("digits-mlp", "2", "data_digest", digest)
    assert code == 2
    assert "they cannot be compared here" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["9"], "model digits-mlp has no version 9 (versions: 1, 2, 3)"),
        (["nobody"], "no run 'nobody' in runs"),
        (["--rollback"], "has no alias 'previous'"),
        (["--rollback", "2"], "--rollback goes alone"),
        (["--rollback", "--margin", "1"], "--rollback goes alone"),
        (["2", "--force", " "], "--force needs a reason"),
        (["2", "--margin", "0"], "'0' is not a number of percentage points from 0.01 to 10"),
        (["2", "--margin", "nan"], "'nan' is not a number of percentage points from 0.01 to 10"),
        (["--dryrun"], "unknown flag '--dryrun'; did you mean --dry-run?"),
    ],
)
def test_a_mistake_is_one_clear_line(promote, client, arguments, words):
    code, out, err = promote(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert aliases(client) == {"champion": "1"}


def test_two_at_once_leave_one_champion_and_the_one_before(client):
    versions = ("2", "3")

    def forced(version):
        promotion.promote(version, "digits-mlp", runs_dir="runs", data_dir="data", force="a test")

    threads = [threading.Thread(target=forced, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = aliases(client)
    assert {found["champion"], found["previous"]} == {"2", "3"}


def test_the_same_comparison_is_one_look_and_another_is_the_next(promote, client):
    for number, version in ((1, "2"), (1, "2"), (2, "3")):
        assert f"look {number} at 360 test examples" in promote(version)[1]
    assert len(client.get_registered_model("digits-mlp").tags) == 2


def test_a_margin_asks_for_less_and_is_said(promote, client):
    code, _, err = promote("2", "--margin", "1")
    assert code == 1
    assert err.startswith("refuse: not shown to be at most 1 points worse; needs p < 0.025 (look 1), has ")
    code, out, _ = promote("3", "--margin=0.5")
    assert code == 0
    assert "promote: shown to be at most 0.5 points worse; needs p < 0.00833 (look 2), has " in out
    assert aliases(client) == {"champion": "3", "previous": "1"}


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_registry_that_dies_while_a_look_is_counted_shows_nothing_and_counts_it_once(
    promote, client, monkeypatch, fails_at
):
    real, calls = mlflow.MlflowClient.set_registered_model_tag, []

    def dying(*words):
        calls.append(words)
        if len(calls) == fails_at:
            raise MlflowException("API request to http://registry/api failed with exception Connection refused")
        return real(*words)

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_tag", dying)
    code, out, err = promote("3")
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    code, out, _ = promote("3")
    assert code == 0
    assert "look 1 at 360 test examples" in out


def test_many_looks_at_once_are_all_counted(client):
    client.create_registered_model("looked-at")
    found, keys = [], [looks.key_of("test.0", "models:/m-1", str(number)) for number in range(8)]

    def look(key):
        found.append(looks.count(client, "looked-at", key, "a test", 0))

    threads = [threading.Thread(target=look, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(number >= place for place, number in enumerate(sorted(found), 1))
    assert looks.upcoming(client, "looked-at", "promotion.look.test.0.late", 0) == 9


def test_versions_compared_by_the_rule_of_before_have_had_their_looks(promote, client):
    client.set_model_version_tag("digits-mlp", "2", "promotion.mcnemar", "p = 0.1, 3 to 9")
    try:
        assert "it would be look 2 at them" in promote("3", "--dry-run")[1]
        assert "look 2 at 360 test examples" in promote("3")[1]
    finally:
        client.delete_model_version_tag("digits-mlp", "2", "promotion.mcnemar")


def test_the_first_version_of_a_model_without_champion_becomes_it(promote, client):
    client.delete_registered_model_alias("digits-mlp", "champion")
    assert promote("2") == (0, "digits-mlp has no champion; version 2 becomes it\n", "")
    assert aliases(client) == {"champion": "2"}


COMMANDS = [
    ["promote", "--model", "digits-mlp"],
    ["promote", "2", "--dry-run"],
    ["promote", "some-run"],
    ["promote", "--rollback"],
    ["compare", "trial"],
    ["compare"],
    ["report"],
]
QUESTION = (
    "question: Why?\nshared: {validation_size: 100}\nvariants: {a: {}, b: {dropout: 0.5}}\nbaseline: a\nseeds: [1, 2]\n"
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_dead_server_is_one_line_and_its_own_exit_code(client, capsys, tmp_path, monkeypatch, arguments):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/why.yaml").write_text(QUESTION)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    assert cli.main(arguments) == 3
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("pipeline: no answer from http://127.0.0.1:9; ")


@pytest.mark.parametrize("status", [200, 401, 403, 404, 500])
def test_so_is_what_answers_in_its_place(client, capsys, monkeypatch, status):
    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>\n<body>please log in</body>\n</html>")

        def log_message(self, *words):
            pass

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        mlflow.set_tracking_uri(f"http://127.0.0.1:{proxy.server_port}")
        assert cli.main(["promote"]) == 3
        proxy.shutdown()
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert f"answers {status}" in err or status == 200
    assert ("MLFLOW_TRACKING_USERNAME" in err) == (status in (401, 403))


@pytest.fixture
def cut(monkeypatch):
    """The registry dies at the second alias that is set, once."""
    real, calls = mlflow.MlflowClient.set_registered_model_alias, []

    def dying(*words):
        calls.append(words)
        if len(calls) == 2:
            raise MlflowException("API request to http://registry/api failed with exception Connection refused")
        return real(*words)

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", dying)


def test_a_promotion_that_was_cut_off_is_made_whole_by_running_it_again(promote, client, cut):
    code, _, err = promote("3")
    assert (code, len(err.splitlines())) == (3, 1)
    assert "run it again when it does: what was half done is made whole" in err
    assert aliases(client) == {"champion": "1", "previous": "1"}
    assert promote("3")[0] == 0
    assert aliases(client) == {"champion": "3", "previous": "1"}


def test_a_rollback_that_was_cut_off_is_made_whole_by_running_it_again(promote, client, monkeypatch, request):
    assert promote("3")[0] == 0
    request.getfixturevalue("cut")
    assert promote("--rollback")[0] == 3
    assert aliases(client) == {"champion": "1", "previous": "1"}
    assert promote("--rollback")[0] == 0
    assert aliases(client) == {"champion": "1", "previous": "3"}


def test_there_is_nothing_to_go_back_to_where_champion_and_previous_are_one(promote, client):
    client.set_registered_model_alias("digits-mlp", "champion", "2")
    client.set_registered_model_alias("digits-mlp", "previous", "2")
    code, _, err = promote("--rollback")
    assert code == 2
    assert "version 2 of digits-mlp is both champion and previous: there is nothing to go back to" in err


@pytest.fixture
def without_files(client):
    """The files of version 1 are gone until the test is over."""
    source = client.get_model_version("digits-mlp", "1").source
    folder = client.get_logged_model(source.removeprefix("models:/")).artifact_location.removeprefix("file://")
    shutil.move(folder, f"{folder}.away")
    yield
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(f"{folder}.away", folder)


def test_a_champion_whose_files_are_gone_is_told_and_can_be_replaced(promote, client, without_files):
    code, _, err = promote("3")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "the champion, digits-mlp version 1 cannot be " in err
    assert "--force REASON replaces it without a comparison" in err
    assert promote("3", "--force", "its files are gone")[0] == 0
    assert aliases(client) == {"champion": "3", "previous": "1"}
    tags = client.get_model_version("digits-mlp", "3").tags
    assert tags["promotion.verdict"] == "not compared: the champion could not be opened"
    code, _, err = promote("1")
    assert (code, len(err.splitlines())) == (2, 1)


def test_a_run_of_another_store_is_told(promote, tmp_path):
    from pipeline.tracking.journal import Journal, RunFolder

    folder = RunFolder(tmp_path / "runs/elsewhere")
    journal = Journal(folder)
    journal.append("start", run_key="k", mlflow_run_id=None, tags={}, params={}, parent="")
    journal.close()
    folder.write_state({"run_id": "0" * 32, "tracking_uri": "http://other:5000"})
    code, _, err = promote("elsewhere")
    assert code == 2
    assert "run elsewhere was recorded in http://other:5000; sqlite:" in err


def test_the_lock_lies_beside_the_registry_or_is_the_users_own(client, trained, tmp_path, monkeypatch):
    assert promotion_lock._lock_path("m") == trained / "mlflow.db.promote.lock"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    own = promotion_lock._lock_path("m")
    assert (own.parent.parent, own.parent.stat().st_mode & 0o777) == (tmp_path, 0o700)
    monkeypatch.setattr(promotion_lock.os, "getuid", lambda: 12345)
    assert promotion_lock._lock_path("m").parent != own.parent if own.parent.stat().st_uid == 12345 else True
    (tmp_path / "pipeline-54321").mkdir()
    monkeypatch.setattr(promotion_lock.os, "getuid", lambda: 54321)
    assert promotion_lock._lock_path("m") is None


def test_a_lock_that_cannot_be_had_is_done_without(promote, client, trained, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(promotion_lock, "FileLock", refuse)
    assert promote("3")[0] == 0
    assert aliases(client)["champion"] == "3"


@pytest.mark.parametrize("name", ["it's", 'say "hi"', """it's "both" """.strip(), "back\\slash", "50%", "a;b", "a--b"])
def test_any_name_is_found_in_the_registry(client, name):
    run_id = client.get_model_version("digits-mlp", "1").run_id
    source = client.get_model_version("digits-mlp", "1").source
    client.create_registered_model(name)
    try:
        made = client.create_model_version(name, source, run_id=run_id)
        assert [each.version for each in searches.versions(client, name)] == [made.version]
        assert log_model.version_of_run(client, name, run_id).version == made.version
        assert searches.versions(client, name + "x") == []
        assert name in [each.name for each in searches.models(client)]
    finally:
        client.delete_registered_model(name)
