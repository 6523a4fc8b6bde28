"""What is in the way of following the alias: told in words, counted, waited for, and never an end of the service."""

import threading
from types import SimpleNamespace

import pytest

from pipeline.registry.versions import NotServableError, UnknownAliasError, UnknownModelError
from tests.asgi import counted
from tests.fake_registry import watcher_of


def test_what_the_opening_of_a_version_ends_with_is_what_it_is(registry):
    registry.new("1")
    registry.champion, error = "1", RuntimeError("No such file or directory")

    def load(*arguments):
        raise error

    registry.load = load
    watcher = watcher_of(registry)
    with pytest.raises(RuntimeError) as told:
        watcher.look()
    assert told.value is error
    assert watcher.current is None


PAUSES = {
    "well": ([None] * 4, [2, 2, 2, 2, 2]),
    "away": ([OSError("x")] * 6, [2, 4, 8, 16, 30, 30, 30]),
    "away and back": ([OSError("x"), OSError("x"), None, OSError("x"), None], [2, 4, 8, 2, 4, 2]),
}


@pytest.mark.parametrize("case", PAUSES)
def test_it_looks_every_so_often_and_more_seldom_while_that_fails(registry, case):
    ends, expected = PAUSES[case]
    watcher, pauses, noted = watcher_of(registry, 2.0), [], []
    looks = iter(ends)

    def once():
        if error := next(looks):
            raise error

    def wait(pause):
        pauses.append(pause)
        return len(pauses) > len(ends)

    watcher.look, watcher.note, watcher._stop = once, noted.append, SimpleNamespace(wait=wait)
    watcher._follow()
    assert pauses == expected
    assert noted == ends


NOTES = [
    (NotServableError("version 1 at http://bob:pw@h/x"), "version", "version 1 at http://h/x"),
    (UnknownModelError("no model"), "version", "no model"),
    (UnknownAliasError("no alias http://bob:pw@h"), "version", "no alias http://h"),
    (ZeroDivisionError("by zero"), "registry", "ZeroDivisionError: by zero"),
    (ValueError("what"), "registry", "ValueError: what"),
]


@pytest.mark.parametrize(("error", "kind", "words"), NOTES, ids=[str(each[0]) for each in NOTES])
def test_how_a_look_went_is_told_in_health_metrics_and_log_once_while_it_lasts(registry, caplog, error, kind, words):
    watcher = watcher_of(registry)
    watcher.note(None)
    assert (watcher.trouble, counted(watcher, "following"), caplog.records) == (None, {"": 1}, [])
    assert counted(watcher, "follow_failures_total") == {}
    for _ in range(2):
        watcher.note(error)
        assert (watcher.trouble, counted(watcher, "following")) == (words, {})
    assert counted(watcher, "follow_failures_total") == {f'{{reason="{kind}"}}': 2}
    watcher.note(OSError("x"))
    for _ in range(2):
        watcher.note(None)
        assert (watcher.trouble, counted(watcher, "following")) == (None, {"": 1})
    told = [(record.levelname, record.getMessage(), record.trouble) for record in caplog.records]
    assert [trouble for _, _, trouble in told] == [words, told[1][2], None]
    assert {each[:2] for each in told} == {("WARNING", "following the alias")}
    assert {record.name for record in caplog.records} == {"pipeline.serving"}


def test_it_follows_in_a_thread_of_its_own_that_holds_up_no_end_until_it_is_stopped(registry):
    watcher, looked = watcher_of(registry, 0.001), threading.Event()
    watcher.look = looked.set
    watcher.start()
    assert looked.wait(20)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "alias watcher"]
    assert thread.daemon
    watcher.stop()
    thread.join(20)
    assert not thread.is_alive()
