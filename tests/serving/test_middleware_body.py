"""The body, read before anything else: whole and in order, within its size and its time, or not at all."""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.serving import middleware as module
from tests.asgi import LEFT, ask, counted, parts_of, run_fast
from tests.serving.test_middleware import one, stack_of

MIB = 1 << 20
TOO_LARGE = (413, "BAD_REQUEST", "the body is larger than 16 MiB; send fewer examples at a time")
TOO_SLOW = (408, "REQUEST_TIMEOUT", "the body did not come within 15 s; send it at once")


def answering(answer):
    """An application that answers what `answer` makes of content type and body, with status 200."""

    async def app(scope, receive, send):
        body = (await receive())["body"]
        content = await answer(dict(scope["headers"]).get(b"content-type", b"").decode(), body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": content})

    return app


def stack_and_asked():
    asked = []

    async def fine(kind, body):
        asked.append((kind, body))
        return b"{}"

    return stack_of(answering(fine)), asked


def post(stack, headers=(), **keywords):
    return one(stack, "POST", "/invocations", headers, **keywords)


@settings(max_examples=30)
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_a_body_arrives_whole_and_in_order_however_it_is_cut(body, cuts):
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    parts = [body[start:end] for start, end in itertools.pairwise(edges)]
    stack, asked = stack_and_asked()
    assert post(stack, messages=parts_of(*parts)).status == 200
    assert asked == [("", body)]


@settings(max_examples=30)
@given(st.lists(st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 2)), min_size=1, max_size=5), max_size=6))
def test_bodies_that_come_at_the_same_time_are_not_mixed(clients):
    """Each client sends its parts after as many seconds as drawn, and is answered what it sent."""

    async def echo(kind, body):
        await asyncio.sleep(len(body) % 3)
        return f"{kind} {body.hex()}".encode()

    async def client(number, parts, pauses):
        kind = [("Content-Type", f"client/{number}")]
        answer = await ask(stack, "POST", "/invocations", kind, messages=parts_of(*parts), pauses=pauses)
        return answer.body

    async def all_of_them():
        return await asyncio.gather(
            *(client(number, *zip(*drawn, strict=True)) for number, drawn in enumerate(clients))
        )

    stack = stack_of(answering(echo))
    whole = [b"".join(part for part, _ in drawn).hex() for drawn in clients]
    assert run_fast(all_of_them()) == [f"client/{number} {body}".encode() for number, body in enumerate(whole)]


def test_the_limits_are_those_that_are_documented():
    assert (module.MAX_BODY, module.BODY_WITHIN_S) == (16 * MIB, 15.0)


@pytest.mark.parametrize("announced", [16 * MIB + 1, 10**12, 10**30])
def test_a_body_announced_as_too_large_is_refused_before_any_of_it_is_read(announced):
    stack, asked = stack_and_asked()
    answer = post(stack, [("Content-Length", str(announced))], messages=[])  # nothing ever comes
    assert answer.refusal == TOO_LARGE
    assert dict(answer.headers)["connection"] == "close"
    assert asked == []
    assert counted(stack, "errors_total") == {'{kind="bad_request"}': 1}


@pytest.mark.parametrize("announced", ["16777216", "0", "5", "", "-1", "many", "1e9"])
def test_what_is_announced_otherwise_is_read(announced):
    stack, asked = stack_and_asked()
    assert post(stack, [("Content-Length", announced)], body=b"12345").status == 200
    assert asked == [("", b"12345")]


def test_a_body_of_16_mib_is_taken_and_one_byte_more_is_not_whatever_was_announced():
    part = bytes(MIB)
    for headers in ([], [("Content-Length", "5")]):
        stack, asked = stack_and_asked()
        assert post(stack, headers, messages=parts_of(*[part] * 16)).status == 200
        assert len(asked[0][1]) == 16 * MIB
        assert post(stack, headers, messages=parts_of(*[part] * 16, b"x")).refusal == TOO_LARGE
        assert post(stack, headers, messages=parts_of(b"x", *[part] * 16)).refusal == TOO_LARGE
        assert len(asked) == 1


