"""Every state of a connection in which only the client can go on has its end, to the second, and says why."""

import json

from pipeline.serving.connections import Limits
from tests.asgi import turns
from tests.wire import HALF, PING, answers, scenario, until

OK = "HTTP/1.1 200 OK"
TOO_SLOW = (
    "HTTP/1.1 408 Request Timeout",
    "REQUEST_TIMEOUT",
    "the headers did not come within 10 s; send them at once",
)
JSON_HEAD = b"content-type: application/json\r\nconnection: close\r\ncontent-length: "


def refusal(wire):
    """The last answer, which must be a refusal in the form of all."""
    status, body = answers(wire)[-1]
    found = json.loads(body)
    assert list(found) == ["error_code", "message"]
    assert JSON_HEAD in wire.written
    return status, found["error_code"], found["message"]


def test_who_says_nothing_or_no_header_is_closed_after_ten_seconds_without_a_word():
    async def play(served):
        wires = [served.connect(said) for said in (b"", b"\r\n", b"\r\n\r\n")]
        await until(9.9)
        assert not any(wire.closing for wire in wires)
        await until(10.1)
        assert [(wire.written, wire.aborted, wire.ended_at) for wire in wires] == [(b"", True, 10)] * 3
        assert served.room.total == 0

    assert scenario(play) == ["idle"] * 3


def test_half_a_header_is_refused_after_ten_seconds_however_it_dribbles():
    async def play(served):
        wires = [served.connect(HALF), served.connect(HALF)]
        for second in range(1, 10):
            await until(second)
            wires[1].say(b"a")
        await until(9.9)
        assert not any(wire.closing for wire in wires)
        await until(10.1)
        for wire in wires:
            assert refusal(wire) == TOO_SLOW
            assert (wire.ended_at, wire.aborted) == (10, False)
        assert served.scopes == []

    assert scenario(play) == ["slow headers"] * 2


def test_times_are_told_as_they_are():
    async def play(served):
        wire = served.connect(HALF)
        await until(1)
        assert refusal(wire)[2] == "the headers did not come within 0.5 s; send them at once"

    assert scenario(play, Limits(headers_within=0.5)) == ["slow headers"]


def test_headers_that_come_in_time_are_answered_and_after_30_idle_seconds_it_is_closed():
    async def play(served):
        wire = served.connect(PING[:9])
        await until(9.9)
        wire.say(PING[9:])
        await until(39.8)
        assert answers(wire) == [(OK, "/ping")]
        assert not wire.closing
        await until(40)
        assert (wire.aborted, wire.ended_at) == (True, 39.9)

    assert scenario(play) == ["idle"]


def test_each_request_has_ten_seconds_of_its_own():
    async def play(served):
        wire = served.connect()
        for second in range(0, 90, 9):
            await until(second)
            wire.say(PING[:20])
            await until(second + 8)
            wire.say(PING[20:])
        await turns()
        assert answers(wire) == [(OK, "/ping")] * 10
        await until(90)
        wire.say(PING[:20])
        await until(101)
        assert refusal(wire) == TOO_SLOW
        assert wire.ended_at == 100

    assert scenario(play) == ["slow headers"]


def test_what_comes_after_an_answer_and_begins_no_request_puts_nothing_off():
    async def play(served):
        wire = served.connect(PING)
        for second in (5, 14, 14.5):
            await until(second)
            wire.say(b"\r\n")
        await until(20)
        assert (wire.ended_at, answers(wire)) == (15, [(OK, "/ping")])

    assert scenario(play) == ["idle"]


def test_an_answer_may_take_long_and_headers_that_begin_meanwhile_have_ten_seconds_from_its_end():
    async def play(served):
        wire = served.connect(PING.replace(b"/ping", b"/slow?100") + HALF)
        await until(109.9)
        assert answers(wire) == [(OK, "/slow")]
        assert not wire.closing
        await until(110.1)
        assert refusal(wire) == TOO_SLOW
        assert wire.ended_at == 110

    assert scenario(play) == ["slow headers"]


