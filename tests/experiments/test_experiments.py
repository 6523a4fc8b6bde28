"""Experiments as a whole: real processes, really killed; the answers are those of one left alone."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import mlflow
import pytest

from pipeline.tracking.folders import all_folders, values_of
from pipeline.tracking.recovery import DIED
from tests import faults
from tests.conftest import DELIVERED_WITHIN_S, ROOT, environment, run_pipeline

TRIAL = """
question: Does dropout help?
shared: {dataset: digits, epochs: 8, hidden_units: 16, validation_size: 300}
variants:
  none: {dropout: 0.0}
  half: {dropout: 0.5}
baseline: none
seeds: [1, 2]
"""


def start(folder, *arguments, **variables):
    command = [sys.executable, "-m", "pipeline", "experiment", "trial.yaml", *arguments]
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            command, cwd=folder, env=environment(**variables), stdout=output, stderr=output, start_new_session=True
        )


def children(folder):
    return [each for each in all_folders(folder / "runs") if "question" not in each.started()["tags"]]


def parent(folder):
    (found,) = [each for each in all_folders(folder / "runs") if "question" in each.started()["tags"]]
    return found


def answer(folder):
    """What the comparison found, without what differs from run to run: ids and times."""
    found = json.loads((parent(folder).artifacts / "comparison/comparison.json").read_text())
    for group in found["groups"]:
        group["runs"] = len(group["runs"])
        group.pop("seconds_per_epoch")
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "trial.yaml").write_text(TRIAL)
    done = run_pipeline("experiment", "trial.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_every_variant_is_trained_with_every_seed_under_one_parent(undisturbed):
    folder, done = undisturbed
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("trial").experiment_id])
    (head,) = [run for run in runs if run.data.tags.get("question") == "trial"]
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == head.info.run_id]
    tags = {(run.data.tags["variant"], run.data.tags["seed"]) for run in nested}
    assert tags == {(variant, seed) for variant in ("none", "half") for seed in "12"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["threads"] for run in nested} == {"1"}
    assert sorted(run.info.run_name for run in nested)[0] == "half seed=1"
    assert head.data.tags["mlflow.note.content"].startswith("**Does dropout help?**")
    assert head.data.tags["answer"] in done.stdout.replace("\n", " ")
    names = {entry.path for entry in client.list_artifacts(head.info.run_id, "comparison")}
    assert {"comparison/report.html", "comparison/curves.png", "comparison/runs.csv"} <= names
    assert "trial.yaml" in {entry.path for entry in client.list_artifacts(head.info.run_id)}
    assert all("test_accuracy" in run.data.metrics for run in nested)


def test_started_again_it_trains_nothing_and_answers_the_same(undisturbed):
    folder, done = undisturbed
    before = {each.path: each.events() for each in children(folder)}
    again = run_pipeline("experiment", "trial.yaml", cwd=folder)
    assert again.returncode == 0
    assert "trial: 4 runs, 1 at a time, 4 finished before" in again.stdout
    assert {each.path: each.events() for each in children(folder)} == before
    told, first = (words.stdout.split("Does dropout help?")[1].splitlines() for words in (again, done))
    assert told[:-1] == first[:-1]
    assert (first[-1][:11], told[-1][-21:]) == ("time       ", ", nothing was trained")


@pytest.mark.slow
@pytest.mark.usefixtures("own_store")
def test_killed_twice_and_started_again_it_ends_as_one_left_alone(undisturbed, tmp_path):
    (tmp_path / "trial.yaml").write_text(TRIAL)
    for enough in (5, 20):
        running = start(tmp_path)
        faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= enough)  # noqa: B023
        running.kill()
        running.wait()
    done = run_pipeline("experiment", "trial.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert answer(tmp_path) == answer(undisturbed[0])
    assert len(children(tmp_path)) == 4
    for folder in children(tmp_path):
        kinds = [event["kind"] for event in folder.events()]
        ended = [k for k, event in enumerate(folder.events()) if event.get("status") == "FINISHED"]
        assert len(ended) == 1
        assert "resume" not in kinds[ended[0] :]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("trial").experiment_id])
    assert (len(runs), {run.info.status for run in runs}) == (5, {"FINISHED"})


def workers(running):
    """The process ids of the experiment's workers, oldest first; not of what an import asks the system meanwhile."""
    forks = [fork for server in _children(running.pid, "forkserver") for fork in _children(server, "forkserver")]
    return [each for each in forks if _leads_a_session(each)]  # a fork that is going to be another program does not


