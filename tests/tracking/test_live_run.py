"""A run that a logger keeps open: begun, gone on with or shared, and ended as what happened says."""

import contextlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import signals
from pipeline.terminal.shell import command, shown
from pipeline.tracking import live_run, recovery, run
from pipeline.tracking.folders import refusal_of_copy
from pipeline.tracking.journal import Journal, RunFolder, RunIsAliveError
from tests.tracking.idle_uploader import IdleUploader


@pytest.fixture(autouse=True)
def delivered(monkeypatch):
    """No process is started and no git asked; what was to be delivered in the background, with its place."""
    found = []
    code = SimpleNamespace(tags=lambda: {"git.commit": "c0ffee"}, diff=b"")
    monkeypatch.setattr(live_run, "UploaderProcess", IdleUploader)
    monkeypatch.setattr(recovery, "deliver_in_background", lambda folders, cwd: found.append((list(folders), cwd)))
    monkeypatch.setattr(live_run, "checkout", lambda here: code)
    monkeypatch.setattr(run, "installed", lambda: [])
    yield found
    for live in list(live_run._open.values()):
        live.close()


def opened(path, has_begun=False, **tags):
    return live_run.opened(RunFolder(path), "flowers", tags, has_begun=has_begun, adopt=False)


def ended(path):
    end = RunFolder(path).ended()
    return end and (end["status"], end["tags"].get("failure_reason", ""))


def recorded(path, status=None, reason="", **start):
    """A run that another process has left."""
    journal = Journal(RunFolder(path))
    event = {"run_key": path.name, "params": {}, "tags": {}, "experiment_name": "flowers", "parent": "", **start}
    journal.append("start", folder=str(path), **event)
    if status:
        journal.append("end", status=status, tags={"failure_reason": reason} if reason else {})
    journal.close()


def kinds(path):
    return [event["kind"] for event in RunFolder(path).events()]


def test_a_new_run_is_begun_where_it_belongs_with_its_tags(tmp_path):
    live = opened(tmp_path / "run", team="botany")
    start = RunFolder(tmp_path / "run").started()
    assert (start["experiment_name"], start["tags"]["team"]) == ("flowers", "botany")
    assert live.uploader.folder.path == tmp_path / "run"
    assert live.uploader.cwd is None


def test_a_copy_of_the_logger_shares_the_run(tmp_path):
    live = opened(tmp_path / "run")
    assert opened(tmp_path / "run") is live
    live.close()
    assert opened(tmp_path / "run") is not live


def test_what_others_left_is_delivered_first_from_where_the_store_lies(tmp_path, monkeypatch, delivered):
    recorded(tmp_path / "dead")
    opened(tmp_path / "run").close()
    monkeypatch.setattr(live_run.tempfile, "TemporaryFile", refuses)
    live = opened(tmp_path / "next")
    assert [[folder.path.name for folder in folders] for folders, _ in delivered] == [["dead"], ["dead", "run"]]
    assert [cwd for _, cwd in delivered] == [None, tmp_path]
    assert live.uploader.cwd == tmp_path


def refuses(**_):
    raise PermissionError


def test_an_interrupted_run_is_marked_before_it_is_gone_on_with(tmp_path, monkeypatch):
    recorded(tmp_path / "run")
    monkeypatch.setattr(recovery, "left_by_others", lambda runs_dir: [])
    opened(tmp_path / "run", team="botany")
    assert kinds(tmp_path / "run")[:3] == ["start", "end", "resume"]
    assert RunFolder(tmp_path / "run").events()[1]["status"] == "FAILED"
    assert RunFolder(tmp_path / "run").events()[2]["tags"]["team"] == "botany"


def test_an_ended_run_is_gone_on_with_as_it_ended(tmp_path):
    recorded(tmp_path / "run", "KILLED")
    opened(tmp_path / "run")
    assert kinds(tmp_path / "run")[:3] == ["start", "end", "resume"]


def test_a_copy_of_a_run_is_refused_with_what_to_do(tmp_path):
    recorded(tmp_path / "a", run_key="k")
    (tmp_path / "b").mkdir()
    for path in (tmp_path / "a").iterdir():
        (tmp_path / "b" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="copy") as caught:
        opened(tmp_path / "b")
    assert str(caught.value) == refusal_of_copy(RunFolder(tmp_path / "b"), RunFolder(tmp_path / "a"))


def test_another_run_in_the_process_ends_what_is_complete_and_nothing_else(tmp_path):
    one, two = opened(tmp_path / "one"), opened(tmp_path / "two")
    one.ending.complete = True
    three = opened(tmp_path / "three")
    assert [ended(tmp_path / name) for name in ("one", "two", "three")] == [("FINISHED", ""), None, None]
    assert two.ending.complete is three.ending.complete is False


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live_run, "Journal", full)
    with pytest.raises(ValueError, match="cannot be written") as caught:
        opened(tmp_path / "run")
    words = f"save_dir {tmp_path} cannot be written (No space left on device); give RunLogger another save_dir"
    assert str(caught.value) == words


def test_a_full_disk_is_no_reason_to_end_a_training(tmp_path, monkeypatch):
    def full(self, code=None):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live_run.Run, "provenance", full)
    live = opened(tmp_path / "run")
    assert kinds(tmp_path / "run") == ["start"]
    assert live.run.is_open