def test_requests_sent_at_once_are_answered_in_their_order():
    async def play(served):
        paths = [b"/a?3", b"/b?1", b"/c", b"/d?2"]
        wire = served.connect(b"".join(PING.replace(b"/ping", path) for path in paths))
        await until(10)
        assert answers(wire) == [(OK, "/a"), (OK, "/b"), (OK, "/c"), (OK, "/d")]
        await until(36.1)
        assert wire.ended_at == 36

    assert scenario(play) == ["idle"]


def test_headers_of_64_kib_are_read_and_one_byte_more_is_refused():
    async def play(served):
        fits, exceeds = (served.connect(HALF.ljust(size, b"a")) for size in (65536, 65537))
        dribbling = served.connect(HALF)
        dribbling.say(b"a" * (65536 - len(HALF)))
        assert not dribbling.closing
        dribbling.say(b"a")
        assert not fits.closing
        for wire in (exceeds, dribbling):
            assert wire.closing
            assert refusal(wire)[0] == "HTTP/1.1 431 Request Header Fields Too Large"
            assert refusal(wire)[1:] == ("BAD_REQUEST", "the headers are larger than 64 KiB")
        fits.say(b": a\r\n\r\n")
        await turns()
        assert answers(fits) == [(OK, "/half")]
        fits.say(HALF.ljust(65536, b"a") + b": b\r\n\r\n")  # each request's are counted alone
        await turns()
        assert answers(fits) == [(OK, "/half")] * 2

    assert scenario(play) == ["large headers"] * 2


def test_a_body_that_comes_after_its_answer_is_not_taken_for_headers():
    """Whoever is refused before the body was read sends it all the same; the next request is innocent."""

    async def play(served):
        for body, framing in (
            (b"x" * 100_000, b"Content-Length: 100000\r\n"),
            (None, b"Transfer-Encoding: chunked\r\n"),
        ):
            wire = served.connect(b"POST /first HTTP/1.1\r\n" + framing + b"\r\n")
            await turns()
            assert answers(wire) == [(OK, "/first")]
            if body:
                wire.say(body[:50_000])
                wire.say(body[50_000:] + HALF)
            else:
                wire.say(b"1\r\nx\r\n" * 20_000)
                wire.say(b"0\r\n\r\n" + HALF)
            wire.say(b"a: a\r\n\r\n")
            await turns()
            assert answers(wire) == [(OK, "/first"), (OK, "/half")]
            wire.close()

    assert scenario(play) == []


def test_what_is_no_http_is_refused_in_words():
    async def play(served):
        wire = served.connect(b"\x16\x03\x01" + bytes(50))
        words = "Invalid HTTP request received. Send HTTP/1.1, without TLS"
        assert refusal(wire) == ("HTTP/1.1 400 Bad Request", "BAD_REQUEST", words)
        assert wire.closing
        await until(100)
        assert not wire.aborted

    assert scenario(play) == ["no HTTP"]


def test_a_refusal_is_exactly_one_answer():
    async def play(served):
        wire = served.connect(b"\x16")
        body = b'{"error_code":"BAD_REQUEST","message":"Invalid HTTP request received. Send HTTP/1.1, without TLS"}'
        assert wire.written == b"HTTP/1.1 400 Bad Request\r\n" + JSON_HEAD + b"%d\r\n\r\n" % len(body) + body

    scenario(play)


def test_a_refusal_that_is_not_read_is_given_up_after_20_seconds():
    async def play(served):
        wire = served.connect(b"\x16", reads=False)
        await until(19.9)
        assert not wire.aborted
        await until(20.1)
        assert (wire.aborted, wire.ended_at) == (True, 20)

    assert scenario(play) == ["no HTTP", "not read"]


def test_a_refusal_that_is_read_at_last_is_none_too_many():
    async def play(served):
        wire = served.connect(b"\x16", reads=False)
        await until(19)
        wire.read_all()
        await until(100)
        assert (wire.aborted, wire.ended_at) == (False, 19)

    assert scenario(play) == ["no HTTP"]
