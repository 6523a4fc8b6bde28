"""The logger alone, in a script that is not ours: whatever becomes of it, MLflow's record is complete, once."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from pipeline.tracking.folders import all_folders
from tests import faults
from tests.conftest import DELIVERED_WITHIN_S, ROOT, environment
from tests.integration.plain_script import STEPS

SCRIPT = ROOT / "tests/integration/plain_script.py"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_store")]


class Script:
    """The plain script as a process of its own in a folder."""

    def __init__(self, folder, launcher=(), variables=(), **given):
        self.folder = Path(folder)
        self.output = self.folder / f"output {len(list(self.folder.glob('output*')))}"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, str(SCRIPT), json.dumps(given)],
                cwd=folder,
                env=environment(OMP_NUM_THREADS="1", **dict(variables)),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self):
        return self.output.read_text()

    def wait_for(self, words):
        for _ in range(DELIVERED_WITHIN_S * 20):
            if words in self.said():
                return
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)
        raise AssertionError(self.said())

    def end(self):
        return self.process.wait(DELIVERED_WITHIN_S)


def delivered(folder, runs="runs"):
    """Wait until MLflow has everything of all runs below the folder; returns the run folders."""
    until = time.monotonic() + DELIVERED_WITHIN_S
    while time.monotonic() < until:
        found = all_folders(folder / runs)
        if found and all(each.ended() and each.state().get("delivered") == len(each.events()) for each in found):
            return found
        time.sleep(0.1)
    raise AssertionError([each.state() for each in found])


@contextlib.contextmanager
def store(uri):
    before = mlflow.get_tracking_uri()
    try:
        yield mlflow.MlflowClient(uri)
    finally:
        mlflow.set_tracking_uri(before)


def the_run(client, experiment="digits"):
    (run,) = the_runs(client, experiment)
    return run


def the_runs(client, experiment="digits"):
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id], order_by=["start_time"])


def steps(client, run, name="train_loss"):
    return sorted(metric.step for metric in client.get_metric_history(run.info.run_id, name))


def files(client, run, path=None):
    return [
        name
        for each in client.list_artifacts(run.info.run_id, path)
        for name in (files(client, run, each.path) if each.is_dir else [each.path])
    ]


def local(folder):
    return f"sqlite:///{folder}/mlflow.db"


def test_a_plain_script_is_recorded_whole_with_its_test(tmp_path):
    script = Script(tmp_path, epochs=2, after="test")
    assert script.end() == 0, script.said()
    delivered(tmp_path)
    with store(local(tmp_path)) as client:
        run = the_run(client)
        assert (run.info.status, run.info.run_name) == ("FINISHED", "a plain run")
        assert run.data.params == {"channels": "4"}
        assert steps(client, run) == list(range(2 * STEPS))
        assert steps(client, run, "val_loss") == [STEPS - 1, 2 * STEPS - 1]
        assert len(steps(client, run, "test_loss")) == 1
        told = {"team": "botany", "mlflow.source.name": str(SCRIPT)}
        assert told.items() <= run.data.tags.items()
        assert "git.commit" in run.data.tags
        found = files(client, run)
        assert {"packages.txt", "checkpoints/last.ckpt"} <= set(found)
        assert len([name for name in found if name.startswith("checkpoints/")]) == 2


def test_killed_and_resumed_its_record_is_complete_once(tmp_path):
    script = Script(tmp_path, epochs=4, stays_in=2 * STEPS + 3)
    script.wait_for(f"step {2 * STEPS + 3} begins")
    script.process.kill()
    script.end()
    (folder,) = delivered(tmp_path)  # the uploader outlives it, and tells of its death
    before = [event["step"] for event in folder.events() if event["kind"] == "metrics"]
    with store(local(tmp_path)) as client:
        assert the_run(client).info.status == "FAILED"
        assert "died without a word" in the_run(client).data.tags["failure_reason"]
    assert max(before) >= 2 * STEPS + 2
    again = Script(tmp_path, epochs=4, resume="last", after="test")
    assert again.end() == 0, again.said()
    assert delivered(tmp_path) == [folder] or len(all_folders(tmp_path / "runs")) == 1
    with store(local(tmp_path)) as client:
        run = the_run(client)
        assert run.info.status == "FINISHED"
        assert steps(client, run) == list(range(4 * STEPS))
        assert steps(client, run, "val_loss") == [STEPS * epoch - 1 for epoch in range(1, 5)]
        assert run.data.params == {"channels": "4"}
        assert len([name for name in files(client, run) if name.startswith("checkpoints/")]) == 2


def test_a_server_that_dies_costs_nothing_and_the_next_start_delivers_what_it_missed(tmp_path):
    server = faults.Server(tmp_path / "server").start()
    variables = {"MLFLOW_TRACKING_URI": server.uri}
    try:
        script = Script(tmp_path, variables=variables, epochs=5, stays_in=STEPS)
        script.wait_for(f"step {STEPS} begins")
        server.kill()
        (tmp_path / "go on").touch()
        assert script.end() == 0, script.said()
        (folder,) = all_folders(tmp_path / "runs")
        assert folder.ended()["status"] == "FINISHED"
        faults.wait_until(lambda: not is_being_delivered(folder))
        assert folder.state().get("delivered", 0) < len(folder.events())
        server.start()
        assert Script(tmp_path, variables=variables, epochs=1).end() == 0
        delivered(tmp_path)
        with store(server.uri) as client:
            first, second = the_runs(client)
            assert [run.info.status for run in (first, second)] == ["FINISHED"] * 2
            assert steps(client, first) == list(range(5 * STEPS))
            assert len([name for name in files(client, first) if name.startswith("checkpoints/")]) == 2
    finally:
        server.kill()


def is_being_delivered(folder):
    """Whether the run's uploader still tries: it holds the folder's delivery lock."""
    import filelock

    try:
        with filelock.FileLock(folder.path / "sender.lock", timeout=0):
            return False
    except filelock.Timeout:
        return True


def test_an_error_in_an_epoch_has_failed_it_with_its_traceback(tmp_path):
    script = Script(tmp_path, fails_in=3)
    assert script.end() == 1
    assert "ValueError: no such digit" in script.said()
    (folder,) = delivered(tmp_path)
    with store(local(tmp_path)) as client:
        run = the_run(client)
        assert (run.info.status, run.data.tags["failure_reason"]) == ("FAILED", "ValueError: no such digit")
        assert steps(client, run) == list(range(3 * STEPS))
        assert "traceback.txt" in files(client, run)
    assert "in training_step" in (folder.artifacts / "traceback.txt").read_text()


def test_an_error_after_the_fit_has_failed_it_too(tmp_path):
    script = Script(tmp_path, epochs=1, after="raise")
    assert script.end() == 1
    delivered(tmp_path)
    with store(local(tmp_path)) as client:
        run = the_run(client)
        assert (run.info.status, run.data.tags["failure_reason"]) == ("FAILED", "LookupError: after the fit")


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_amid_the_fit_has_killed_it_with_its_last_checkpoint_on_record(tmp_path, number, reason):
    script = Script(tmp_path, epochs=50, pause_s=0.1, on_exception=True)
    script.wait_for(f"step {2 * STEPS + 3} begins")
    script.process.send_signal(number)
    assert script.end() in (0, 1)  # as Lightning leaves then
    (folder,) = delivered(tmp_path)
    with store(local(tmp_path)) as client:
        run = the_run(client)
        assert (run.info.status, run.data.tags["failure_reason"]) == ("KILLED", reason)
        reached = max(steps(client, run))
        assert steps(client, run) == list(range(reached + 1))
        saved = [int(found[1]) for name in files(client, run) if (found := re.search(r"step=(\d+)", name))]
        assert max(saved) > 2 * STEPS
    assert folder.ended()["status"] == "KILLED"


def test_sigterm_outside_of_a_fit_ends_the_process_as_ever_and_the_run_is_killed(tmp_path):
    script = Script(tmp_path, epochs=1, after="wait")
    script.wait_for("waiting")
    script.process.terminate()
    assert script.end() == -signal.SIGTERM
    delivered(tmp_path)
    with store(local(tmp_path)) as client:
        run = the_run(client)
        assert (run.info.status, run.data.tags["failure_reason"]) == ("KILLED", "SIGTERM")


@pytest.mark.parametrize(
    ("launcher", "given"),
    [
        ((), {"strategy": "ddp"}),
        ((), {"strategy": "ddp_spawn"}),
        (("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"), {"strategy": "ddp"}),
    ],
    ids=["ddp", "ddp_spawn", "torchrun"],
)
def test_two_ranks_have_one_run_and_one_folder(tmp_path, launcher, given):
    script = Script(tmp_path, launcher, epochs=2, devices=2, **given)
    assert script.end() == 0, script.said()
    (folder,) = delivered(tmp_path)
    told = set(re.findall(r"rank (\d) logs to (\S+)", script.said()))
    ranks = {"0"} if given["strategy"] == "ddp_spawn" else {"0", "1"}
    assert told == {(rank, str(folder.path)) for rank in ranks}
    with store(local(tmp_path)) as client:
        run = the_run(client)
        assert run.info.status == "FINISHED"
        assert steps(client, run) == list(range(STEPS))
        assert len([event for event in folder.events() if event["kind"] == "start"]) == 1


def finished(script, *words, cwd):
    """Run a script to its end, which is a good one."""
    done = subprocess.run(
        [sys.executable, str(script), *words],
        cwd=cwd,
        env=environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=DELIVERED_WITHIN_S,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/proc").exists(), reason="a folder that not even root may write into")
def test_in_a_folder_that_nobody_may_write_into_everything_lies_beside_the_runs(tmp_path):
    finished(SCRIPT, json.dumps({"epochs": 1, "save_dir": str(tmp_path / "runs")}), cwd="/proc")
    delivered(tmp_path)
    with store(local(tmp_path / "runs")) as client:
        run = the_run(client)
        assert run.info.status == "FINISHED"
        assert "checkpoints/last.ckpt" in files(client, run)


def test_the_example_is_short_and_is_recorded(tmp_path):
    example = ROOT / "examples/any_lightning_script.py"
    assert len(example.read_text().splitlines()) <= 60
    for more in ((), ("--resume", "last", "--epochs", "2")):
        finished(example, "--epochs", "1", *more, cwd=tmp_path)
    delivered(tmp_path)
    with store(local(tmp_path)) as client:
        run = the_run(client, "digits-cnn")
        assert (run.info.status, run.data.params["channels"]) == ("FINISHED", "16")
        assert len(steps(client, run, "val_loss")) == 2
        assert len([name for name in files(client, run) if name.startswith("checkpoints/")]) == 1
