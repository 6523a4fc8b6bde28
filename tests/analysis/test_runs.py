"""Runs read back, from a folder as from MLflow."""

import pytest

from pipeline.analysis import runs
from pipeline.comparing.comparison import compare
from pipeline.tracking.journal import Journal
from tests.comparable import plan_of
from tests.trials import record


def measured(variant, seed, value):
    folder = record(variant, seed, status="")
    journal = Journal(folder)
    journal.metrics({"val_f1": 0.5}, 2)
    journal.metrics({"val_f1": value}, 3)
    journal.append("end", status="FINISHED", tags={})
    journal.close()
    return runs.of_folder(folder)


def test_a_metric_that_is_nan_at_the_end_is_one_that_the_run_lacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [measured("none", seed, 0.5 + seed / 1000) for seed in (1, 2, 3, 4, 5)]
    found += [measured("half", seed, 0.7 + seed / 900) for seed in (1, 2, 3, 4)]
    found += [measured("half", 5, float("nan"))]
    assert found[-1].metrics.keys() == {"train_loss", "val_loss", "val_accuracy"}
    compared = compare(found, baseline="none", metric="val_f1", plan=plan_of(5))
    assert compared.contrasts[0].difference == pytest.approx(0.2, abs=0.01)
    assert compared.notes[0] == "1 of 10 runs are not finished or lack val_f1, and are left out"
