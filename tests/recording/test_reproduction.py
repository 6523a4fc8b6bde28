"""A training is trained again, and every number that it recorded is compared, but for times."""

import pytest

from pipeline.recording import record as recording
from pipeline.recording import reproduction
from pipeline.recording.epoch_logger import EpochLogger
from pipeline.tracking.folders import values_of
from pipeline.tracking.journal import Journal, RunFolder
from pipeline.tracking.run import Run
from pipeline.training import fit
from tests import ranks
from tests.tracking.idle_uploader import IdleUploader

OWN = "tests.own_training_code"


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Trains with knobs and records it; gives the folder."""
    monkeypatch.setattr("pipeline.tracking.run.Run.provenance", lambda record: None)
    monkeypatch.setattr("pipeline.training.building.make_data", ranks.small_data)

    def train(**knobs):
        config = ranks.CONFIG.replace(epochs=2, **knobs)
        run = Run(Journal(RunFolder(tmp_path / "runs/one")), IdleUploader())
        data = ranks.small_data(config)
        recording.start(config, run, data)
        fit.fit(config, data=data, logger=EpochLogger(run))
        run.journal.close()
        return run.folder

    return train


def test_own_metrics_rates_and_what_was_logged_are_compared_and_identical(recorded, capsys):
    knobs = {"metric": f"macro_f1,{OWN}:nan", "schedule": "cosine", "callback": f"{OWN}:Tells"}
    folder = recorded(**knobs)
    assert reproduction.reproduce(str(folder.path), "runs") == 0
    told = capsys.readouterr().out
    # Of two epochs: losses, accuracies and two metrics of two parts, rate, `mine` and `val_mine`. Once: `only_once`,
    # and loss, accuracy, two metrics and `mine` of the test.
    assert told.startswith("identical: all 28 values of 2 epochs of run one")


def test_a_callback_that_wants_a_logger_has_one_where_nothing_is_recorded(recorded, capsys):
    folder = recorded(schedule="cosine", callback="pytorch_lightning.callbacks:LearningRateMonitor")
    assert "lr-SGD" in values_of(folder.events())
    assert reproduction.reproduce(str(folder.path), "runs") == 0
    assert capsys.readouterr().out.startswith("identical: all 14 values of 2 epochs of run one")


def test_an_own_metric_that_no_seed_decides_is_told_with_its_first_epoch(recorded, capsys):
    folder = recorded(metric=f"{OWN}:unseeded")
    was = values_of(folder.events())["train_unseeded"][1]
    assert reproduction.reproduce(str(folder.path), "runs") == 1
    different, first, *_ = capsys.readouterr().out.splitlines()
    assert different == "different: 5 of 15 values of run one"
    assert first.startswith(f"first at epoch 1: train_unseeded was {was!r}, now 0.")


def test_what_a_callback_saves_as_it_is_trained_again_is_left_nowhere(recorded, tmp_path, monkeypatch):
    folder = recorded(callback="pytorch_lightning.callbacks:ModelCheckpoint")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert reproduction.reproduce(str(folder.path), "runs") == 0
    assert list((tmp_path / "here").iterdir()) == []
