"""Run folders at the mercy of chance and of other users: nothing else is lost, no status wrong, nobody stopped."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.config import RunConfig
from pipeline.tracking.folders import all_folders
from pipeline.tracking.journal import Journal, RunFolder
from tests import fuzz_runs
from tests.conftest import ROOT, environment


def begun(path):
    journal = Journal(RunFolder(path))
    journal.append("start", run_key=path.name, params=RunConfig().as_dict(), tags={}, parent="")
    return journal


def test_some_hundred_random_damages_lose_nothing_else_and_change_no_status(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where no disk is waited for, if the machine has that
    counts, failures = fuzz_runs.fuzz(300, seed=12)
    assert failures == []
    assert counts["cases"] == 300


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
        "import os; from pipeline.delivery import sync; from pipeline.tracking import folders, journal, recovery\n"
        "from pipeline.delivery.opening import Known\n"
        "os.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
        f"runs = {str(runs)!r}\n"
        "for _ in range(2): assert recovery.left_by_others(runs) == []\n"
        "assert [each.path.name for each in folders.all_folders(runs)] == ['readable']\n"
        "folder = folders.new_folder(runs); journal.Journal(folder).append('start', run_key='own')\n"
        "assert folders.find_folder(runs, 'last').path == folder.path\n"
        "assert sync._sync_one(journal.RunFolder(runs + '/readable'), '', Known(), False) == sync.OTHERS\n"
    )
    here = environment(HOME=str(shared_folder), PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run([sys.executable, "-c", code], env=here, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("passed over, which this user may not read: secret") == 1
    assert done.stderr.count("readable: died without a word, but cannot be marked so here (Permission denied)") == 1
    assert {folder.ended() for folder in all_folders(runs)} == {None}
