"""What an error of MLflow's client means: final, an answer, silence; and in words. The errors are real ones."""

import errno
import http.server
import json
import sqlite3
import threading

import mlflow
import pytest
import requests
import sqlalchemy
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.db.utils import _get_managed_session_maker

from pipeline.mlflow_client.errors import (
    ToldError,
    asking,
    in_words,
    is_answer,
    is_final,
    is_not_there,
    is_refusal,
    is_silence,
)
from pipeline.terminal.shell import UnreachableError
from tests.fake_mlflow import refusal

PAGE = b"<html><body>the gateway says no</body></html>"
WHO = "; check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN, or the proxy in between"


@pytest.fixture(scope="module")
def server():
    """Answers every request with its `answer`, a status and a body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_any(self):
            status, body = self.server.answer
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if status is None:
                self.server.over.wait(20)
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if body.startswith(b"{") else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any  # noqa: N815

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.over = True, threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def uri(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    mlflow.set_tracking_uri(f"http://127.0.0.1:{server.server_port}")
    yield mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(None)


def error_of(act, *words):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        act(*words)
    return caught.value


def mlflows(code):
    return json.dumps({"error_code": code, "message": f"what {code} means"}).encode()


def asked(method, uri, tmp_path):
    """The error of a call, by JSON or with a file."""
    client = mlflow.MlflowClient(uri)
    if method == "get_run":
        return error_of(client.get_run, "0" * 32)
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    (tmp_path / "notes.txt").write_text("notes")
    repository = MlflowArtifactsRepository(f"mlflow-artifacts://{uri.removeprefix('http://')}/1/x")
    return error_of(repository.log_artifact, str(tmp_path / "notes.txt"))


METHODS = pytest.mark.parametrize("method", ["get_run", "log_artifact"])


@METHODS
@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "INVALID_PARAMETER_VALUE"), (404, "RESOURCE_DOES_NOT_EXIST"), (400, "RESOURCE_ALREADY_EXISTS")],
)
def test_mlflows_own_no_is_final(server, uri, tmp_path, method, status, code):
    server.answer = status, mlflows(code)
    error = asked(method, uri, tmp_path)
    assert (is_final(error), is_answer(error), is_silence(error)) == (True, True, False)


@METHODS
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 422, 451])
def test_a_gateways_no_is_an_answer_and_never_final(server, uri, tmp_path, method, status):
    server.answer = status, PAGE
    error = asked(method, uri, tmp_path)
    assert (is_final(error), is_answer(error), is_silence(error)) == (False, True, False)
    assert in_words(error) == f"{uri} answers {status}" + WHO * (status in (401, 403))


@METHODS
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_never_final(server, uri, tmp_path, method, status):
    server.answer = status, PAGE
    error = asked(method, uri, tmp_path)
    assert (is_final(error), is_silence(error)) == (False, False)
    assert is_answer(error) == (status != 429)
    assert in_words(error) == f"{uri} answers {status}"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (429, "REQUEST_LIMIT_EXCEEDED"),
        (503, "TEMPORARILY_UNAVAILABLE"),
        (500, "INTERNAL_ERROR"),
        (400, "BAD_REQUEST"),
        (404, "ENDPOINT_NOT_FOUND"),
    ],
)
@METHODS
def test_a_code_of_mlflows_that_speaks_of_now_is_not_final(server, uri, tmp_path, method, status, code):
    server.answer = status, mlflows(code)
    assert not is_final(asked(method, uri, tmp_path))


REFUSALS = {"PERMISSION_DENIED", "INVALID_STATE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


@pytest.mark.parametrize("code", ErrorCode.keys())
def test_what_mlflow_refuses_is_told_from_what_it_does_not_have(code):
    for error in (MlflowException("no", ErrorCode.Value(code)), RestException({"error_code": code, "message": "no"})):
        assert is_refusal(error) is (code in REFUSALS | NOT_THERE)
        assert is_not_there(error) is (code in NOT_THERE)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
def test_a_gateways_page_is_no_refusal_of_mlflows_whatever_its_client_makes_of_it(server, uri, tmp_path, status):
    server.answer = status, PAGE
    error = asked("get_run", uri, tmp_path)
    assert (is_refusal(error), is_not_there(error)) == (False, False)
    with pytest.raises(UnreachableError) as caught, asking("run it again"):
        raise error
    who = " (MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN, say who asks)" * (status in (401, 403))
    assert str(caught.value) == f"{uri} answers {status}, not as MLflow does{who}; run it again"


def test_what_mlflow_refuses_ends_as_the_users_to_mend_in_one_line():
    with pytest.raises(ValueError, match=r"^MLflow refuses: a param has another value$"), asking():
        raise refusal(words="a  param\nhas another value")
    with pytest.raises(ValueError, match=r"^MLflow refuses: x{280} http://host/$"), asking():
        raise refusal(words=f"{'x' * 280} http://bob:S3cret@host/")
    with pytest.raises(UnreachableError, match=r"; try again when it does$"), asking():
        raise requests.ConnectionError("refused")
    with pytest.raises(KeyError), asking():
        raise KeyError("ours")


def test_a_page_with_a_good_status_is_neither_final_nor_silence(server, uri, tmp_path):
    server.answer = 200, PAGE
    error = asked("get_run", uri, tmp_path)
    assert (is_final(error), is_silence(error)) == (False, False)


@METHODS
def test_who_does_not_answer_in_time_is_silent(server, uri, tmp_path, method, monkeypatch):
    monkeypatch.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "1")
    server.answer = None, b""
    error = asked(method, uri, tmp_path)
    assert (is_silence(error), is_answer(error), is_final(error)) == (True, False, False)
    assert in_words(error) == f"no answer from {uri}"


@METHODS
def test_who_is_not_there_is_no_answer_and_no_silence(uri, tmp_path, method):
    error = asked(method, "http://127.0.0.1:9", tmp_path)
    assert (is_silence(error), is_answer(error), is_final(error)) == (False, False, False)
    assert in_words(error) == f"no answer from {uri}"


def test_a_word_of_a_local_store_is_final_and_an_answer():
    for error in (
        refusal(),
        refusal(RESOURCE_DOES_NOT_EXIST),
        RestException({"error_code": "RESOURCE_ALREADY_EXISTS"}),
    ):
        assert (is_final(error), is_answer(error), is_silence(error)) == (True, True, False)
    assert in_words(refusal(words="a  param\nhas another value")) == "MlflowException: a param has another value"


@pytest.mark.parametrize("code", ErrorCode.keys())
def test_three_words_of_mlflows_are_final_and_no_other(code):
    final = code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
    response = requests.Response()
    response.status_code, response._content = 400, mlflows(code)
    for error in (
        MlflowException("no", ErrorCode.Value(code)),
        RestException({"error_code": code, "message": "no"}),
        requests.HTTPError("400", response=response),
    ):
        assert is_final(error) is final


def test_a_databases_trouble_is_no_answer_whatever_mlflow_makes_of_it(uri):
    engine = sqlalchemy.create_engine("sqlite://")
    maker = _get_managed_session_maker(sqlalchemy.orm.sessionmaker(bind=engine), "sqlite")

    def ask():
        with maker(read_only=False) as session:
            session.execute(sqlalchemy.text("SELECT * FROM nowhere"))

    error = error_of(ask)
    assert isinstance(error, MlflowException)
    assert (is_answer(error), is_final(error), is_silence(error)) == (False, False, False)
    assert in_words(error) == f"{uri}: no such table: nowhere"


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), KeyError("INVALID_PARAMETER_VALUE")])
def test_no_other_error_is_final_an_answer_or_silence(error):
    assert (is_final(error), is_answer(error), is_silence(error)) == (False, False, False)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"no json", b'"INVALID_PARAMETER_VALUE"', b'{"error_code": null}', PAGE]
)
def test_an_answer_to_a_file_that_is_not_mlflows_is_not_final(content):
    response = requests.Response()
    response.status_code, response._content = 400, content
    assert not is_final(requests.HTTPError("400", response=response))
    assert not is_final(requests.HTTPError("INVALID_PARAMETER_VALUE"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ToldError("what  a person\nis to read: http://a:b@host"), "what a person is to read: http://host"),
        (ToldError("x" * 300), "x" * 300),
        (sqlite3.OperationalError("database is locked"), "http://mlflow.test: database is locked"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk"),
        (OSError(errno.ENOSPC, "No space left", "/data/x"), "no space left on the disk of /data/x"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/data/x"), "no space left on the disk of /data/x"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "Permission denied: /a"),
        (FileNotFoundError(2, "No such file", "s3://u:p@b/x"), "No such file: s3://b/x"),
        (ConnectionResetError("reset"), "no answer from http://mlflow.test"),
        (requests.ConnectionError("refused"), "no answer from http://mlflow.test"),
        (MlflowException("API request to http://x failed with exception Boo"), "no answer from http://mlflow.test"),
        (MlflowException("(a.b.OperationalError) " + "x" * 300 + " [SQL: y]"), "http://mlflow.test: " + "x" * 140),
        (MlflowException("(a.OperationalError) locked [SQL: http://u:p@h]"), "http://mlflow.test: locked"),
        (KeyError("MLFLOW"), "KeyError: 'MLFLOW'"),
        (ValueError("x" * 300), "ValueError: " + "x" * 148),
        (ValueError("http://bob:pw@host said no"), "ValueError: http://host said no"),
    ],
)
def test_an_error_is_one_line_that_tells_no_secret(error, words):
    mlflow.set_tracking_uri("http://bob:pw@mlflow.test")
    try:
        assert in_words(error) == words
    finally:
        mlflow.set_tracking_uri(None)
