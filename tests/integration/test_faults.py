"""Each single fault, with the status, the message and the record that a user would expect."""

import http.server
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import mlflow
import pytest

from pipeline.tracking.journal import Journal
from tests import faults
from tests.conftest import environment, ready_store, run_pipeline

KNOBS = ["--dataset", "digits", "--hidden_units", "16", "--accelerator", "cpu", "--runs_dir", "runs"]
LONG = [*KNOBS, "--epochs", "3000", "--batch_size", "16", "--model_name", ""]
SHORT = [*KNOBS, "--epochs", "3"]
THREADS = {"OMP_NUM_THREADS": "1"}
pytestmark = pytest.mark.usefixtures("own_store")


def store(folder):
    return f"sqlite:///{folder}/mlflow.db"


def status_of(folder):
    run_id = faults.only_folder(folder).state()["run_id"]
    return mlflow.MlflowClient(tracking_uri=store(folder)).get_run(run_id)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The full record of a short run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ready_store(folder)
    done = run_pipeline("train", *SHORT, cwd=folder, **THREADS)
    assert done.returncode == 0, done.stderr
    return faults.full_record(store(folder), folder)


@pytest.fixture
def server(tmp_path):
    server = faults.Server(tmp_path / "server")
    yield server
    server.kill()


@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_ends_the_run_as_killed_with_its_last_whole_epoch(tmp_path, number, word):
    training = faults.start_pipeline("train", *LONG, cwd=tmp_path)
    faults.wait_until(
        lambda: faults.epochs_recorded(tmp_path) >= 3 and "run_id" in faults.only_folder(tmp_path).state()
    )
    training.send_signal(number)
    assert training.wait(timeout=faults.PROMISED_EXIT_S) == 128 + number
    run, folder = status_of(tmp_path), faults.only_folder(tmp_path)
    assert (run.info.status, run.data.tags["failure_reason"]) == ("KILLED", word)
    name = folder.path.name
    assert (
        f"stopped by {word}; go on with: python -m pipeline train --resume {name}" in (tmp_path / "output").read_text()
    )
    epochs = faults.epochs_recorded(tmp_path)
    assert len(faults.metrics_in_mlflow(store(tmp_path), run.info.run_id)["train_loss"]) == epochs
    assert max(folder.checkpoints.glob("*.ckpt")).name in (f"epoch-{epochs:04d}.ckpt", f"epoch-{epochs - 1:04d}.ckpt")


def test_a_run_that_died_without_a_word_is_marked_failed_by_its_uploader(tmp_path):
    training = faults.start_pipeline("train", *LONG, cwd=tmp_path)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= 1)
    training.kill()
    training.wait()
    folder = faults.only_folder(tmp_path)
    faults.wait_until(lambda: folder.ended() and folder.state()["delivered"] == len(folder.events()))
    run = status_of(tmp_path)
    assert run.info.status == "FAILED"
    assert "the process died without a word" in run.data.tags["failure_reason"]


@pytest.mark.slow
def test_a_run_whose_every_process_died_is_recognised_by_the_next_command_but_not_while_it_lives(tmp_path):
    training = faults.start_pipeline("train", *LONG, cwd=tmp_path)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= 1)
    folder = faults.only_folder(tmp_path)
    living = run_pipeline("sync", cwd=tmp_path)
    assert "still running; its own process delivers it" in living.stdout
    refused = run_pipeline("train", "--resume", "last", cwd=tmp_path)
    assert refused.returncode == 2
    assert f"run {folder.path.name} is still running in another process; nothing to resume" in refused.stderr
    faults.kill_all_of(folder.path)
    training.kill()
    training.wait()
    assert folder.ended() is None
    done = run_pipeline("sync", cwd=tmp_path)
    assert done.returncode == 0
    assert "had died without a word, now marked FAILED" in done.stdout
    assert status_of(tmp_path).info.status == "FAILED"


@pytest.mark.slow
def test_a_killed_and_resumed_run_has_the_record_of_an_undisturbed_one(tmp_path, undisturbed):
    training = faults.start_pipeline("train", *SHORT, cwd=tmp_path)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= 1)
    training.kill()
    training.wait()
    faults.kill_all_of(faults.only_folder(tmp_path).path)
    done = run_pipeline("train", "--resume", "last", cwd=tmp_path, **THREADS)
    assert done.returncode == 0, done.stderr
    assert faults.differences(undisturbed, faults.full_record(store(tmp_path), tmp_path)) == []
    again = run_pipeline("train", "--resume", "last", cwd=tmp_path)
    assert again.returncode == 2
    assert "is finished; there is nothing to resume" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["checkpoint", "journal"])