def test_a_chunked_body_without_end_is_read_no_further_than_the_limit():
    given = []

    def endless():
        while True:
            given.append(1)
            yield {"type": "http.request", "body": bytes(MIB), "more_body": True}

    stack, asked = stack_and_asked()
    assert post(stack, messages=endless()).refusal == TOO_LARGE
    assert (len(given), asked) == (17, [])


def test_a_body_must_come_within_15_seconds_however_it_dribbles():
    stack, asked = stack_and_asked()
    fine = parts_of(*[b"x"] * 14)
    assert post(stack, messages=fine, pauses=itertools.repeat(1.05)).status == 200  # 14.7 s
    for slow in (parts_of(*[b"x"] * 15), parts_of(*[b"x"] * 100), [], parts_of(b"x", more=True)):
        answer = post(stack, messages=slow, pauses=itertools.repeat(1.05))
        assert answer.refusal == TOO_SLOW
        assert dict(answer.headers)["connection"] == "close"
    assert len(asked) == 1
    assert counted(stack, "errors_total") == {'{kind="request_timeout"}': 4}


def test_a_request_that_is_broken_off_while_its_body_comes_is_no_slow_one():
    async def scenario():
        asking = asyncio.ensure_future(ask(stack, "POST", "/x", messages=[]))
        await asyncio.sleep(1)
        asking.cancel()
        await asyncio.wait([asking])
        return asking.cancelled()

    stack = stack_of()
    assert run_fast(scenario())
    assert counted(stack, "errors_total") == {}


def test_a_refusal_for_slowness_comes_after_15_seconds_and_the_answer_may_take_longer():
    async def slowly(kind, body):
        await asyncio.sleep(100)
        return b"{}"

    async def timed(**keywords):
        answer = await ask(stack_of(answering(slowly)), "POST", "/invocations", **keywords)
        return answer.status, asyncio.get_running_loop().time()

    status, seconds = run_fast(timed(messages=[]))
    assert (status, round(seconds, 3)) == (408, 15.0)
    status, seconds = run_fast(timed(body=b"x"))
    assert (status, round(seconds, 3)) == (200, 100.0)


@pytest.mark.parametrize("messages", [[LEFT], [*parts_of(b"half", more=True), LEFT]])
def test_who_leaves_in_the_middle_of_a_body_is_not_answered_and_counted_as_gone(messages):
    stack, asked = stack_and_asked()
    answer = post(stack, messages=messages)
    assert (answer.status, answer.body, asked) == (0, b"", [])
    assert counted(stack, "requests_total") == {'{route="/invocations",status="499"}': 1}
    assert counted(stack, "errors_total") == {}
    assert stack.lines[0]["status"] == 499


def test_a_message_may_leave_out_what_is_empty_or_the_end():
    stack, asked = stack_and_asked()
    assert post(stack, messages=[{"type": "http.request"}]).status == 200
    assert post(stack, messages=[*parts_of(b"a", more=True), {"type": "http.request"}]).status == 200
    assert [body for _, body in asked] == [b"", b"a"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_get_and_head_wait_for_no_body_and_are_one_to_the_application(method):
    stack = stack_of()
    answer = one(stack, method, "/x", [("Content-Length", "999999999")], messages=[])  # nothing ever comes
    assert answer.status == 201
    assert stack.inner.scopes[0]["method"] == "GET"
    assert stack.inner.messages == [{"type": "http.request", "body": b"", "more_body": False}]
    assert stack.lines[0]["method"] == method


def test_head_changes_nothing_else_and_what_the_server_keeps():
    stack = stack_of()
    one(stack, "HEAD", "/x", query=b"a=1")
    (scope,) = stack.inner.scopes
    assert (scope["path"], scope["query_string"], scope["type"]) == ("/x", b"a=1", "http")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_bodies_are_read_too(method):
    stack = stack_of()
    assert one(stack, method, "/x", body=b"body").status == 201
    assert stack.inner.scopes[0]["method"] == method
    assert stack.inner.messages[0]["body"] == b"body"


def test_after_the_body_the_application_hears_what_the_server_has_to_say():
    heard = []

    async def app(scope, receive, send):
        heard.extend([await receive(), await receive()])

    one(stack_of(app), "POST", "/x", messages=[*parts_of(b"a", b"b"), LEFT])
    assert heard == [{"type": "http.request", "body": b"ab", "more_body": False}, LEFT]
