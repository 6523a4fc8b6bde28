"""Clients that do not read or leave, connections beyond the limits, the end of the service: nobody is held for ever."""

import pytest

from pipeline.serving.connections import CROWDED, Limits
from tests.asgi import turns
from tests.wire import HALF, PING, answers, scenario, until

OK = "HTTP/1.1 200 OK"


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
        assert (served.room.total, served.room.held, served.state.connections) == (0, {}, set())
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
        assert served.room.held == {"": 1}

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