def test_a_truncated_checkpoint_or_journal_is_made_good_by_the_resumed_run(tmp_path, undisturbed, damage):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'train' in sys.argv:\n"
        "    from pipeline.commands import workflow\n"
        "    workflow.forget_checkpoints = lambda folder: None\n"
    )
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    stopped = run_pipeline("train", *KNOBS, "--epochs", "2", cwd=tmp_path, PYTHONPATH=path, **THREADS)
    assert stopped.returncode == 0
    folder = faults.only_folder(tmp_path)
    lines = (folder.path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    epoch_2 = next(k for k, line in enumerate(lines) if b'"step":2' in line)
    kept = b"".join(lines[: epoch_2 + (damage == "checkpoint")])  # as if killed then; in "journal" epoch 2 is torn
    (folder.path / "journal.jsonl").write_bytes(kept + lines[epoch_2][:40])
    vital = folder.path / "vital.jsonl"
    vital.write_bytes(vital.read_bytes().splitlines(keepends=True)[0])  # it had not ended yet then
    if damage == "checkpoint":
        last = folder.checkpoints / "epoch-0002.ckpt"
        last.write_bytes(last.read_bytes()[:3000])
    (folder.path / "delivery.json").unlink()  # what MLflow gets now is what the folder holds, and nothing from before
    other = tmp_path / "other"
    other.mkdir()
    again = {"MLFLOW_TRACKING_URI": store(other), **THREADS}
    done = run_pipeline("train", "--resume", "last", "--epochs", "3", cwd=tmp_path, **again)
    assert done.returncode == 0, done.stderr
    warned = "checkpoint epoch-0002.ckpt is damaged; falling back to the one before" in done.stderr
    assert warned == (damage == "checkpoint")
    record = faults.full_record(store(other), tmp_path)
    assert faults.differences(undisturbed, record) == ["params"]
    assert {**record["params"], "epochs": "3"} == undisturbed["params"]


@pytest.mark.slow
def test_resuming_with_other_knobs_is_refused_with_a_list_and_more_epochs_are_recorded(tmp_path):
    training = faults.start_pipeline("train", *LONG, cwd=tmp_path)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= 1)
    training.terminate()
    training.wait()
    refused = run_pipeline("train", "--resume", "last", "--dropout", "0.5", "--epochs", "2", cwd=tmp_path)
    assert refused.returncode == 2
    assert "epochs was 3000, not 2\n  dropout was 0.2, not 0.5\n" in refused.stderr
    assert "only epochs may grow" in refused.stderr
    resumed = faults.start_pipeline("train", "--resume", "last", "--epochs", "4000", cwd=tmp_path)
    before = faults.epochs_recorded(tmp_path)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) > before)
    resumed.terminate()
    resumed.wait()
    assert status_of(tmp_path).data.tags["resumed.epochs"] == "4000"
    assert status_of(tmp_path).data.params["epochs"] == "3000"


@pytest.mark.slow
def test_a_server_that_never_answers_costs_the_record_nothing_but_time(tmp_path, undisturbed):
    done = run_pipeline("train", *SHORT, cwd=tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9", **THREADS)
    assert done.returncode == 0
    folder = faults.only_folder(tmp_path)
    assert f"records wait in runs/{folder.path.name} (no answer from http://127.0.0.1:9)" in done.stderr
    assert "when MLflow answers again: python -m pipeline sync" in done.stderr
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder.path, copy / "runs" / folder.path.name)
    synced = run_pipeline("sync", cwd=copy, MLFLOW_TRACKING_URI=store(copy))
    assert synced.returncode == 0, synced.stderr
    assert faults.differences(undisturbed, faults.full_record(store(copy), copy)) == []
    again = run_pipeline("sync", cwd=copy, MLFLOW_TRACKING_URI=store(copy))
    assert again.stdout == "MLflow has everything of 1 run\n"
    run = mlflow.MlflowClient(tracking_uri=store(copy)).get_run(folder.state().get("run_id") or _run_id(copy))
    assert run.info.start_time == folder.started()["time"]


