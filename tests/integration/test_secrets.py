"""No password, token or key stands in anything that is written, printed or answered."""

import json
import urllib.error
import urllib.request

import pytest

from pipeline.redaction import address_without_secrets, without_secrets
from pipeline.tracking.journal import RunFolder
from tests import faults
from tests.conftest import Service, run_pipeline

PASSWORD, TOKEN, AWS = "S3cret%21Pw", "tok-0123456789abcdef", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY"
ENVIRONMENT = {"PIPELINE_TOKEN": TOKEN, "AWS_SECRET_ACCESS_KEY": AWS, "MLFLOW_TRACKING_TOKEN_FILE": "/nowhere"}
SECRETS = (PASSWORD, "S3cret!Pw", TOKEN, AWS)
KNOBS = ["--dataset", "digits", "--epochs", "1", "--hidden_units", "16", "--accelerator", "cpu"]


@pytest.mark.parametrize(
    ("told", "without"),
    [
        ("http://bob:S3cretPw@host:5000/x?y=1", "http://host:5000/x?y=1"),
        ("no answer from https://bob@host, really", "no answer from https://host, really"),
        ("postgresql+psycopg://u:p%40ss@db/mlflow", "postgresql+psycopg://db/mlflow"),
        ("http://u:p@ss@host/", "http://host/"),
        ("mysql://h/db?user=u&password=pw&x=1", "mysql://h/db?user=u&password=***&x=1"),
        ("s3://bucket/path?X-Amz-Signature=abc&X-Amz-Date=1", "s3://bucket/path?X-Amz-Signature=***&X-Amz-Date=1"),
        ("two: ftp://a:b@c and ssh://d:e@f.", "two: ftp://c and ssh://f."),
        ("sqlite:////home/you/mlflow.db?timeout=60", "sqlite:////home/you/mlflow.db?timeout=60"),
        ("write to me@example.org", "write to me@example.org"),
        ("http://bob:S3cret/Pass@host:5000", "http://host:5000"),
        ("no answer from http://bob:S3c#ret@host, really", "no answer from http://host, really"),
        ("'http://bob:?S3c/ret@host/x' is none", "'http://host/x' is none"),
        ("http://bob:S3@cret/Pass@host/", "http://host/"),
        ("http://bob:1/2@host/", "http://bob:1/2@host/"),  # for all that can be seen a host, a port and a path
        ("http://bob:12345@host and http://bob:123S/3@host", "http://host and http://host"),
        ("http://h:5000,http://bob:a/b@h:1", "http://h:5000,http://h:1"),
        ("no answer from http://bob:2024#Secret@mlflow:5000", "no answer from http://mlflow:5000"),
        ("http://bob:2024?Secret@mlflow:5000/x", "http://mlflow:5000/x"),
        ("postgresql://bob:1/2@db/x", "postgresql://db/x"),  # there a port is followed by no @
        ("run 1 in postgresql://bob:it's@db/x", "run 1 in postgresql://db/x"),
        ("'http://o'bob:a\"b'@h:1' is none", "'http://h:1' is none"),
        ("'http://h:5000','http://bob:pw@h'", "'http://h:5000','http://h'"),
        ('{"uri":"http://h:5000","mail":"a@b"}', '{"uri":"http://h:5000","mail":"a@b"}'),
        ("http://host:5000/models@champion", "http://host:5000/models@champion"),
        ("http://[::1]:5000/models@champion", "http://[::1]:5000/models@champion"),
        ("http://host/x?mail=a@b", "http://host/x?mail=a@b"),
        ("http://host/a:b@c", "http://host/a:b@c"),
        ("at http://host:5000 me@example.org", "at http://host:5000 me@example.org"),
        ("sqlite:////home/a:b/x@y.db", "sqlite:////home/a:b/x@y.db"),
    ],
)
def test_an_address_is_told_without_its_secrets(told, without):
    assert without_secrets(told) == without


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("bob:S3cret/Pass@host:5000/x", "host:5000/x"),
        ("bob@host", "host"),
        ("http://bob:S3cret/Pass@host", "http://host"),
        ("http://bob:1/2@host/", "http://host/"),
        ("http://it's', me:pw@host", "http://host"),
        ("postgresql://bob:it', 's@db/x?user=u@srv", "postgresql://db/x?user=u@srv"),
        ("sqlite:////home/you:a@b/mlflow.db", "sqlite:////home/you:a@b/mlflow.db"),
        ("host:5000/models@champion", "host:5000/models@champion"),
        ("./a@b", "./a@b"),
    ],
)
def test_an_address_by_itself_is_told_without_them_also_where_it_lacks_its_scheme(address, shown):
    assert address_without_secrets(address) == shown


@pytest.mark.parametrize(
    "part", ["a", "://", "://a:", "://a:b/", "://a@", "&key", "&keyx=", "?token", "://a'", "'", "://'a:'"]
)
def test_long_lines_are_looked_through_once(part):
    """Each would take minutes if its end were looked for from every place."""
    assert without_secrets(part * 100_000) == part.replace("a@", "") * 100_000


def test_the_value_of_a_secret_variable_is_never_told_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "open-sesame")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "open-sesame-and-more")
    monkeypatch.setenv("SHORT_TOKEN", "a")
    assert without_secrets("a: open-sesame-and-more, open-sesame") == "a: ***, ***"


def written_below(*folders):
    """Every file below the folders that holds a secret, with the secret."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return [(path, secret) for path in files for secret in SECRETS if secret.encode() in path.read_bytes()]


def told(*processes):
    text = "".join(done.stdout + done.stderr for done in processes)
    return [secret for secret in SECRETS if secret in text]


@pytest.mark.slow
def test_a_run_its_delivery_and_its_service_tell_no_secret(tmp_path):
    server = faults.Server(tmp_path / "server").start()
    cwd = tmp_path / "here"
    cwd.mkdir()
    uri = server.uri.replace("http://", f"http://bob:{PASSWORD}@")
    try:
        trained = run_pipeline("train", *KNOBS, cwd=cwd, MLFLOW_TRACKING_URI=uri, **ENVIRONMENT)
        assert trained.returncode == 0, trained.stderr
        assert server.uri in trained.stdout
    finally:
        server.kill()
    failed = run_pipeline("train", *KNOBS, cwd=cwd, MLFLOW_TRACKING_URI=uri, **ENVIRONMENT)
    assert "not delivered" in failed.stderr
    synced = run_pipeline("sync", cwd=cwd, MLFLOW_TRACKING_URI=uri, **ENVIRONMENT)
    assert server.uri in synced.stderr
    service = Service(uri, cwd, **ENVIRONMENT)
    try:
        answers = [_answer(service.address + route) for route in ("/health", "/ready", "/ping", "/version")]
    finally:
        service.stop()
    assert json.loads(answers[0][1])["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert server.uri in answers[0][1]
    assert [secret for secret in SECRETS for _, body in answers if secret in body] == []
    assert told(trained, failed, synced) == []
    logs = [path.read_text() for path in cwd.glob("runs/*/sender.log")]
    assert any(f"no answer from {server.uri}" in text for text in logs)  # its log has something that could tell
    assert written_below(tmp_path) == []
    folders = [path.parent for path in cwd.glob("runs/*/journal.jsonl")]
    assert [RunFolder(path).state()["tracking_uri"] for path in folders if "tracking_uri" in RunFolder(path).state()]
    assert [oct(path.stat().st_mode & 0o777) for path in folders] == ["0o700", "0o700"]


def _answer(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
