"""What stands before every route: who is let in, what is counted and noted, to the letter."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from pipeline.serving import middleware as module
from pipeline.serving.connections import CROWDED
from pipeline.serving.hosts import Hosts
from pipeline.serving.metrics import Telemetry
from pipeline.serving.middleware import Admission, Observed, WholeBody
from pipeline.serving.refusals import RefusalError
from tests.asgi import ask, counted, run_fast

EVIL = [("Host", "evil.example")]
JSON = "application/json"


class Inner:
    """The application behind the middlewares: remembers what it was asked, answers `well`."""

    def __init__(self):
        self.scopes, self.messages = [], []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        self.messages.append(await receive())
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-inner", b"1")]})
        await send({"type": "http.response.body", "body": b"well"})


def raising(error):
    async def app(scope, receive, send):
        raise error

    return app


def stack_of(inner=None, token="", names=()):
    """All middlewares around an application, which is in `inner`; their log lines are kept in `lines`."""
    telemetry, inner = Telemetry(), inner or Inner()
    admission = Admission(WholeBody(inner), token, Hosts(names))
    made = Observed(admission, telemetry, {"/", "/x", "/ping", "/invocations"})
    made.inner, made.lines = inner, []
    telemetry.access = SimpleNamespace(write=made.lines.append)
    return made


def one(stack, *arguments, **keywords):
    return run_fast(ask(stack, *arguments, **keywords))


def test_what_is_let_in_is_answered_by_the_application_and_counted_and_noted_once():
    stack = stack_of()
    answer = one(stack, "POST", "/x", [("Host", "localhost")], b"body")
    assert (answer.status, answer.headers, answer.body) == (201, [("x-inner", "1")], b"well")
    assert stack.inner.messages == [{"type": "http.request", "body": b"body", "more_body": False}]
    assert counted(stack, "requests_total") == {'{route="/x",status="201"}': 1}
    assert counted(stack, "request_seconds_count") == {'{route="/x"}': 1}
    assert counted(stack, "errors_total") == {}
    (line,) = stack.lines
    assert line.pop("ms") >= 0
    assert line == {"method": "POST", "path": "/x", "status": 201, "client": "192.0.2.1"}


def test_the_time_to_answer_is_counted_in_seconds_and_noted_in_milliseconds(monkeypatch):
    instants = iter([100.0, 100.0123456, 200.0, 202.5])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(instants))
    stack = stack_of()
    one(stack, path="/x")
    one(stack, path="/x")
    assert [line["ms"] for line in stack.lines] == [12.35, 2500.0]
    assert counted(stack, "request_seconds_sum")['{route="/x"}'] == pytest.approx(2.5123456)


def test_unknown_paths_are_counted_together_and_noted_cut_short():
    stack = stack_of()
    one(stack, path="/" + "a" * 300, client=None)
    one(stack, path="/b")
    assert counted(stack, "requests_total") == {'{route="(other)",status="201"}': 2}
    assert [(line["path"], line["client"]) for line in stack.lines] == [("/" + "a" * 199, ""), ("/b", "192.0.2.1")]


def test_facts_of_the_application_are_noted():
    async def app(scope, receive, send):
        scope["state"]["facts"] = {"version": "7", "images": 3}

    stack = stack_of(app)
    one(stack)
    assert (stack.lines[0]["version"], stack.lines[0]["images"]) == ("7", 3)


@pytest.mark.parametrize("path", ["/", "/x", "/version", "/metrics", "/invocations", "/ping/", "/pin"])
def test_a_foreign_name_is_refused_in_words_before_the_application(path):
    stack = stack_of()
    answer = one(stack, path=path, headers=EVIL)
    words = "the service is not known as 'evil.example'; ask it by its address, or start it with --allowed_hosts"
    assert answer.refusal == (403, "PERMISSION_DENIED", words)
    assert dict(answer.headers) == {"content-type": JSON, "content-length": str(len(answer.body))}
    assert stack.inner.scopes == []
    assert counted(stack, "errors_total") == {'{kind="permission_denied"}': 1}
    assert stack.lines[0]["status"] == 403


def test_a_foreign_name_is_cut_short_and_read_as_it_came():
    answer = one(stack_of(), headers=[("Host", b"\xe9" + b"." * 200)])
    assert "'é" + "." * 79 + "';" in answer.json["message"]


@pytest.mark.parametrize("path", ["/ping", "/health", "/ready"])
def test_probes_are_answered_under_any_name_without_a_token_however_crowded_it_is(path):
    answer = one(stack_of(token="t0ken"), path=path, headers=EVIL, state={CROWDED: True})
    assert answer.status == 201
    assert one(stack_of(), path=path, headers=EVIL, state={CROWDED: True}).status == 201


def test_allowed_names_are_let_in():
    assert one(stack_of(names=["digits.example"]), headers=[("Host", "digits.example:80")]).status == 201
    assert one(stack_of(), headers=[]).status == 201


def test_on_a_crowded_connection_only_probes_are_answered():
    stack = stack_of(token="t0ken")
    answer = one(stack, path="/x", headers=EVIL, state={CROWDED: True})
    words = "too many connections are open; try again in a second"
    assert answer.refusal == (503, "TEMPORARILY_UNAVAILABLE", words)
    assert dict(answer.headers)["retry-after"] == "1"
    assert counted(stack, "errors_total") == {'{kind="temporarily_unavailable"}': 1}


WRONG_TOKENS = [None, "", "t0ken", "Bearer", "Bearer ", "Bearer t0ke", "Bearer t0kenn", "bearer t0ken", "Basic t0ken"]


@pytest.mark.parametrize("said", WRONG_TOKENS)
def test_without_the_token_a_client_is_told_what_to_send(said):
    stack = stack_of(token="t0ken")
    answer = one(stack, path="/x", headers=[] if said is None else [("Authorization", said)])
    assert answer.refusal == (401, "UNAUTHENTICATED", "send the service's token: Authorization: Bearer TOKEN")
    assert dict(answer.headers)["www-authenticate"] == "Bearer"
    assert stack.inner.scopes == []
    assert counted(stack, "errors_total") == {'{kind="unauthenticated"}': 1}


@pytest.mark.parametrize("token", ["t0ken", "tökén"])
def test_with_the_token_a_client_is_let_in_under_any_name(token):
    said = [("Authorization", f"Bearer {token}".encode()), *EVIL]
    assert one(stack_of(token=token), path="/x", headers=said).status == 201


@pytest.mark.parametrize("path", ["/", "/version"])
def test_what_a_browser_asks_for_first_needs_no_token_nor_a_known_name_where_there_is_one(path):
    assert one(stack_of(token="t0ken"), path=path, headers=EVIL).status == 201


@pytest.mark.parametrize(
    ("encoding", "shown"), [("gzip", "gzip"), (" GZip ", "gzip"), ("x" * 50, "x" * 40), ("é", "é")]
)
def test_a_compressed_body_is_refused_as_such(encoding, shown):
    stack = stack_of()
    answer = one(stack, "POST", "/x", [("Content-Encoding", encoding.encode("latin-1"))], b"\x1f\x8b")
    assert answer.refusal == (415, "BAD_REQUEST", f"the body is compressed ({shown}); send it plain, as it is")
    assert counted(stack, "errors_total") == {'{kind="bad_request"}': 1}


@pytest.mark.parametrize("encoding", ["", "identity", " Identity"])
def test_a_plain_body_may_say_so(encoding):
    assert one(stack_of(), "POST", "/x", [("Content-Encoding", encoding)], b"plain").status == 201


REFUSALS = {
    400: {},
    401: {"www-authenticate": "Bearer"},
    408: {"connection": "close"},
    413: {"connection": "close"},
    503: {"retry-after": "1"},
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_says_in_its_headers_what_its_status_asks_for(status):
    stack = stack_of(raising(RefusalError(status, "SOME_CODE", "do better")))
    answer = one(stack, "POST", "/invocations")
    assert answer.body == b'{"error_code":"SOME_CODE","message":"do better"}'
    assert answer.status == status
    assert dict(answer.headers) == {**REFUSALS[status], "content-type": JSON, "content-length": "48"}
    assert counted(stack, "errors_total") == {'{kind="some_code"}': 1}
    assert counted(stack, "requests_total") == {f'{{route="/invocations",status="{status}"}}': 1}


def test_a_refusal_reads_as_its_message():
    assert str(RefusalError(400, "CODE", "do better")) == "do better"


def test_a_fault_of_ours_is_told_to_the_client_in_the_form_of_all_refusals_and_to_the_log(caplog):
    stack = stack_of(raising(ZeroDivisionError("by zero")))
    answer = one(stack, "POST", "/invocations")
    assert answer.refusal == (500, "INTERNAL_ERROR", "the service failed; its log says why")
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("pipeline.serving", logging.ERROR, "a request failed")
    assert record.exc_info[0] is ZeroDivisionError
    assert counted(stack, "errors_total") == {'{kind="internal_error"}': 1}
    assert counted(stack, "requests_total") == {'{route="/invocations",status="500"}': 1}


def test_a_fault_in_the_middle_of_an_answer_adds_nothing_to_it():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ZeroDivisionError

    stack = stack_of(app)
    answer = one(stack, path="/x")
    assert (answer.status, answer.body) == (200, b"half")
    assert counted(stack, "errors_total") == {'{kind="internal_error"}': 1}
    assert stack.lines[0]["status"] == 200


def test_a_request_that_is_broken_off_at_the_end_of_the_service_is_noted_all_the_same():
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async def scenario():
        asking = asyncio.ensure_future(ask(stack, path="/x"))
        await asyncio.sleep(1)
        asking.cancel()
        await asyncio.wait([asking])
        return asking.cancelled()

    stack = stack_of(app)
    assert run_fast(scenario())
    assert counted(stack, "requests_total") == {'{route="/x",status="500"}': 1}