def _run_id(folder):
    return faults.only_folder(folder).state()["run_id"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_server_that_fails_in_the_middle_and_returns_gets_everything_once(tmp_path, server, undisturbed, fault):
    server.start()
    training = faults.start_pipeline("train", *SHORT, cwd=tmp_path, MLFLOW_TRACKING_URI=server.uri)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= 1)
    server.kill() if fault == "killed" else server.signal(signal.SIGSTOP)
    assert training.wait(timeout=faults.ANSWERS_WITHIN_S) == 0
    server.start() if fault == "killed" else server.signal(signal.SIGCONT)
    done = run_pipeline("sync", cwd=tmp_path, MLFLOW_TRACKING_URI=server.uri)
    assert done.returncode == 0, done.stderr
    assert faults.differences(undisturbed, faults.full_record(server.uri, tmp_path)) == []


class Failing(http.server.BaseHTTPRequestHandler):
    """Answers everything with 500, after a while."""

    def answer(self):
        time.sleep(0.3)
        self.send_error(500)

    do_GET = do_POST = do_PATCH = do_PUT = answer  # noqa: N815

    def log_message(self, *words):
        pass


@pytest.mark.slow
def test_a_server_that_answers_500_and_slowly_is_waited_for(tmp_path, undisturbed):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as failing:
        threading.Thread(target=failing.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{failing.server_port}"
        done = run_pipeline("train", *SHORT, cwd=tmp_path, MLFLOW_TRACKING_URI=uri, **THREADS)
        failing.shutdown()
    assert done.returncode == 0, done.stderr
    assert "not delivered: " in done.stderr
    assert "when MLflow answers again: python -m pipeline sync" in done.stderr
    synced = run_pipeline("sync", cwd=tmp_path, MLFLOW_TRACKING_URI=store(tmp_path))
    assert synced.returncode == 0, synced.stderr
    assert faults.differences(undisturbed, faults.full_record(store(tmp_path), tmp_path)) == []


@pytest.mark.slow
def test_what_the_server_refuses_for_good_does_not_block_the_rest_and_is_told(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(  # the check before a training would refuse the name
        "import sys\n"
        "if 'train' in sys.argv:\n"
        "    import pipeline.mlflow_client.preflight\n"
        "    pipeline.mlflow_client.preflight.check_names = lambda params: None\n"
    )
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    wrong_name = ["--model_name", "a/b", "--experiment_name", "x" * 10]
    done = run_pipeline("train", *SHORT, *wrong_name, cwd=tmp_path, PYTHONPATH=path, **THREADS)
    assert done.returncode == 1
    assert "MLflow refused for good: model: " in done.stderr
    run = status_of(tmp_path)
    assert (run.info.status, run.data.tags["failure_reason"][:29]) == ("FAILED", "MLflow refused a part of the ")
    assert "pipeline.refused" in run.data.tags
    assert len(faults.metrics_in_mlflow(store(tmp_path), run.info.run_id)["train_loss"]) == 3


def test_an_exception_ends_the_run_as_failed_with_reason_and_traceback(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'train' in sys.argv:\n"
        "    import pipeline.training.onnx_export\n"
        "    def broken(*words): raise RuntimeError('the printer is on fire')\n"
        "    pipeline.training.onnx_export.check_same = broken\n"
    )
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    done = run_pipeline("train", *KNOBS, "--epochs", "1", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1
    assert "the printer is on fire" in done.stderr
    run = status_of(tmp_path)
    assert (run.info.status, run.data.tags["failure_reason"]) == ("FAILED", "RuntimeError: the printer is on fire")
    client = mlflow.MlflowClient(tracking_uri=store(tmp_path))
    kept = client.download_artifacts(run.info.run_id, "traceback.txt", str(tmp_path))
    assert "onnx_export.check_same(path, network" in Path(kept).read_text()


@pytest.mark.slow
def test_a_full_disk_ends_in_one_clear_line_and_the_run_goes_on_when_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=260k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted as root")
    try:
        knobs = [*KNOBS, "--epochs", "3", "--runs_dir", disk / "runs"]
        done = run_pipeline("train", *knobs, cwd=tmp_path, **THREADS)
        assert done.returncode == 1
        assert "warning: no checkpoint of epoch" in done.stderr
        assert "pipeline: no space left on the disk of" in done.stderr
        assert "make room, then go on with: python -m pipeline train --resume" in done.stderr
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        resumed = run_pipeline("train", "--resume", "last", "--runs_dir", disk / "runs", cwd=tmp_path, **THREADS)
        assert resumed.returncode == 0, resumed.stderr
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    client = mlflow.MlflowClient(tracking_uri=store(tmp_path))
    (run,) = client.search_runs([client.get_experiment_by_name("mnist-mlp").experiment_id])
    assert run.info.status == "FINISHED"
    assert [step for step, _ in faults.metrics_in_mlflow(store(tmp_path), run.info.run_id)["train_loss"]] == [1, 2, 3]


DDP = ["--devices", "2", "--strategy", "ddp"]


@pytest.mark.slow
def test_two_ranks_make_one_run_with_the_metrics_over_all_images(tmp_path):
    done = run_pipeline("train", *SHORT, *DDP, "--validation_size", "101", cwd=tmp_path, **THREADS)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    client = mlflow.MlflowClient(tracking_uri=store(tmp_path))
    (run,) = client.search_runs([client.get_experiment_by_name("mnist-mlp").experiment_id])
    assert run.info.status == "FINISHED"
    metrics = faults.metrics_in_mlflow(store(tmp_path), run.info.run_id)
    assert [step for step, _ in metrics["train_loss"]] == [1, 2, 3]
    for name, images in (("val_accuracy", 101), ("train_accuracy", 1336), ("test_accuracy", 360)):
        correct = metrics[name][-1][1] * images
        assert correct == pytest.approx(round(correct), abs=1e-9), name


@pytest.mark.slow
def test_the_death_of_a_rank_ends_the_run_as_failed_and_it_can_be_resumed(tmp_path):
    training = faults.start_pipeline("train", *LONG, *DDP, cwd=tmp_path)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= 2)
    ranks = faults.processes("pipeline.__main__", "train", cwd=tmp_path)
    assert len(ranks) == 1
    faults.signal_all(ranks)
    training.wait(timeout=60)
    folder = faults.only_folder(tmp_path)
    faults.wait_until(lambda: folder.ended() and folder.state()["delivered"] == len(folder.events()))
    assert status_of(tmp_path).info.status == "FAILED"
    before = faults.epochs_recorded(tmp_path)
    resumed = faults.start_pipeline("train", "--resume", "last", cwd=tmp_path)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) > before)
    resumed.terminate()
    assert resumed.wait(timeout=30) == 128 + signal.SIGTERM


