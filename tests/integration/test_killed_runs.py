"""Runs that are killed, at every depth: the status, the message and the record that a user would expect."""

import signal

import pytest

from tests import faults
from tests.conftest import DELIVERED_WITHIN_S, environment, run_pipeline

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_ends_the_run_as_killed_with_its_last_whole_epoch(tmp_path, number, word):
    training = faults.start_pipeline("train", *faults.LONG, cwd=tmp_path)
    faults.wait_until(
        lambda: faults.epochs_recorded(tmp_path) >= 3 and "run_id" in faults.only_folder(tmp_path).state()
    )
    training.send_signal(number)
    assert training.wait(DELIVERED_WITHIN_S) == 128 + number
    faults.see_delivered(tmp_path)
    run, folder = faults.run_of(tmp_path), faults.only_folder(tmp_path)
    assert (run.info.status, run.data.tags["failure_reason"]) == ("KILLED", word)
    name = folder.path.name
    assert (
        f"stopped by {word}; go on with: python -m pipeline train --resume {name}" in (tmp_path / "output").read_text()
    )
    epochs = faults.epochs_recorded(tmp_path)
    assert len(faults.metrics_in_mlflow(faults.store(tmp_path), run.info.run_id)["train_loss"]) == epochs
    assert max(folder.checkpoints.glob("*.ckpt")).name in (f"epoch-{epochs:04d}.ckpt", f"epoch-{epochs - 1:04d}.ckpt")


def test_a_run_that_died_without_a_word_is_marked_failed_by_its_uploader(tmp_path):
    training = faults.start_pipeline("train", *faults.LONG, cwd=tmp_path)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= 1)
    training.kill()
    training.wait()
    faults.wait_until(lambda: faults.is_delivered(faults.only_folder(tmp_path)))
    run = faults.run_of(tmp_path)
    assert run.info.status == "FAILED"
    assert "the process died without a word" in run.data.tags["failure_reason"]


@pytest.mark.slow
def test_a_run_whose_every_process_died_is_recognised_by_the_next_command_but_not_while_it_lives(tmp_path):
    training = faults.start_pipeline("train", *faults.LONG, cwd=tmp_path)
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
    assert faults.run_of(tmp_path).info.status == "FAILED"


@pytest.mark.slow
def test_a_killed_and_resumed_run_has_the_record_of_an_undisturbed_one(tmp_path, undisturbed):
    (tmp_path / "stays").mkdir()
    stays = faults.never_finished(tmp_path / "stays")
    training = faults.start_pipeline("train", *faults.SHORT, cwd=tmp_path, **stays)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= 1)
    training.kill()
    training.wait()
    faults.kill_all_of(faults.only_folder(tmp_path).path)
    done = run_pipeline("train", "--resume", "last", cwd=tmp_path, **faults.THREADS)
    assert done.returncode == 0, done.stderr
    assert faults.differences(undisturbed, faults.full_record(faults.store(tmp_path), tmp_path)) == []
    again = run_pipeline("train", "--resume", "last", cwd=tmp_path)
    assert again.returncode == 2
    assert "is finished; there is nothing to resume" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["checkpoint", "journal"])
def test_a_truncated_checkpoint_or_journal_is_made_good_by_the_resumed_run(tmp_path, undisturbed, damage):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'train' in sys.argv:\n"
        "    from pipeline.commands import recorded_training\n"
        "    recorded_training.forget_checkpoints = lambda folder: None\n"
    )
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    stopped = run_pipeline("train", *faults.KNOBS, "--epochs", "2", cwd=tmp_path, PYTHONPATH=path, **faults.THREADS)
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
    again = {"MLFLOW_TRACKING_URI": faults.store(other), **faults.THREADS}
    done = run_pipeline("train", "--resume", "last", "--epochs", "3", cwd=tmp_path, **again)
    assert done.returncode == 0, done.stderr
    warned = "checkpoint epoch-0002.ckpt is damaged; falling back to the one before" in done.stderr
    assert warned == (damage == "checkpoint")
    record = faults.full_record(faults.store(other), tmp_path)
    assert faults.differences(undisturbed, record) == ["params"]
    assert {**record["params"], "epochs": "3"} == undisturbed["params"]


@pytest.mark.slow
def test_resuming_with_other_knobs_is_refused_with_a_list_and_more_epochs_are_recorded(tmp_path):
    training = faults.start_pipeline("train", *faults.LONG, cwd=tmp_path)
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
    faults.see_delivered(tmp_path)
    run = faults.run_of(tmp_path)
    assert (run.data.tags["resumed.epochs"], run.data.params["epochs"]) == ("4000", "3000")
