"""What is in the way of following the alias: told in words, counted, waited for, and never an end of the service."""

import threading
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST
from requests import HTTPError, Response

from pipeline.registry.versions import NotServableError, UnknownAliasError, UnknownModelError
from pipeline.serving import alias_watcher as module
from tests.asgi import counted
from tests.fake_registry import Registry, follower_of


@pytest.fixture
def registry(monkeypatch):
    found = Registry()
    monkeypatch.setattr(module, "load", lambda *arguments: found.load(*arguments))
    return found


def response(status):
    found = Response()
    found.status_code = status
    return found


GONE = [
    FileNotFoundError(2, "gone"),
    MlflowException("gone", RESOURCE_DOES_NOT_EXIST),
    HTTPError("gone", response=response(404)),
    OSError("gone: No such file or directory"),
]
OTHER = [
    OSError("the disk is broken"),
    MlflowException("gone", INTERNAL_ERROR),
    HTTPError("gone", response=response(503)),
    HTTPError("gone"),
    RuntimeError("No such file or directory"),
    NotServableError("broken"),
]


@pytest.mark.parametrize("error", GONE, ids=repr)
def test_files_that_are_gone_are_the_versions_fault(registry, error):
    registry.new("1")
    registry.champion = "1"

    def load(*arguments):
        raise error

    registry.load = load
    follower = follower_of(registry)
    with pytest.raises(NotServableError) as told:
        follower.look()
    assert str(told.value) == f"the files of digits version 1 are missing ({error})"
    assert follower.current is None


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_any_other_fault_is_what_it_is(registry, error):
    registry.new("1")
    registry.champion = "1"

    def load(*arguments):
        raise error

    registry.load = load
    with pytest.raises(type(error)) as told:
        follower_of(registry).look()
    assert told.value is error


def test_why_files_are_gone_is_said_in_one_short_line_without_a_password(registry):
    registry.new("1")
    registry.champion = "1"

    def load(*arguments):
        raise FileNotFoundError("http://bob:pw@host/x\n  y " + "z" * 200)

    registry.load = load
    with pytest.raises(NotServableError) as told:
        follower_of(registry).look()
    reason = ("http://host/x y " + "z" * 200)[:160]
    assert str(told.value) == f"the files of digits version 1 are missing ({reason})"


PAUSES = {
    "well": ([None] * 4, [2, 2, 2, 2, 2]),
    "away": ([OSError("x")] * 6, [2, 4, 8, 16, 30, 30, 30]),
    "away and back": ([OSError("x"), OSError("x"), None, OSError("x"), None], [2, 4, 8, 2, 4, 2]),
}


@pytest.mark.parametrize("case", PAUSES)
def test_it_looks_every_so_often_and_more_seldom_while_that_fails(registry, case):
    ends, expected = PAUSES[case]
    follower, pauses, noted = follower_of(registry, 2.0), [], []
    looks = iter(ends)

    def once():
        if error := next(looks):
            raise error

    def wait(pause):
        pauses.append(pause)
        return len(pauses) > len(ends)

    follower.look, follower.note, follower._stop = once, noted.append, SimpleNamespace(wait=wait)
    follower._follow()
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
    follower = follower_of(registry)
    follower.note(None)
    assert (follower.trouble, counted(follower, "following"), caplog.records) == (None, {"": 1}, [])
    assert counted(follower, "follow_failures_total") == {}
    for _ in range(2):
        follower.note(error)
        assert (follower.trouble, counted(follower, "following")) == (words, {})
    assert counted(follower, "follow_failures_total") == {f'{{reason="{kind}"}}': 2}
    follower.note(OSError("x"))
    for _ in range(2):
        follower.note(None)
        assert (follower.trouble, counted(follower, "following")) == (None, {"": 1})
    told = [(record.levelname, record.getMessage(), record.trouble) for record in caplog.records]
    assert [trouble for _, _, trouble in told] == [words, told[1][2], None]
    assert {each[:2] for each in told} == {("WARNING", "following the alias")}
    assert {record.name for record in caplog.records} == {"pipeline.serving"}


def test_it_follows_in_a_thread_of_its_own_that_holds_up_no_end_until_it_is_stopped(registry):
    follower, looked = follower_of(registry, 0.001), threading.Event()
    follower.look = looked.set
    follower.start()
    assert looked.wait(20)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "follower"]
    assert thread.daemon
    follower.stop()
    thread.join(20)
    assert not thread.is_alive()
