"""An experiment on a real Ray: three nodes on this machine, real kills; equal to the same on this machine."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.tracking.folders import all_folders, values_of
from tests import faults
from tests.cluster.equal_runs import comparison, runs_of
from tests.cluster.ray_nodes import Nodes, family_of, kill, listening, wait_for
from tests.conftest import environment, free_port

pytest.importorskip("ray", reason="Ray is not installed (make ray)")
pytestmark = pytest.mark.slow

QUESTION = """question: does dropout help on the digits?
shared: {dataset: digits, epochs: 6, validation_size: 200, hidden_units: 64, schedule: "held:steady"}
variants:
  none: {dropout: 0.0}
  half: {dropout: 0.5}
seeds: 2
baseline: none
"""
PATIENCE_S = 600


class Place:
    """A folder with the experiment's file; each command in it records in a store of its own."""

    def __init__(self, path, first=None):
        self.path, self.hold = path, first.hold if first else path / "hold"
        (path / "question.yaml").write_text(QUESTION)
        faults.write_held(path, self.hold)

    def start(self, runs_dir, *more, **variables):
        command = [sys.executable, "-m", "pipeline", "experiment", "question.yaml", "--runs_dir", self.path / runs_dir]
        here = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.path}/{runs_dir}.db", "OMP_NUM_THREADS": "1", **variables}
        log = (self.path / f"{runs_dir}.log").open("w")
        return subprocess.Popen(
            [*map(str, command), *more],
            cwd=self.path,
            env=environment(**here),
            stdout=log,
            stderr=log,
        )

    def run(self, runs_dir, *more, **variables):
        code = self.start(runs_dir, *more, **variables).wait(PATIENCE_S)
        return code, self.log(runs_dir)

    def log(self, runs_dir):
        return (self.path / f"{runs_dir}.log").read_text()

    def epochs(self, runs_dir):
        """How many all runs have trained."""
        folders = all_folders(self.path / runs_dir)
        return sum(len(values_of(folder.events()).get("train_loss", {})) for folder in folders)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The experiment's folder, in which it has run on this machine."""
    made = Place(tmp_path_factory.mktemp("experiment"))
    code, log = made.run("local", "--on", "local")
    assert code == 0, log
    return made


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Three nodes with the dashboard that takes jobs."""
    with pytest.MonkeyPatch.context() as patched:  # a job takes the store of whoever started Ray
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patched.delenv(name)
        made = Nodes(3, dashboard=True)
    yield made
    made.close()


def assert_equal(place, runs_dir):
    """Every metric of every run bit for bit, the same files, the same comparison."""
    local, found = runs_of(place.path / "local"), runs_of(place.path / runs_dir)
    assert local.keys() == found.keys()
    for which, (values, _, files, end) in local.items():
        assert found[which][0] == values
        assert found[which][2] == files
        assert found[which][3] == end == "FINISHED"
    assert comparison(place.path / "local") == comparison(place.path / runs_dir)


def test_the_same_on_a_cluster(place, nodes):
    code, log = place.run("cluster", "--on", f"ray:{nodes.address}")
    assert code == 0, log
    assert "question: 4 runs, 3 at a time" in log
    assert_equal(place, "cluster")


def test_the_same_as_a_job_and_then_nothing_is_trained_twice(place, nodes):
    code, log = place.run("job", "--on", f"ray:{nodes.dashboard}")
    assert code == 0, log
    assert re.search(r"^4/4 \w+ seed=\d+ - \d+ s - val_accuracy", log, re.MULTILINE)
    assert_equal(place, "job")
    before, store = place.epochs("job"), f"sqlite:///{place.path}/mlflow.db"
    code, log = place.run("job", "--on", f"ray:{nodes.address}", MLFLOW_TRACKING_URI=store)
    assert (code, place.epochs("job")) == (0, before), log
    assert "4 finished before" in log


def test_ctrl_c_leaves_the_job_alone_and_says_how_to_follow_and_to_stop_it(place, nodes):
    with faults.holding(place.hold):
        following = place.start("left", "--on", f"ray:{nodes.dashboard}")
        wait_for(lambda: "4 runs" in place.log("left"))
        following.send_signal(signal.SIGINT)
        assert following.wait(PATIENCE_S) == 0
    follow, stop = place.log("left").splitlines()[-2:]
    assert follow.startswith(f"the job goes on; follow it: ray job logs --address {nodes.dashboard} --follow question-")
    assert stop.startswith(f"stop it: ray job stop --address {nodes.dashboard} question-")
    wait_for(lambda: len([1 for each in all_folders(place.path / "left") if each.ended()]) == 5)
    assert_equal(place, "left")


def test_workers_and_a_node_are_killed_and_it_goes_on_by_itself(place, nodes):
    with faults.holding(place.hold):
        process = place.start("killed", "--on", f"ray:{nodes.address}")
        wait_for(lambda: place.epochs("killed") >= 1)
        for worker in nodes.workers():  # all: one of them is at a run that has an epoch to go on from
            kill(worker)
        done = place.epochs("killed")
    wait_for(lambda: place.epochs("killed") > done)
    nodes.kill_raylet()
    assert process.wait(PATIENCE_S) == 0, place.log("killed")
    nodes.others.append(nodes.add())
    assert_equal(place, "killed")
    assert sum(each["kind"] == "resume" for run in all_folders(place.path / "killed") for each in run.events()) >= 1


def test_what_is_wrong_is_said_in_a_line_before_anything_is_left_behind(place, nodes):
    for more, words in (
        (
            ("--gpus", "1", "--on", f"ray:{nodes.address}"),
            r"no node can ever give a run 1 CPUs and 1 GPUs: of \d nodes",
        ),
        (("--cpus", "64", "--on", f"ray:{nodes.address}"), "the largest has 1 CPUs, 0 GPUs; ask for less with --cpus"),
        (("--on", "ray:127.0.0.1:1"), r"no Ray answers at 127.0.0.1:1 \(Connection refused\)"),
        (("--on", "ray:http://127.0.0.1:1"), "no Ray answers at http://127.0.0.1:1"),
        (("--on", "ray:http://192.0.2.9:8265"), "Ray's token authentication is off"),
    ):
        code, log = place.run("wrong", *more)
        assert code == 2, log
        assert re.fullmatch(rf"pipeline: .*{words}.*\n", log), log
        assert not (place.path / "wrong").exists()


def test_a_wrong_token_is_said_in_a_line(place, tmp_path):
    right, wrong = (tmp_path / name for name in ("right", "wrong"))
    right.write_text("a" * 64)
    wrong.write_text("b" * 64)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_AUTH_MODE", "token")
        patched.setenv("RAY_AUTH_TOKEN_PATH", str(right))
        code = "from tests.cluster.ray_nodes import *\n"
        code += f"n = Nodes(1, dashboard=True, dashboard_port={free_port()})\n"
        code += "print(n.address, n.dashboard, flush=True); input(); n.close()"
        variables = environment()
        guarded = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables, text=True
        )
    address, dashboard = guarded.stdout.readline().split()
    try:
        with_wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(wrong)}
        for on in (address, dashboard):
            code, log = place.run("token", "--on", f"ray:{on}", **with_wrong)
            assert code == 2, log
            assert re.fullmatch(r"pipeline: .*token.*\n", log), log
            assert not (place.path / "token").exists()
        code, log = place.run("token", "--on", f"ray:{address}", **{**with_wrong, "RAY_AUTH_TOKEN_PATH": str(right)})
        assert code == 0, log
    finally:
        guarded.communicate("\n", timeout=PATIENCE_S)


def test_a_ray_of_ones_own_listens_on_loopback_alone_and_is_gone_afterwards(place):
    with faults.holding(place.hold):
        process = place.start("own", "--on", "ray", "--jobs", "2", RAY_ADDRESS="local")
        wait_for(lambda: place.epochs("own") >= 1)
        addresses, family = listening(process.pid), family_of(process.pid)
    assert addresses
    assert all(each.startswith("127.") or each == "::1" for each in addresses), addresses
    assert process.wait(PATIENCE_S) == 0, place.log("own")
    assert_equal(place, "own")
    wait_for(lambda: not any(map(listening, family)))


@pytest.mark.parametrize("what", ["process", "head"])
def test_after_the_end_of_the_process_or_the_head_the_same_command_goes_on_from_another_folder(place, what, tmp_path):
    nodes = Nodes(3)
    try:
        with faults.holding(place.hold):
            process = place.start(what, "--on", f"ray:{nodes.address}")
            wait_for(lambda: place.epochs(what) >= 2)
            kill(process.pid) if what == "process" else nodes.kill_head()
            assert process.wait(PATIENCE_S) != 0
        wait_for(lambda: "the same command again" in place.log(what))
        if what == "head":
            nodes.close()
            nodes = Nodes(3)
        elsewhere = Place(tmp_path, place)
        code, log = elsewhere.run(
            "again",
            *("--on", f"ray:{nodes.address}", "--runs_dir", str(place.path / what)),
            MLFLOW_TRACKING_URI=f"sqlite:///{place.path}/{what}.db",
        )
        assert code == 0, log
        assert_equal(place, what)
    finally:
        nodes.close()


def test_without_ray_the_words_say_how_to_get_it(place, tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('no ray')")
    path = f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"
    code, log = place.run("none", "--on", "ray", PYTHONPATH=path)
    assert (code, log) == (2, "pipeline: --on ray needs Ray: make ray\n")
    assert not (place.path / "none").exists()