def test_more_after_an_end_opens_the_run_again_and_the_end_stands_again_unless_that_went_well(tmp_path):
    live = opened(tmp_path / "run")
    live.run.end("FAILED", "ValueError: x")
    live.go_on()
    assert kinds(tmp_path / "run")[-2:] == ["end", "resume"]
    assert live.ending.former == ("FAILED", "ValueError: x")
    live.close()
    assert ended(tmp_path / "run") == ("FAILED", "ValueError: x")


def test_more_that_goes_well_is_finished(tmp_path):
    live = opened(tmp_path / "run")
    live.run.end("KILLED")
    live.go_on()
    assert live.ending.former == ("KILLED", "")
    live.ending.complete = True
    live.close()
    assert ended(tmp_path / "run") == ("FINISHED", "")


def test_a_run_that_is_open_is_not_opened_again_and_not_complete(tmp_path):
    live = opened(tmp_path / "run")
    live.ending.complete = True
    live.go_on()
    assert live.ending.complete is False
    assert live.ending.former is None
    assert "resume" not in kinds(tmp_path / "run")


def test_an_error_that_ends_the_process_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "last_value", KeyError("k"), raising=False)
    opened(tmp_path / "run").close()
    assert ended(tmp_path / "run") == ("FAILED", "KeyError: 'k'")


def test_an_error_that_ends_the_process_counts_more_than_the_end_before(tmp_path, monkeypatch):
    live = opened(tmp_path / "run")
    live.run.end("KILLED")
    live.go_on()
    monkeypatch.setattr(sys, "last_value", KeyError("k"), raising=False)
    live.close()
    assert ended(tmp_path / "run") == ("FAILED", "KeyError: 'k'")


def test_at_a_prompt_an_error_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "last_value", KeyError("k"), raising=False)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    opened(tmp_path / "run").close()
    assert ended(tmp_path / "run") == ("FINISHED", "")


def test_a_signal_that_leaves_no_time_for_more_is_the_runs_end(tmp_path):
    live = opened(tmp_path / "run")
    signals._last_words[-1]("SIGTERM")
    assert ended(tmp_path / "run") == ("KILLED", "SIGTERM")
    assert not live.run.is_open


def test_the_end_is_written_once_and_the_last_words_are_taken_back(tmp_path):
    before = len(signals._last_words)
    live = opened(tmp_path / "run")
    assert len(signals._last_words) == before + 1
    live.close()
    live.ending.write()
    assert len(signals._last_words) == before
    assert kinds(tmp_path / "run").count("end") == 1
    assert live.uploader.closed


def test_a_fork_writes_no_end(tmp_path):
    live = opened(tmp_path / "run")
    live.ending.process = os.getpid() + 1
    live.ending.write()
    assert ended(tmp_path / "run") is None
    assert not live.uploader.closed
    live.ending.process = os.getpid()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RunIsAliveError("run is alive")])
def test_where_the_end_cannot_be_written_the_uploader_is_let_go_all_the_same(tmp_path, monkeypatch, error):
    live = opened(tmp_path / "run")

    def refuse(self):
        raise error

    monkeypatch.setattr(live_run.Ending, "_end", refuse)
    live.close()
    assert live.uploader.closed


def test_a_run_that_was_sent_elsewhere_is_taken_back_for_its_end(tmp_path):
    live = opened(tmp_path / "run")
    live.run.journal.release() if hasattr(live.run.journal, "release") else live.run.journal.close()
    with contextlib.suppress(OSError):
        live.close()
    assert ended(tmp_path / "run") == ("FINISHED", "")


@pytest.mark.parametrize("advice", ["", "restore the experiment"])
def test_what_waits_for_mlflow_is_told_at_the_end_with_what_to_do(tmp_path, capsys, advice):
    live = opened(tmp_path / "run")
    live.run.folder.write_state({"trouble": {"error": "no answer", "advice": advice, "since": 0}})
    live.close()
    again = advice or f"when it answers: {command('sync', runs_dir=tmp_path)}"
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"records wait for MLflow in {shown(tmp_path / 'run')} (no answer); {again}\n")


@pytest.mark.parametrize("has_room", [True, False])
def test_what_a_full_disk_has_not_taken_is_tried_once_more_at_the_end_and_else_told(
    tmp_path, monkeypatch, capsys, has_room
):
    live = opened(tmp_path / "run")
    real, full = Journal._write, OSError(28, "No space left on device")
    monkeypatch.setattr(Journal, "_write", lambda self, event: (_ for _ in ()).throw(full))
    live.run.tags({"a": "1"})
    live.run.end("FAILED", "no space left")
    if has_room:
        monkeypatch.setattr(Journal, "_write", real)
    live.close()
    told = f"no space left on the disk of {shown(tmp_path / 'run')}: 2 records are lost\n"
    assert capsys.readouterr() == ("", "" if has_room else told)
    assert ended(tmp_path / "run") == (("FAILED", "no space left") if has_room else None)


def test_what_mlflow_has_is_not_told(tmp_path, capsys):
    opened(tmp_path / "run").close()
    assert capsys.readouterr().err == ""


def test_a_forked_worker_holds_nothing(tmp_path):
    live = opened(tmp_path / "run")
    before = dict(live_run._open)
    live_run._leave_to_the_parent()
    assert live.uploader.closed
    assert not live_run._open
    assert before
    live_run._open.update(before)


def test_the_checkout_is_the_scripts_or_the_working_directorys(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(live_run, "checkout", lambda here: asked.append(here))
    monkeypatch.setattr(live_run, "script", lambda: tmp_path / "code/train.py")
    live_run._script_checkout()
    monkeypatch.setattr(live_run, "script", lambda: None)
    live_run._script_checkout()
    assert asked == [tmp_path / "code", Path.cwd()]
