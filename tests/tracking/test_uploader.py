"""The handles that trainings hold on an uploader: how it is started, told, waited for, and ended."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.tracking import uploader
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.uploader import Uploader, UploaderProcess
from tests.conftest import ROOT


class Process:
    """In `subprocess.Popen`'s place."""

    made = ()

    def __init__(self, command, **options):
        self.command, self.options = command, options
        self.read_end, write_end = os.pipe()
        self.stdin = os.fdopen(write_end, "wb", buffering=0)
        self.code, self.waited, self.killed = 0, [], 0

    def wait(self, timeout=None):
        self.waited.append(timeout)
        if self.code is None and not self.killed:
            raise subprocess.TimeoutExpired("uploader", timeout)
        return self.code

    def kill(self):
        self.killed += 1

    def heard(self):
        """What it has been told so far; nothing if the input is closed and read."""
        return os.read(self.read_end, 65536)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


@pytest.fixture
def handle(folder, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Process)
    return UploaderProcess(folder)


def test_it_is_a_process_of_its_own_that_ctrl_c_does_not_reach(handle, folder, monkeypatch):
    process = handle._process
    assert process.command == [sys.executable, "-P", "-m", "pipeline.delivery.upload_loop", str(folder.path)]
    assert (process.options["stdin"], process.options["start_new_session"]) == (subprocess.PIPE, True)
    assert process.options["stdout"] is process.options["stderr"]
    assert process.options["stdout"].name == str(folder.path / "sender.log")
    assert process.options["env"]["PYTHONPATH"] == uploader.importable()["PYTHONPATH"]
    assert process.options["stdout"].closed


def test_its_log_goes_on_where_the_last_one_ended(folder, monkeypatch):
    (folder.path / "sender.log").write_text("before\n")
    monkeypatch.setattr(subprocess, "Popen", Process)
    UploaderProcess(folder)
    assert (folder.path / "sender.log").read_text() == "before\n"


@pytest.mark.parametrize(("before", "after"), [(None, [ROOT]), ("", [ROOT]), ("/a:/b", [ROOT, "/a", "/b"])])
def test_the_package_is_found_from_everywhere(before, after, monkeypatch):
    monkeypatch.setenv("OTHER", "kept")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before)
    variables = uploader.importable()
    assert [Path(each) for each in variables["PYTHONPATH"].split(":")] == [Path(each) for each in after]
    assert variables["OTHER"] == "kept"


def test_it_is_told_of_its_folder_in_a_line(handle, folder):
    handle.notify()
    handle.notify()
    content = handle._process.heard()
    assert [json.loads(each) for each in content.splitlines()] == [str(folder.path)] * 2
    assert content.endswith(b"\n")


def test_a_shared_uploader_is_told_through_the_inherited_input(handle, tmp_path):
    other = RunFolder(tmp_path / "a\nb")
    Uploader(other, handle.descriptor).notify()
    handle.notify()
    lines = handle._process.heard().splitlines()
    assert [json.loads(each) for each in lines] == [str(other.path), str(handle.folder.path)]


def test_a_uploader_that_has_died_is_told_nothing_and_nobody_fails(handle, folder):
    os.close(handle._process.read_end)
    handle.notify()
    Uploader(folder, handle.descriptor).notify()
    handle.close()
    handle.close()


def test_close_ends_its_input_and_waits_for_nothing(handle):
    handle.close()
    assert (handle._process.heard(), handle._process.waited, handle._process.killed) == (b"", [], 0)


@pytest.mark.parametrize(("code", "all_is_there"), [(0, True), (1, False), (-9, False)])
def test_wait_waits_for_its_end_and_says_whether_all_was_delivered(handle, code, all_is_there):
    handle._process.code = code
    assert handle.wait() is all_is_there
    assert (handle._process.heard(), handle._process.waited, handle._process.killed) == (b"", [None], 0)


def test_who_has_no_patience_left_ends_it(handle):
    handle._process.code = None
    assert handle.wait(7.5) is False
    assert (handle._process.waited, handle._process.killed) == ([7.5, None], 1)
    assert handle._process.heard() == b""


def test_an_uploader_that_reads_nothing_keeps_nobody_waiting(folder):
    process = Process([])
    handle = Uploader(folder, process.stdin.fileno())
    os.set_blocking(handle.descriptor, False)
    for _ in range(10_000):
        handle.notify()
    assert set(process.heard().splitlines(keepends=True)[:-1]) == {json.dumps(str(folder.path)).encode() + b"\n"}


def test_the_input_of_the_process_never_blocks(handle):
    assert not os.get_blocking(handle.descriptor)


def test_a_closed_one_is_told_nothing(handle, tmp_path):
    handle.close()
    with (tmp_path / "opened since").open("wb") as other:  # whose number may be the closed one's
        handle.notify()
        assert other.tell() == 0
    assert (tmp_path / "opened since").read_bytes() == b""


def test_one_process_delivers_what_several_runs_have_left_in_a_store(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Process)
    made = []
    monkeypatch.setattr(Process, "kill", lambda self: None)
    original = Process.__init__
    monkeypatch.setattr(Process, "__init__", lambda self, *a, **b: (original(self, *a, **b), made.append(self))[0])
    folders = [RunFolder(tmp_path / name) for name in ("a", "b", "c")]
    for each in folders:
        each.path.mkdir()
    folders[1].write_state({"run_id": "1", "tracking_uri": "http://other"})
    uploader.deliver_in_background(folders, tmp_path)
    uploader.deliver_in_background([])
    process, other = made
    assert [each.command[-2:] for each in made] == [[str(folders[number].path), "--left"] for number in (0, 1)]
    assert [each.options["cwd"] for each in made] == [tmp_path] * 2
    assert [json.loads(line) for line in process.heard().splitlines()] == [str(folders[2].path)]
    assert (process.heard(), other.heard()) == (b"", b"")