def test_a_clock_that_jumps_back_does_not_put_an_event_before_its_forerunners(tmp_path, monkeypatch):
    from pipeline.tracking.journal import RunFolder

    journal = Journal(RunFolder(tmp_path / "run"))
    first = journal.append("start")
    monkeypatch.setattr(time, "time_ns", lambda: (first["time"] - 3_600_000) * 1_000_000)
    assert journal.append("end")["time"] >= first["time"]


@pytest.mark.slow
def test_eight_uploaders_on_one_fresh_database_all_deliver(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    done = run_pipeline("train", *SHORT, cwd=made, MLFLOW_TRACKING_URI="http://127.0.0.1:9", **THREADS)
    assert done.returncode == 0
    source = faults.only_folder(made).path
    synced, fresh = [], f"sqlite:///{tmp_path}/fresh.db"
    for k in range(8):
        folder = tmp_path / f"copy{k}"
        shutil.copytree(source, folder / "runs/run")
        journal = Journal(faults.only_folder(folder))
        journal.close()
        (folder / "runs/run/journal.jsonl").write_bytes(_renamed(folder / "runs/run/journal.jsonl", k))
        synced.append(faults.start_pipeline("sync", cwd=folder, MLFLOW_TRACKING_URI=fresh))
    assert [process.wait(timeout=180) for process in synced] == [0] * 8
    client = mlflow.MlflowClient(tracking_uri=fresh, registry_uri=fresh)
    runs = client.search_runs([client.get_experiment_by_name("mnist-mlp").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    assert sorted(int(v.version) for v in client.search_model_versions("name = 'digits-mlp'")) == list(range(1, 9))
    for k in range(8):
        assert "locked" not in (tmp_path / f"copy{k}/output").read_text()


def _renamed(journal, number):
    """The journal as that of another run: another key, the same events."""
    import json
    import zlib

    lines = []
    for line in journal.read_bytes().splitlines():
        event = json.loads(line.partition(b" ")[2])
        if event["kind"] == "start":
            event["run_key"] += str(number)
        text = json.dumps(event).encode()
        lines.append(b"%08x %s\n" % (zlib.crc32(text), text))
    return b"".join(lines)
