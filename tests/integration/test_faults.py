"""Runs that fail by themselves: an exception, a full disk, a rank that dies."""

import signal
import subprocess
from pathlib import Path

import mlflow
import pytest

from tests import faults
from tests.conftest import DELIVERED_WITHIN_S, environment, run_pipeline

pytestmark = pytest.mark.usefixtures("own_store")


def test_an_exception_ends_the_run_as_failed_with_reason_and_traceback(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'train' in sys.argv:\n"
        "    import pipeline.training.onnx_export\n"
        "    def broken(*words): raise RuntimeError('the printer is on fire')\n"
        "    pipeline.training.onnx_export.check_same = broken\n"
    )
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    done = run_pipeline("train", *faults.KNOBS, "--epochs", "1", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1
    assert "the printer is on fire" in done.stderr
    run = faults.run_of(tmp_path)
    assert (run.info.status, run.data.tags["failure_reason"]) == ("FAILED", "RuntimeError: the printer is on fire")
    client = mlflow.MlflowClient(tracking_uri=faults.store(tmp_path))
    kept = client.download_artifacts(run.info.run_id, "traceback.txt", str(tmp_path))
    assert "return check_same(path, network" in Path(kept).read_text()


@pytest.mark.slow
def test_a_full_disk_ends_in_one_clear_line_and_the_run_goes_on_when_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=260k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted as root")
    try:
        knobs = [*faults.KNOBS, "--epochs", "3", "--runs_dir", disk / "runs"]
        done = run_pipeline("train", *knobs, cwd=tmp_path, **faults.THREADS)
        assert done.returncode == 1
        assert "warning: no checkpoint of epoch" in done.stderr
        assert "pipeline: no space left on the disk of" in done.stderr
        assert "make room, then go on with: python -m pipeline train --resume" in done.stderr
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        resumed = run_pipeline("train", "--resume", "last", "--runs_dir", disk / "runs", cwd=tmp_path, **faults.THREADS)
        assert resumed.returncode == 0, resumed.stderr
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    client = mlflow.MlflowClient(tracking_uri=faults.store(tmp_path))
    (run,) = client.search_runs([client.get_experiment_by_name("mnist-mlp").experiment_id])
    assert run.info.status == "FINISHED"
    assert [step for step, _ in faults.metrics_in_mlflow(faults.store(tmp_path), run.info.run_id)["train_loss"]] == [
        1,
        2,
        3,
    ]


DDP = ["--devices", "2", "--strategy", "ddp"]


@pytest.mark.slow
def test_two_ranks_make_one_run_with_the_metrics_over_all_images(tmp_path):
    done = run_pipeline("train", *faults.SHORT, *DDP, "--validation_size", "101", cwd=tmp_path, **faults.THREADS)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    client = mlflow.MlflowClient(tracking_uri=faults.store(tmp_path))
    (run,) = client.search_runs([client.get_experiment_by_name("mnist-mlp").experiment_id])
    assert run.info.status == "FINISHED"
    metrics = faults.metrics_in_mlflow(faults.store(tmp_path), run.info.run_id)
    assert [step for step, _ in metrics["train_loss"]] == [1, 2, 3]
    for name, images in (("val_accuracy", 101), ("train_accuracy", 1336), ("test_accuracy", 360)):
        correct = metrics[name][-1][1] * images
        assert correct == pytest.approx(round(correct), abs=1e-9), name


@pytest.mark.slow
def test_the_death_of_a_rank_ends_the_run_as_failed_and_it_can_be_resumed(tmp_path):
    training = faults.start_pipeline("train", *faults.LONG, *DDP, cwd=tmp_path)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= 2)
    ranks = faults.processes("pipeline.__main__", "train", cwd=tmp_path)
    assert len(ranks) == 1
    faults.signal_all(ranks)
    training.wait(DELIVERED_WITHIN_S)
    faults.wait_until(lambda: faults.is_delivered(faults.only_folder(tmp_path)))
    assert faults.run_of(tmp_path).info.status == "FAILED"
    before = faults.epochs_recorded(tmp_path)
    resumed = faults.start_pipeline("train", "--resume", "last", cwd=tmp_path)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) > before)
    resumed.terminate()
    assert resumed.wait(DELIVERED_WITHIN_S) == 128 + signal.SIGTERM
