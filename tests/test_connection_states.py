"""Every state of a connection in which only the client can go on has its end, to the second, and says why."""

import json

import pytest

from pipeline.serving.connections import CROWDED, Limits
from tests.asgi import run_fast, turns
from tests.wire import HALF, PING, Served, answers, until

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


def scenario(play, limits=None):
    """Play with connections, on a clock that jumps; returns the reasons for which connections were ended."""

    async def run():
        served = Served(limits)
        await play(served)
        return served

    served = run_fast(run())
    return served.reasons


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


def test_a_client_that_does_not_read_has_20_seconds_and_again_20_after_it_has_read_some():
    async def play(served):
        wire = served.connect(PING, reads=False)
        await turns()
        wire.connection.pause_writing()
        await until(15)
        wire.connection.pause_writing()  # puts nothing off
        wire.connection.resume_writing()
        wire.connection.pause_writing()
        await until(34)
        assert not wire.aborted
        await until(36)
        assert (wire.aborted, wire.ended_at) == (True, 35)

    assert scenario(play, Limits(idle=1000)) == ["not read"]


def test_a_client_that_reads_on_is_not_let_go():
    async def play(served):
        wire = served.connect(PING, reads=False)
        await turns()
        wire.connection.pause_writing()
        assert wire.connection.flow.write_paused
        await until(19)
        wire.connection.resume_writing()
        assert not wire.connection.flow.write_paused
        await until(900)
        assert not wire.closing
        wire.connection.resume_writing()

    assert scenario(play, Limits(idle=1000)) == []


def test_a_last_answer_that_is_read_slowly_has_20_seconds_that_reading_some_does_not_end():
    async def play(served):
        wire = served.connect(PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), reads=False)
        await until(5)
        assert answers(wire) == [(OK, "/ping")]
        assert wire.closing
        wire.connection.pause_writing()
        wire.connection.resume_writing()
        await until(19.9)
        assert not wire.aborted
        await until(21)
        assert (wire.aborted, wire.ended_at) == (True, 20)

    assert scenario(play) == ["not read"]


def test_an_idle_connection_whose_last_answer_was_not_read_is_closed_all_the_same():
    async def play(served):
        wire = served.connect(PING, reads=False)
        await until(31)
        assert (wire.aborted, wire.ended_at) == (True, 30)

    assert scenario(play) == ["idle"]


@pytest.mark.parametrize("said", [b"", HALF, PING, PING + HALF])
def test_of_a_client_that_has_left_nothing_is_left(said):
    async def play(served):
        wire = served.connect(said, reads=False)
        await turns()
        wire.connection.pause_writing()
        wire.connection.connection_lost(None)
        wire.lost = True
        assert (served.room.total, served.room._of, served.state.connections) == (0, {}, set())
        await until(1000)
        assert not wire.aborted

    assert scenario(play) == []


def test_a_client_that_leaves_before_its_answer_is_forgotten_and_the_answer_dropped():
    async def play(served):
        wire = served.connect(PING.replace(b"/ping", b"/slow?5"))
        await until(1)
        wire.connection.connection_lost(ConnectionResetError())
        await until(10)
        assert (wire.written, served.room.total) == (b"", 0)

    assert scenario(play) == []


def test_a_connection_without_an_address_is_served():
    async def play(served):
        wire = served.connect(PING, address=None)
        await turns()
        assert answers(wire) == [(OK, "/ping")]
        assert served.room._of == {"": 1}

    assert scenario(play) == []


TINY = Limits(most=2, per_address=2, spare=1)
SLOW = PING.replace(b"/ping", b"/slow?50")


def test_who_waits_makes_room_and_who_is_being_answered_does_not():
    async def play(served):
        busy, waiting = served.connect(SLOW), served.connect(HALF)
        new = served.connect(PING)
        await turns()
        assert answers(new) == [(OK, "/ping")]
        assert (waiting.aborted, waiting.written, busy.closing) == (True, b"", False)
        assert served.room.total == 2
        await until(51)
        assert answers(busy) == [(OK, "/slow")]
        for _ in range(2):
            served.connect(SLOW)
        assert busy.aborted  # it waited again, the longest

    assert scenario(play, TINY) == ["made room", "idle", "made room"]


def test_on_a_crowded_connection_the_application_is_told_and_it_is_closed_after_its_answer():
    async def play(served):
        for _ in range(2):
            served.connect(SLOW)
        crowded = served.connect(PING)
        await turns()
        assert answers(crowded) == [(OK, "/ping crowded")]
        assert b"connection: close" in crowded.written
        assert crowded.closing
        assert [CROWDED in scope["state"] for scope in served.scopes] == [False, False, True]
        assert served.scopes[2]["state"] == {CROWDED: True}
        assert served.app_state == {}

    assert scenario(play, TINY) == []


def test_beyond_all_places_a_connection_is_closed_at_once():
    async def play(served):
        for _ in range(3):
            served.connect(SLOW)
        turned_away = served.connect()
        assert (turned_away.aborted, turned_away.written) == (True, b"")
        await turns()
        assert served.room.total == 3
        await until(40)

    assert scenario(play, TINY) == ["turned away"]


def test_at_the_end_an_idle_connection_has_a_moment_for_what_is_on_its_way():
    async def play(served):
        idle, asking, silent = served.connect(PING), served.connect(PING), served.connect()
        await until(1)
        for wire in (idle, asking, silent):
            wire.connection.shutdown()
        await until(1.2)
        assert not idle.closing
        asking.say(PING)
        await until(1.25)
        assert answers(asking) == [(OK, "/ping")] * 2
        assert asking.written.count(b"connection: close") == 1
        assert asking.ended_at == pytest.approx(1.2)
        await until(1.31)
        assert idle.ended_at == silent.ended_at == 1.3
        assert not any(wire.aborted for wire in (idle, asking, silent))

    assert scenario(play) == []


def test_at_the_end_what_is_under_way_is_answered_and_then_closed():
    async def play(served):
        before, late = served.connect(SLOW), served.connect()
        before.connection.shutdown()
        late.connection.shutdown()
        late.say(PING.replace(b"/ping", b"/slow?0.5"))  # still under way when the moment is over
        await until(49)
        assert answers(late) == [(OK, "/slow")]
        assert late.ended_at == 0.5
        assert not before.closing
        await until(51)
        assert answers(before) == [(OK, "/slow")]
        assert b"connection: close" in before.written
        assert before.ended_at == 50

    assert scenario(play) == []


def test_at_the_end_an_idle_client_that_does_not_read_is_not_waited_for_for_ever():
    async def play(served):
        wire = served.connect(PING, reads=False)
        await turns()
        wire.connection.shutdown()
        await until(20.2)
        assert (wire.closing, wire.aborted) == (True, False)
        await until(20.4)
        assert (wire.aborted, wire.ended_at) == (True, 20.3)

    assert scenario(play) == ["not read"]


def test_a_connection_is_ended_once_and_not_where_it_has_ended_by_itself():
    async def play(served):
        wire, closed, unread = served.connect(), served.connect(), served.connect(PING, reads=False)
        await turns()
        for each in (closed, unread):
            each.close()
        for each in (wire, closed, unread):
            each.connection.end("first")
            each.connection.end("second")
        assert [each.aborted for each in (wire, closed, unread)] == [True, False, True]

    assert scenario(play) == ["first", "first"]
