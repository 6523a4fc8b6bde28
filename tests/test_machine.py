"""What this machine has, and its container allows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import machine
from pipeline.machine import WAITING, cores_here, in_gigabytes, let_waiting_threads_sleep, memory_here


def test_the_containers_limit_counts_where_it_is_the_smaller(monkeypatch, tmp_path):
    whole = memory_here()
    for text, memory in (("1000000\n", 1_000_000), ("max\n", None), (str(2**62), None)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(machine, "LIMITS", (str(tmp_path / "memory.max"), str(tmp_path / "nothing")))
        assert memory_here() == memory or (memory is None and memory_here() >= whole)


def test_a_system_that_does_not_tell_its_memory_has_enough(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert memory_here() == 2**63


def test_the_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 7}, raising=False)
    assert cores_here() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores_here() == 1


def test_sizes_in_gigabytes():
    assert [in_gigabytes(size) for size in (3e8, 1_234_567e6, 2**63)] == ["0.3 GB", "1,235 GB", "9,223,372,037 GB"]


@pytest.fixture
def busy(monkeypatch):
    """How many programs want a core, of four."""
    monkeypatch.setattr(machine, "cores_here", lambda: 4)
    return lambda load: monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))


def test_beside_other_programs_threads_that_wait_give_their_core_away_unless_the_user_has_said_how(busy):
    busy(2.1)
    given = [{}, {"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "ACTIVE"}]
    for environ in given:
        let_waiting_threads_sleep(environ)
    assert given == [WAITING, {**WAITING, "GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "ACTIVE"}]


def test_on_a_machine_of_ones_own_they_stay_awake(busy, monkeypatch):
    environ = {}
    busy(2.0)
    let_waiting_threads_sleep(environ)
    monkeypatch.delattr(os, "getloadavg")
    let_waiting_threads_sleep(environ)
    assert environ == {}


def test_a_command_settles_it_for_itself_and_its_processes(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os\n"
        "os.getloadavg = lambda: (1e6, 0, 0)\n"
        "atexit.register(lambda: print(os.environ.get('GOMP_SPINCOUNT')))\n"
    )
    given = {name: value for name, value in os.environ.items() if name not in WAITING and name != "OMP_WAIT_POLICY"}
    told = subprocess.run(
        [sys.executable, "-m", "pipeline", "--help"],
        env={**given, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[1]}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.splitlines()[-1] == WAITING["GOMP_SPINCOUNT"]
