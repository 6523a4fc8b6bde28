"""What a damaged, foreign or copied run folder costs: nothing that is not damaged, and no wrong status."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline import recovery, workflow
from pipeline.config import RunConfig
from pipeline.record import Journal, RunFolder, all_folders, find_folder, original_of
from tests import fuzz_runs
from tests.conftest import ROOT, environment


def begun(path, **more):
    journal = Journal(RunFolder(path))
    journal.append("start", run_key=path.name, params=RunConfig().as_dict(), tags={}, parent="", **more)
    for step in (1, 2, 3):
        journal.metrics({"train_loss": 1 / step}, step)
    return journal


def finished(path):
    journal = begun(path)
    journal.append("end", status="FINISHED", tags={})
    journal.close()
    return RunFolder(path)


def test_some_hundred_random_damages_lose_nothing_else_and_change_no_status():
    counts, failures = fuzz_runs.fuzz(300, seed=12)
    assert failures == []
    assert counts["cases"] == 300


def test_a_flipped_bit_in_a_finished_run_changes_no_status_and_is_told(tmp_path):
    folder = finished(tmp_path / "runs/run")
    folder.write_state({"run_id": "abc", "delivered": 5})
    path = folder.path / "journal.jsonl"
    before = path.read_bytes().replace(b'"step":2', b'"step":0')
    path.write_bytes(before)
    assert recovery.mark_dead_runs(tmp_path / "runs") == []
    assert folder.ended()["status"] == "FINISHED"
    assert recovery.losses(folder) == ["record 3 (metrics of epoch 0) is damaged: MLflow has it"]
    folder.write_state({"run_id": "abc", "delivered": 2})
    assert recovery.losses(folder) == ["record 3 (metrics of epoch 0) is damaged: it is lost"]
    assert path.read_bytes() == before


def test_a_run_whose_end_may_be_what_was_lost_is_not_called_dead(tmp_path, capsys):
    folder = finished(tmp_path / "run")
    (folder.path / "vital.jsonl").unlink()  # as a folder of an older version
    path = folder.path / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"kind":"end"', b'"kind":"eNd"'))
    assert not recovery.mark_if_dead(folder)
    assert "nobody can say how it ended; left as it is" in capsys.readouterr().err
    folder.write_state({"run_id": "abc", "delivered": 5})
    path.write_bytes(whole[: whole.index(b'"kind":"end"') - 10])
    assert not recovery.mark_if_dead(folder)
    assert recovery.losses(folder) == ["the last 1 records are missing; MLflow has them"]


def test_a_run_that_really_died_is_marked_once(tmp_path):
    begun(tmp_path / "run").close()
    folder = RunFolder(tmp_path / "run")
    assert recovery.mark_if_dead(folder)
    assert folder.ended()["tags"]["failure_reason"] == recovery.DIED
    assert not recovery.mark_if_dead(folder)


def test_a_lost_first_record_leaves_the_knobs_to_the_config_file(tmp_path):
    folder = finished(tmp_path / "run")
    (folder.path / "vital.jsonl").unlink()
    path = folder.path / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"start", b"stArt"))
    with pytest.raises(ValueError, match=r"the first record of run is damaged and config.yaml cannot be read"):
        recovery.recorded_config(folder)
    (folder.path / "config.yaml").write_text("epochs: 7\n")
    assert recovery.recorded_config(folder) == RunConfig(epochs=7)
    text = recovery.config_text(RunConfig(epochs=7))
    (folder.path / "config.yaml").write_text(text)
    assert recovery.recorded_config(folder) == RunConfig(epochs=7)
    (folder.path / "config.yaml").write_text(text.replace("epochs: 7", "epochs: 5"))
    with pytest.raises(ValueError, match="its checksum is not that of its content"):
        recovery.recorded_config(folder)


def test_a_copy_is_neither_marked_dead_nor_resumed_nor_last(tmp_path):
    journal = begun(tmp_path / "original")
    original, copy = RunFolder(tmp_path / "original"), RunFolder(tmp_path / "renamed copy")
    shutil.copytree(original.path, copy.path)
    journal.close()
    assert original_of(copy).path == original.path
    assert not recovery.mark_if_dead(copy)
    assert find_folder(tmp_path, "last").path == original.path
    with pytest.raises(ValueError, match=r"sync 'renamed copy' --as-new --runs_dir"):
        recovery.resumed_config(copy, {})


def test_a_copy_elsewhere_of_a_run_that_lives_is_not_marked_dead(tmp_path):
    journal = begun(tmp_path / "runs/run")
    shutil.copytree(tmp_path / "runs/run", tmp_path / "backup/run")
    copy = RunFolder(tmp_path / "backup/run")
    assert not recovery.mark_if_dead(copy)
    journal.close()
    assert recovery.mark_if_dead(copy)


def test_a_run_that_another_process_has_finished_meanwhile_is_not_resumed(tmp_path, monkeypatch):
    journal = begun(tmp_path / "run")
    journal.append("end", status="KILLED", tags={})
    real = workflow.open_journal

    def after_another(folder):
        journal.append("end", status="FINISHED", tags={})
        journal.close()
        return real(folder)

    monkeypatch.setattr(workflow, "open_journal", after_another)
    monkeypatch.setattr(RunFolder, "is_alive", lambda self: False)
    with pytest.raises(ValueError, match="run run is finished; there is nothing to resume"):
        workflow.resume("run", {}, str(tmp_path))


@pytest.fixture
def shared_folder():
    """A folder that every user can enter; pytest's own are for one."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_a_run_of_another_user_stops_nobody_and_is_told_once(shared_folder):
    runs = shared_folder / "runs"
    begun(runs / "readable").close()
    begun(runs / "secret").close()
    (runs / "readable").chmod(0o755)
    runs.chmod(0o777)
    code = (
        "import os; from pipeline import recovery, record, sync\n"
        "os.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
        f"runs = {str(runs)!r}\n"
        "for _ in range(2): assert recovery.mark_dead_runs(runs) == []\n"
        "assert [each.path.name for each in record.all_folders(runs)] == ['readable']\n"
        "folder = record.new_folder(runs); record.Journal(folder).append('start', run_key='own')\n"
        "assert record.find_folder(runs, 'last').path == folder.path\n"
        "assert sync._sync_one(record.RunFolder(runs + '/readable'), '', False) == sync.OTHERS\n"
    )
    here = environment(HOME=str(shared_folder), PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run([sys.executable, "-c", code], env=here, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("passed over, which this user may not read: secret") == 1
    assert done.stderr.count("readable: died without a word, but cannot be marked so here (Permission denied)") == 1
    assert {folder.ended() for folder in all_folders(runs)} == {None}


@pytest.mark.parametrize("name", ["with space", 'it\'s "quoted"', "Übung", "line\nbreak", "*[a]?"])
def test_runs_lie_in_a_folder_of_any_name(tmp_path, name):
    runs = tmp_path / name
    folder = finished(runs / "run")
    assert [each.path for each in all_folders(runs)] == [folder.path]
    assert find_folder(runs, "last").path == folder.path
