"""What stands before every route, asked directly: who is let in, what is counted and noted, to the letter."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from pipeline.serving import middleware as module
from pipeline.serving.connections import CROWDED
from pipeline.serving.hosts import Hosts
from pipeline.serving.metrics import Telemetry
from pipeline.serving.middleware import Answer, Gate, RefusalError
from tests.asgi import ask, counted, run_fast, scope_of

EVIL = [("Host", "evil.example")]
JSON = "application/json"


class Inner:
    """The application behind the gate: remembers what it was asked, answers `well`."""

    def __init__(self):
        self.scopes, self.messages = [], []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        self.messages.append(await receive())
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-inner", b"1")]})
        await send({"type": "http.response.body", "body": b"well"})


def gate_of(app=None, direct=None, token="", names=()):
    """A gate whose log lines are kept in `lines`."""
    telemetry = Telemetry()
    made = Gate(app or Inner(), direct or {}, telemetry, token, {"/", "/x", "/ping", "/invocations"}, Hosts(names))
    made.lines = []
    telemetry.access = SimpleNamespace(write=made.lines.append)
    return made


def direct_of(answer):
    """A direct route that gives, or raises, and keeps what it was asked."""
    asked = []

    async def give(kind, body):
        asked.append((kind, body))
        if isinstance(answer, Exception):
            raise answer
        return answer

    return {("POST", "/invocations"): give}, asked


def one(gate, *arguments, **keywords):
    return run_fast(ask(gate, *arguments, **keywords))


def test_what_is_let_in_is_answered_by_the_application_and_counted_and_noted_once():
    gate = gate_of()
    answer = one(gate, "POST", "/x", [("Host", "localhost")], b"body")
    assert (answer.status, answer.headers, answer.body) == (201, [("x-inner", "1")], b"well")
    assert gate.app.messages == [{"type": "http.request", "body": b"body", "more_body": False}]
    assert counted(gate, "requests_total") == {'{route="/x",status="201"}': 1}
    assert counted(gate, "request_seconds_count") == {'{route="/x"}': 1}
    assert counted(gate, "errors_total") == {}
    (line,) = gate.lines
    assert line.pop("ms") >= 0
    assert line == {"message": "request", "method": "POST", "path": "/x", "status": 201, "client": "192.0.2.1"}


def test_the_time_to_answer_is_counted_in_seconds_and_noted_in_milliseconds(monkeypatch):
    instants = iter([100.0, 100.0123456, 200.0, 202.5])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(instants))
    gate = gate_of()
    one(gate, path="/x")
    one(gate, path="/x")
    assert [line["ms"] for line in gate.lines] == [12.35, 2500.0]
    assert counted(gate, "request_seconds_sum")['{route="/x"}'] == pytest.approx(2.5123456)


def test_unknown_paths_are_counted_together_and_noted_cut_short():
    gate = gate_of()
    one(gate, path="/" + "a" * 300, client=None)
    one(gate, path="/b")
    assert counted(gate, "requests_total") == {'{route="(other)",status="201"}': 2}
    assert [(line["path"], line["client"]) for line in gate.lines] == [("/" + "a" * 199, ""), ("/b", "192.0.2.1")]


def test_facts_of_the_application_are_noted():
    async def app(scope, receive, send):
        scope["state"]["facts"] = {"version": "7", "images": 3}

    gate = gate_of(app)
    one(gate)
    assert (gate.lines[0]["version"], gate.lines[0]["images"]) == ("7", 3)


def test_what_is_no_request_is_passed_on_as_it_is_and_neither_counted_nor_noted():
    passed = []

    async def app(*arguments):
        passed.append(arguments)

    gate, lifespan = gate_of(app), ({"type": "lifespan"}, object(), object())
    run_fast(gate(*lifespan))
    assert passed == [lifespan]
    assert (counted(gate, "requests_total"), gate.lines) == ({}, [])


def test_a_server_without_state_is_served_as_well():
    async def scenario():
        scope = scope_of("GET", "/x")
        del scope["state"]
        sent = []

        async def send(message):
            sent.append(message)

        await gate(scope, None, send)
        return sent

    gate = gate_of()
    assert [message["type"] for message in run_fast(scenario())] == ["http.response.start", "http.response.body"]
    assert gate.lines[0]["status"] == 201
    assert counted(gate, "errors_total") == {}


@pytest.mark.parametrize("path", ["/", "/x", "/version", "/metrics", "/invocations", "/ping/", "/pin"])
def test_a_foreign_name_is_refused_in_words_before_the_application(path):
    gate = gate_of()
    answer = one(gate, path=path, headers=EVIL)
    words = "the service is not known as 'evil.example'; ask it by its address, or start it with --allowed_hosts"
    assert answer.refusal == (403, "PERMISSION_DENIED", words)
    assert answer.headers == [("content-type", JSON), ("content-length", str(len(answer.body)))]
    assert gate.app.scopes == []
    assert counted(gate, "errors_total") == {'{kind="permission_denied"}': 1}
    assert gate.lines[0]["status"] == 403


def test_a_foreign_name_is_cut_short_and_read_as_it_came():
    answer = one(gate_of(), headers=[("Host", b"\xe9" + b"." * 200)])
    assert "'é" + "." * 79 + "';" in answer.json["message"]


@pytest.mark.parametrize("path", ["/ping", "/health", "/ready"])
def test_probes_are_answered_under_any_name_without_a_token_however_crowded_it_is(path):
    answer = one(gate_of(token="t0ken"), path=path, headers=EVIL, state={CROWDED: True})
    assert answer.status == 201
    assert one(gate_of(), path=path, headers=EVIL, state={CROWDED: True}).status == 201


def test_allowed_names_are_let_in():
    assert one(gate_of(names=["digits.example"]), headers=[("Host", "digits.example:80")]).status == 201
    assert one(gate_of(), headers=[]).status == 201


def test_on_a_crowded_connection_only_probes_are_answered():
    gate = gate_of(token="t0ken")
    answer = one(gate, path="/x", headers=EVIL, state={CROWDED: True})
    words = "too many connections are open; try again in a second"
    assert answer.refusal == (503, "TEMPORARILY_UNAVAILABLE", words)
    assert dict(answer.headers)["retry-after"] == "1"
    assert counted(gate, "errors_total") == {'{kind="temporarily_unavailable"}': 1}


WRONG_TOKENS = [None, "", "t0ken", "Bearer", "Bearer ", "Bearer t0ke", "Bearer t0kenn", "bearer t0ken", "Basic t0ken"]


@pytest.mark.parametrize("said", WRONG_TOKENS)
def test_without_the_token_a_client_is_told_what_to_send(said):
    gate = gate_of(token="t0ken")
    answer = one(gate, path="/x", headers=[] if said is None else [("Authorization", said)])
    assert answer.refusal == (401, "UNAUTHENTICATED", "send the service's token: Authorization: Bearer TOKEN")
    assert answer.headers[0] == ("www-authenticate", "Bearer")
    assert gate.app.scopes == []
    assert counted(gate, "errors_total") == {'{kind="unauthenticated"}': 1}


@pytest.mark.parametrize("token", ["t0ken", "tökén"])
def test_with_the_token_a_client_is_let_in_under_any_name(token):
    said = [("Authorization", f"Bearer {token}".encode()), *EVIL]
    assert one(gate_of(token=token), path="/x", headers=said).status == 201


@pytest.mark.parametrize("path", ["/", "/version"])
def test_what_a_browser_asks_for_first_needs_no_token_nor_a_known_name_where_there_is_one(path):
    assert one(gate_of(token="t0ken"), path=path, headers=EVIL).status == 201


@pytest.mark.parametrize(
    ("encoding", "shown"), [("gzip", "gzip"), (" GZip ", "gzip"), ("x" * 50, "x" * 40), ("é", "é")]
)
def test_a_compressed_body_is_refused_as_such(encoding, shown):
    gate = gate_of()
    answer = one(gate, "POST", "/x", [("Content-Encoding", encoding.encode("latin-1"))], b"\x1f\x8b")
    assert answer.refusal == (415, "BAD_REQUEST", f"the body is compressed ({shown}); send it plain, as it is")
    assert counted(gate, "errors_total") == {'{kind="bad_request"}': 1}


@pytest.mark.parametrize("encoding", ["", "identity", " Identity"])
def test_a_plain_body_may_say_so(encoding):
    assert one(gate_of(), "POST", "/x", [("Content-Encoding", encoding)], b"plain").status == 201


def test_a_direct_route_is_asked_with_type_and_body_and_its_answer_given_counted_and_noted_once():
    direct, asked = direct_of(Answer(b'{"a":1}', {"x-model-version": "7"}, {"version": "7", "images": 2}))
    gate = gate_of(direct=direct)
    answer = one(gate, "POST", "/invocations", [("Content-Type", b"text/\xe9")], b"body")
    assert asked == [("text/é", b"body")]
    assert (answer.status, answer.body) == (200, b'{"a":1}')
    assert answer.headers == [("x-model-version", "7"), ("content-type", JSON), ("content-length", "7")]
    assert gate.app.scopes == []
    assert counted(gate, "requests_total") == {'{route="/invocations",status="200"}': 1}
    (line,) = gate.lines
    assert (line["version"], line["images"], line["status"]) == ("7", 2, 200)
    one(gate, "POST", "/invocations")
    assert asked[1] == ("", b"")


def test_another_method_of_a_direct_route_is_the_applications():
    direct, asked = direct_of(Answer(b"", {}, {}))
    gate = gate_of(direct=direct)
    assert one(gate, "PUT", "/invocations").status == 201
    assert asked == []


REFUSALS = {
    400: [],
    401: [("www-authenticate", "Bearer")],
    408: [("connection", "close")],
    413: [("connection", "close")],
    503: [("retry-after", "1")],
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_says_in_its_headers_what_its_status_asks_for(status):
    direct, _ = direct_of(RefusalError(status, "SOME_CODE", "do better"))
    gate = gate_of(direct=direct)
    answer = one(gate, "POST", "/invocations")
    assert answer.body == b'{"error_code":"SOME_CODE","message":"do better"}'
    assert (answer.status, answer.headers[:-2]) == (status, REFUSALS[status])
    assert answer.headers[-2:] == [("content-type", JSON), ("content-length", "48")]
    assert counted(gate, "errors_total") == {'{kind="some_code"}': 1}
    assert counted(gate, "requests_total") == {f'{{route="/invocations",status="{status}"}}': 1}


def test_a_refusal_reads_as_its_message():
    assert str(RefusalError(400, "CODE", "do better")) == "do better"


def test_a_fault_of_ours_is_told_to_the_client_in_the_form_of_all_refusals_and_to_the_log(caplog):
    direct, _ = direct_of(ZeroDivisionError("by zero"))
    gate = gate_of(direct=direct)
    answer = one(gate, "POST", "/invocations")
    assert answer.refusal == (500, "INTERNAL_ERROR", "the service failed; its log says why")
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("pipeline.serving", logging.ERROR, "a request failed")
    assert record.exc_info[0] is ZeroDivisionError
    assert counted(gate, "errors_total") == {'{kind="internal_error"}': 1}
    assert counted(gate, "requests_total") == {'{route="/invocations",status="500"}': 1}


def test_a_fault_in_the_middle_of_an_answer_adds_nothing_to_it():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ZeroDivisionError

    gate = gate_of(app)
    answer = one(gate, path="/x")
    assert (answer.status, answer.body) == (200, b"half")
    assert counted(gate, "errors_total") == {'{kind="internal_error"}': 1}
    assert gate.lines[0]["status"] == 200


def test_a_request_that_is_broken_off_at_the_end_of_the_service_is_noted_all_the_same():
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async def scenario():
        asking = asyncio.ensure_future(ask(gate, path="/x"))
        await asyncio.sleep(1)
        asking.cancel()
        await asyncio.wait([asking])
        return asking.cancelled()

    gate = gate_of(app)
    assert run_fast(scenario())
    assert counted(gate, "requests_total") == {'{route="/x",status="500"}': 1}
