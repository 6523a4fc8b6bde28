"""What a node sends: numbered, repeated until it is taken, bounded."""

import threading

import pytest

from pipeline.cluster import link
from pipeline.cluster.link import Link

LONG_S = 300.0  # longer than this process may be kept from going on


def in_thread(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def numbers(messages):
    return [number for number, _ in messages]


def test_messages_stay_until_they_were_taken():
    one = Link()
    one.send({"event": 1})
    one.tell(epoch=1)
    assert one.poll(0, patience_s=0) == [(1, {"event": 1}), (2, {"news": {"epoch": 1}})]
    assert numbers(one.poll(0, patience_s=0)) == [1, 2]
    assert numbers(one.poll(1, patience_s=0)) == [2]
    assert one.poll(2, patience_s=0) == []
    one.send({"event": 2})
    assert numbers(one.poll(2, patience_s=0)) == [3]


def test_who_waits_for_the_disk_there_goes_on_when_all_is_taken():
    one = Link()
    one.send({})
    one.send({})
    waiting = in_thread(one.wait_until_taken)
    one.poll(1, patience_s=0)
    waiting.join(0.1)
    assert waiting.is_alive()
    one.poll(2, patience_s=0)
    waiting.join(LONG_S)
    assert not waiting.is_alive()


def test_more_than_the_window_waits_until_there_is_room(monkeypatch):
    monkeypatch.setattr(link, "WINDOW", 3100)
    one = Link()
    big = {"pieces": [("a", 0, b"x" * 1000)]}
    one.send(big)
    one.send(big)  # of 1512 bytes each, with what a message takes by itself
    waiting = in_thread(lambda: one.send(big))
    waiting.join(0.1)
    assert waiting.is_alive()
    assert numbers(one.poll(0, patience_s=0)) == [1, 2]
    assert numbers(one.poll(1, patience_s=0))[:1] == [2]
    waiting.join(LONG_S)
    assert not waiting.is_alive()


def test_what_is_larger_than_the_window_goes_alone(monkeypatch):
    monkeypatch.setattr(link, "WINDOW", 10)
    one = Link()
    one.send({"pieces": [("a", 0, b"x" * 1000)]})
    assert numbers(one.poll(0, patience_s=0)) == [1]


def test_what_the_disk_there_refused_is_raised_once():
    one = Link()
    one.send({})
    one.poll(1, (28, "No space left on device"), patience_s=0)
    with pytest.raises(OSError, match="No space left") as error:
        one.wait_until_taken()
    assert error.value.errno == 28
    one.wait_until_taken()


def test_a_file_comes_in_pieces_that_take_their_places_at_the_end(monkeypatch, tmp_path):
    monkeypatch.setattr(link, "PIECE", 4)
    (tmp_path / "large").write_bytes(b"0123456789")
    (tmp_path / "empty").write_bytes(b"")
    one = Link()
    one.send_files([("a/large", tmp_path / "large"), ("empty", tmp_path / "empty")], event={"kind": "x"})
    messages = [message for _, message in one.poll(0, patience_s=0)]
    assert [message["pieces"] for message in messages] == [
        [("a/large", 0, b"0123")],
        [("a/large", 4, b"4567")],
        [("a/large", 8, b"89"), ("empty", 0, b"")],
    ]
    assert [message.get("place") for message in messages] == [None, None, ["a/large", "empty"]]
    assert [message.get("event") for message in messages] == [None, None, {"kind": "x"}]


def test_how_far_an_epoch_is_is_told_as_it_is_now_and_not_after_the_epoch():
    one = Link()
    for done in range(50):
        one.tell(at=1, done=done, steps=50, means={})
    assert one.poll(0, patience_s=0) == [(1, {"news": {"at": 1, "done": 49, "steps": 50, "means": {}}})]
    one.tell(at=1, done=50, steps=50, means={})
    one.tell(epoch=1)
    assert one.poll(1, patience_s=0) == [(2, {"news": {"epoch": 1}})]
    assert one.poll(2, patience_s=0) == []


def test_how_far_an_epoch_is_waits_for_others_and_they_not_for_it(monkeypatch):
    monkeypatch.setattr(link, "PROGRESS_S", LONG_S)
    one, found = Link(), []
    one.tell(at=1, done=0, steps=50, means={})
    polling = in_thread(lambda: found.append(one.poll(0, patience_s=LONG_S)))
    polling.join(0.1)
    assert polling.is_alive()
    one.tell(end="FINISHED")
    polling.join(LONG_S)
    assert found == [[(1, {"news": {"end": "FINISHED"}})]]


def test_lines_beyond_measure_are_left_out():
    one = Link()
    for _ in range(2 * link.MOST_WAITING):
        one.tell(line="warning")
    assert len(one.poll(0, patience_s=0)) == link.MOST_WAITING


def test_what_nobody_waits_for_waits_a_moment_for_what_comes_next(monkeypatch):
    monkeypatch.setattr(link, "LINGER_S", LONG_S)
    one, found = Link(), []
    one.tell(epoch=1)
    polling = in_thread(lambda: found.append(numbers(one.poll(0, patience_s=LONG_S))))
    one.send({"event": 2})
    polling.join(0.1)
    assert polling.is_alive()
    in_thread(one.wait_until_taken)
    polling.join(LONG_S)
    one.tell(end="FINISHED")
    found.append(numbers(one.poll(2, patience_s=LONG_S)))
    assert found == [[1, 2], [3]]


def test_a_wait_that_is_over_hurries_nothing_that_comes_after_it(monkeypatch):
    monkeypatch.setattr(link, "LINGER_S", LONG_S)
    one, found = Link(), []
    one.send({"event": 1})
    one.poll(0, patience_s=0)
    waiting = in_thread(one.wait_until_taken)
    waiting.join(0.1)
    polling = in_thread(lambda: found.append(numbers(one.poll(1, patience_s=LONG_S))))
    waiting.join(LONG_S)
    one.tell(epoch=1)
    polling.join(0.1)
    assert polling.is_alive()
    one.send({"event": 2})
    in_thread(one.wait_until_taken)
    polling.join(LONG_S)
    assert found == [[2, 3]]


def test_who_waits_for_room_is_not_kept_waiting(monkeypatch):
    monkeypatch.setattr(link, "LINGER_S", LONG_S)
    monkeypatch.setattr(link, "MOST_WAITING", 2)
    one = Link()
    one.send({})
    one.send({})
    waiting = in_thread(lambda: one.send({}))
    assert numbers(one.poll(0, patience_s=LONG_S)) == [1, 2]
    one.poll(1, patience_s=0)
    waiting.join(LONG_S)
    assert not waiting.is_alive()
