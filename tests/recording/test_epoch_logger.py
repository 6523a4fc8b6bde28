"""The record of our own trainings as Lightning's Trainer takes it."""

import pytest
from pytorch_lightning.utilities import rank_zero_only

from pipeline.recording.epoch_logger import EpochLogger
from pipeline.tracking.journal import Journal, RunFolder
from pipeline.tracking.run import Run
from tests.tracking.idle_uploader import IdleUploader


@pytest.fixture
def record(tmp_path):
    return Run(Journal(RunFolder(tmp_path / "runs" / "run")), IdleUploader())


def test_an_open_run_gets_epochs_with_the_time_at_which_they_were_measured(record):
    logger = EpochLogger(record)
    logged = {"loss": 1.0, "time_ms": 512.0}
    logger.log_metrics(logged, 3)
    logger.log_metrics({"loss": 2.0})
    logger.log_hyperparams({"epochs": 3})
    first, second = record.folder.events()
    assert (first["values"], first["step"], first["time"]) == ({"loss": 1.0}, 3, 512)
    assert type(first["time"]) is int
    assert (second["values"], second["step"]) == ({"loss": 2.0}, 0)
    assert second["time"] > 512
    assert logged == {"loss": 1.0, "time_ms": 512.0}
    assert (logger.name, logger.version) == ("runs", "run")


def test_only_the_first_rank_logs_to_an_open_run(record, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    EpochLogger(record).log_metrics({"loss": 1.0}, 1)
    assert record.folder.events() == []
