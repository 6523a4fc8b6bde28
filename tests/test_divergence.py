"""Trainings whose loss is no longer a number: in one process, recorded, on two processes, in an experiment."""

import json
import math
import subprocess
import sys

import pytest

from pipeline import cli
from pipeline.divergence import DivergedError
from pipeline.recording.resuming import resumed_config
from pipeline.tracking.folders import all_folders
from pipeline.training import fit
from pipeline.training.news import EpochNews
from tests.conftest import DELIVERED_WITHIN_S, environment, run_pipeline
from tests.training.test_training import config, without_time

FAST = {"learning_rate": 1e30, "validation_size": 300, "keep_best": True}
FLAGS = ["--dataset", "digits", "--hidden_units", "16", "--learning_rate", "1e30", "--accelerator", "cpu"]


def test_a_training_that_diverges_stops_at_its_epoch_and_says_so(tmp_path):
    told = []
    with pytest.raises(
        DivergedError, match="diverged in epoch 1: train_loss is nan, val_loss is nan; try a lower"
    ) as e:
        fit.fit(
            config(epochs=5, **FAST), folder=tmp_path, callbacks=[EpochNews(lambda epoch, metrics: told.append(epoch))]
        )
    assert (e.value.epoch, list(e.value.history), told) == (1, [1], [1])
    assert not list(tmp_path.glob("*.ckpt"))  # nothing to go on from is worse than nothing


@pytest.mark.parametrize("stopping", [{}, {"early_stopping": 10}])
def test_it_goes_on_if_the_user_says_so(tmp_path, stopping):
    result = fit.fit(config(epochs=3, on_divergence="continue", **FAST, **stopping), folder=tmp_path)
    assert (result.diverged_in, list(result.history)) == (1, [1, 2, 3])
    assert math.isnan(result.test["test_loss"])


def test_what_does_not_diverge_has_the_same_numbers_with_either_word():
    one, other = (fit.fit(config(on_divergence=word)) for word in ("stop", "continue"))
    assert without_time(one.history) == without_time(other.history)
    assert (one.diverged_in, one.test) == (None, other.test)


def test_weights_that_are_not_finite_are_a_divergence_too(monkeypatch):
    def end(self, outputs=None):
        self.network.layers[0].bias.data[0] = -math.inf  # ReLU hides it from every loss

    monkeypatch.setattr("pipeline.training.classifier.Classifier.on_validation_epoch_start", end)
    with pytest.raises(DivergedError, match="diverged in epoch 1: weights are not finite"):
        fit.fit(config(dropout=0))


def train(*flags):
    return cli.main(["train", *FLAGS, *flags])


@pytest.mark.slow
@pytest.mark.usefixtures("own_store")
def test_the_run_is_failed_with_the_reason_cannot_be_resumed_and_is_reproduced(tmp_path):
    done = run_pipeline("train", *FLAGS, "--epochs", "3", cwd=tmp_path)
    (folder,) = all_folders("runs")
    assert done.returncode == 1
    assert f"pipeline: run {folder.path.name} diverged in epoch 1: train_loss is nan" in done.stderr
    assert "Traceback" not in done.stderr
    assert folder.ended()["status"] == "FAILED"
    assert folder.ended()["tags"]["failure_reason"].startswith("diverged in epoch 1")
    with pytest.raises(ValueError, match="diverged in epoch 1 and would again"):
        resumed_config(folder, {})
    assert resumed_config(folder, {"on_divergence": "continue"}).on_divergence == "continue"
    again = run_pipeline("reproduce", "last", cwd=tmp_path)
    assert "identical: all 4 values of 1 epoch of" in again.stdout
    assert again.returncode == 0


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize("rate", ["1e4", "1e10", "1e20", "1e30"])
def test_whatever_it_ends_with_nothing_breaks_at_the_end(tmp_path, capfd, rate):
    """sgd at 1e4: `the exported network differs from the trained one by nan`; keep_best: FileNotFoundError."""
    words = ["--optimizer", "sgd", "--learning_rate", rate, "--epochs", "2", "--validation_size", "300"]
    assert train(*words, "--keep_best", "true", "--on_divergence", "continue") == 0, capfd.readouterr().err
    (folder,) = all_folders("runs")
    models = [event for event in folder.events() if event["kind"] == "model"]
    diverged = any("diverged_in_epoch" in event.get("tags", {}) for event in folder.events())
    assert len(models) == (0 if diverged else 1)
    assert (folder.artifacts / "pictures/learning_curves.png").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("own_store")
def test_two_processes_stop_together(tmp_path):
    words = ["--devices", "2", "--strategy", "ddp", "--epochs", "3"]
    done = run_pipeline("train", *FLAGS, *words, cwd=tmp_path)
    assert done.returncode == 1
    assert "diverged in epoch 1: train_loss is nan" in done.stderr
    assert "Traceback" not in done.stderr


TRIAL = """
question: How fast can it go?
shared: {dataset: digits, epochs: 2, hidden_units: 16, validation_size: 300}
variants:
  sample: {}
  mad: {learning_rate: 1e30}
seeds: 2
"""


@pytest.mark.slow
@pytest.mark.usefixtures("own_store")
def test_in_an_experiment_a_divergence_is_an_answer_and_not_tried_again(tmp_path):
    (tmp_path / "trial.yaml").write_text(TRIAL)
    done = run_pipeline("experiment", "trial.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "against it: mad diverged in 2 of 2 runs." in done.stdout.replace("\n", " ")
    folders = {folder.path for folder in all_folders(tmp_path / "runs")}
    command = [sys.executable, "-m", "pipeline", "experiment", "trial.yaml"]
    again = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=DELIVERED_WITHIN_S
    )
    assert "4 finished before" in again.stdout
    assert {folder.path for folder in all_folders(tmp_path / "runs")} == folders
    (parent,) = [each for each in all_folders(tmp_path / "runs") if "question" in each.started()["tags"]]
    assert parent.ended()["status"] == "FINISHED"
    groups = json.loads((parent.artifacts / "comparison/comparison.json").read_text())["groups"]
    assert [(len(group["runs"]), len(group["diverged"])) for group in groups] == [(2, 0), (0, 2)]
    compared = run_pipeline("compare", "trial", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert "mad diverged in 2 of 2 runs" in compared.stdout.replace("\n", " ")
