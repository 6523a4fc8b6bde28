"""One training on two nodes, two process groups of torchrun's on this machine: recorded once, killed, resumed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import launchers
from pipeline.tracking.folders import all_folders, values_of
from tests import faults
from tests.conftest import environment, free_port, run_pipeline

KNOBS = ["--dataset", "digits", "--epochs", "4", "--hidden_units", "32", "--accelerator", "cpu", "--model_name", ""]
PATIENCE_S = 300


def start(cwd, *more):
    """The same command on both nodes; returns torchrun's two processes, each with a process group of its own."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    return [
        subprocess.Popen(
            [*torchrun, "--node-rank", str(rank), "-m", "pipeline", "train", "--num_nodes", "2", *more],
            cwd=cwd,
            env=environment(OMP_NUM_THREADS="1"),
            stdout=subprocess.DEVNULL,
            stderr=(cwd / f"node-{rank}.log").open("w"),
            start_new_session=True,
        )
        for rank in (0, 1)
    ]


def end_of(nodes):
    return [node.wait(PATIENCE_S) for node in nodes]


def values(cwd):
    (folder,) = all_folders(cwd / "runs")
    found = values_of(folder.events())
    return folder, {name: steps for name, steps in found.items() if "seconds" not in name}


def words(cwd):
    return [(cwd / f"node-{rank}.log").read_text() for rank in (0, 1)]


def kill_group_of(node):
    """The node is gone, with all that runs there: torchrun's workers have process groups of their own."""
    waiting = [node.pid]
    while waiting:
        pid = waiting.pop()
        children = Path(f"/proc/{pid}/task/{pid}/children")
        if children.exists():
            waiting += map(int, children.read_text().split())
        faults.signal_all([pid])  # it may have ended by itself just now


@pytest.mark.slow
def test_a_training_on_two_nodes_whose_second_is_killed_is_resumed_to_the_same_numbers(tmp_path):
    for name in ("one_machine", "whole", "killed"):
        (tmp_path / name).mkdir()
    two = ["--devices", "2", "--strategy", "ddp"]
    done = run_pipeline("train", *KNOBS, *two, cwd=tmp_path / "one_machine", timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert end_of(start(tmp_path / "whole", *KNOBS)) == [0, 0], words(tmp_path / "whole")
    _, expected = values(tmp_path / "whole")
    assert sorted(expected["train_loss"]) == [1, 2, 3, 4]
    assert expected == values(tmp_path / "one_machine")[1]

    cwd = tmp_path / "killed"
    nodes = start(cwd, *KNOBS, "--epochs", "40")
    until = time.monotonic() + PATIENCE_S
    while not (folders := all_folders(cwd / "runs")) or "train_loss" not in values_of(folders[0].events()):
        assert time.monotonic() < until, words(cwd)
        time.sleep(0.05)
    kill_group_of(nodes[1])
    assert 0 not in end_of(nodes)
    folder, _ = values(cwd)
    assert folder.ended()["status"] in ("FAILED", "KILLED")
    assert end_of(start(cwd, "--resume", "last")) == [0, 0], words(cwd)
    folder, found = values(cwd)
    assert folder.ended()["status"] == "FINISHED"
    assert sorted(found["train_loss"]) == list(range(1, 41))
    assert {name: {step: found[name][step] for step in (1, 2, 3, 4)} for name in ("train_loss", "val_loss")} == {
        name: expected[name] for name in ("train_loss", "val_loss")
    }
    assert sum(event["kind"] == "resume" for event in folder.events()) == 1


def test_several_nodes_are_taken_part_in_only_where_torchrun_started_them():
    started = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "1"}
    for typed in (["--num_nodes", "2"], ["--num_nodes=2"], ["--epochs", "3", "--num-nodes", "2"]):
        environ = dict(started)
        assert launchers.take_part(typed, environ)
        assert environ.items() >= started.items()
        with pytest.raises(ValueError, match=r"num_nodes 2 needs a launcher .* torchrun --nnodes"):
            launchers.take_part(typed, {})
    assert not launchers.take_part(["--num_nodes", "1"], dict(started))
    assert not launchers.take_part([], dict(started))


def test_only_the_first_of_partners_has_the_record(monkeypatch):
    monkeypatch.setenv(launchers.PARTNERS, "1")
    monkeypatch.setenv("RANK", "0")
    assert (launchers.has_partners(), launchers.is_helper()) == (True, False)
    monkeypatch.setenv("RANK", "1")
    assert launchers.is_helper()
    monkeypatch.delenv(launchers.PARTNERS)
    assert not launchers.is_helper()
