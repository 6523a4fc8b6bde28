"""Where the lock of a promotion lies, and what is done without it."""

import os

import pytest
from filelock import FileLock, Timeout

from pipeline.registry import promotion_lock
from pipeline.registry.promotion_lock import one_at_a_time


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A registry behind a server; this user's folder for such things is empty."""
    monkeypatch.setattr(promotion_lock.mlflow, "get_registry_uri", lambda: "http://registry:5000")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / f"pipeline-{os.getuid()}"


def held(path):
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def test_for_a_file_it_lies_beside_it_whatever_the_model(monkeypatch, tmp_path):
    monkeypatch.setattr(promotion_lock.mlflow, "get_registry_uri", lambda: f"sqlite:///{tmp_path}/mlflow.db")
    assert {promotion_lock._lock_path(name) for name in "mn"} == {tmp_path / "mlflow.db.promote.lock"}


def test_for_a_server_each_model_has_one_in_a_folder_of_the_users_own(server, monkeypatch):
    first = promotion_lock._lock_path("m")
    assert first.parent == server
    assert server.stat().st_mode & 0o777 == 0o700
    assert first.name.startswith("promote-")
    assert first.suffix == ".lock"
    assert promotion_lock._lock_path("m") == first != promotion_lock._lock_path("n")
    monkeypatch.setattr(promotion_lock.mlflow, "get_registry_uri", lambda: "http://other:5000")
    assert promotion_lock._lock_path("m") != first


def test_without_a_runtime_folder_it_lies_in_that_of_temporary_files(server, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(promotion_lock.tempfile, "gettempdir", lambda: str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    assert promotion_lock._lock_path("m").parent == tmp_path / "t" / server.name


@pytest.mark.parametrize("what", ["file", "link", "another's", "no room"])
def test_what_somebody_else_has_put_in_its_place_is_done_without(server, monkeypatch, tmp_path, what):
    if what == "file":
        server.write_text("")
    elif what == "link":
        (tmp_path / "elsewhere").mkdir()
        server.symlink_to(tmp_path / "elsewhere")
    elif what == "another's":
        monkeypatch.setattr(promotion_lock.os, "getuid", lambda: 54321)
        (tmp_path / "pipeline-54321").mkdir()
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "not there"))
    assert promotion_lock._lock_path("m") is None
    with one_at_a_time("m"):
        pass


def test_it_is_held_within_and_let_go_after_also_by_an_error(server):
    path = promotion_lock._lock_path("m")
    for error in (None, ValueError):
        try:
            with one_at_a_time("m"):
                assert held(path)
                if error:
                    raise error
        except ValueError:
            pass
        assert not held(path)


def test_a_lock_that_cannot_be_had_is_done_without_and_what_happens_within_is_not(server, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(promotion_lock, "FileLock", refuse)
    done = []
    with one_at_a_time("m"):
        done.append(1)
    assert done == [1]
    with pytest.raises(OSError, match="mine"), one_at_a_time("m"):
        raise OSError("mine")