def _leads_a_session(pid):
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid) == pid
    return False


def _children(parent, words=""):
    found = subprocess.run(["pgrep", "-P", str(parent), "-f", words or "."], capture_output=True, text=True)
    return list(map(int, found.stdout.split()))


@pytest.mark.usefixtures("own_store")
def test_a_worker_that_is_killed_ends_its_run_not_the_experiment(tmp_path):
    (tmp_path / "trial.yaml").write_text(TRIAL.replace("epochs: 8", 'epochs: 8, schedule: "held:steady"'))
    faults.write_held(tmp_path, tmp_path / "hold")

    def died(times):
        words = "failed: its process died (exit code -9); start the experiment again"
        return (tmp_path / "output").read_text().count(words) >= times

    def at_a_run():
        return [each for each in children(tmp_path) if "train_loss" in values_of(each.events()) and not each.ended()]

    with faults.holding(tmp_path / "hold"):
        running = start(tmp_path, "--jobs", "2")
        (first, *_) = faults.wait_until(lambda: workers(running))
        os.kill(first, signal.SIGKILL)  # before its run has begun, or just then
        faults.wait_until(lambda: died(1))
        faults.wait_until(lambda: len(at_a_run()) == 2)
        os.kill(workers(running)[0], signal.SIGKILL)
        faults.wait_until(lambda: died(2))
    assert running.wait(DELIVERED_WITHIN_S) == 1
    output = (tmp_path / "output").read_text()
    assert "start the same command again: what is finished is not trained twice" in output
    statuses = [each.ended()["status"] for each in children(tmp_path)]
    assert sorted(statuses) in [["FAILED"] * failed + ["FINISHED"] * 2 for failed in (1, 2)]
    # The experiment itself has closed the record, as the worker died; the uploader would only once all is over.
    ends = {each.ended()["status"]: each.ended() for each in children(tmp_path)}
    assert ends["FAILED"]["tags"] == {"failure_reason": DIED}
    assert ends["FAILED"]["time"] < ends["FINISHED"]["time"]
    assert parent(tmp_path).ended()["status"] == "FAILED"


@pytest.mark.slow
@pytest.mark.usefixtures("own_store")
def test_ctrl_c_stops_the_runs_with_their_last_epoch_and_a_second_command_is_refused_meanwhile(tmp_path):
    (tmp_path / "trial.yaml").write_text(TRIAL.replace("epochs: 8", "epochs: 3000"))
    running = start(tmp_path)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= 4)
    second = run_pipeline("experiment", "trial.yaml", cwd=tmp_path)
    assert second.returncode == 2
    assert "experiment trial is running already, in another process" in second.stderr
    running.send_signal(signal.SIGINT)
    assert running.wait(DELIVERED_WITHIN_S) == 128 + signal.SIGINT
    assert (
        "stopped by Ctrl-C; what is done stays done; go on with: python -m pipeline experiment trial.yaml"
        in (tmp_path / "output").read_text()
    )
    assert {each.ended()["status"] for each in children(tmp_path)} == {"KILLED"}
    assert parent(tmp_path).ended()["status"] == "KILLED"


@pytest.mark.slow
@pytest.mark.usefixtures("own_store")
def test_mlflow_run_makes_its_own_run_the_parent(undisturbed, tmp_path):
    (tmp_path / "trial.yaml").write_text(TRIAL.replace("[1, 2]", "[1]").replace("epochs: 8", "epochs: 1"))
    command = ["mlflow", "run", str(ROOT), "-e", "experiment", "--env-manager", "local", "--experiment-name", "mine"]
    command += ["-P", "file=trial.yaml", "-P", f"runs_dir={tmp_path}/runs"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=DELIVERED_WITHIN_S
    )
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    (head,) = [run for run in runs if "question" in run.data.tags]
    assert "mlflow.project.entryPoint" in head.data.tags
    assert len([run for run in runs if run.data.tags.get("mlflow.parentRunId") == head.info.run_id]) == 2


def test_a_wrong_file_leaves_nothing_behind(tmp_path):
    (tmp_path / "trial.yaml").write_text(TRIAL.replace("dropout: 0.5", "dropuot: 0.5"))
    done = run_pipeline("experiment", "trial.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'dropout'?" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["trial.yaml"]
