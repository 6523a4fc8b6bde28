"""Pictures and tables out of a run's record, at its end or when somebody asks: the same files."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config import RunConfig
from pipeline.data_spec import DataSpec
from pipeline.recording import drawing, figures, predictions
from pipeline.recording.predictions import Predictions
from pipeline.tracking.journal import Journal, RunFolder

SPEC = DataSpec("image", (1, 4, 4), ("cat", "dog", "rat"))
LABELS = np.array([0, 1, 2, 1, 0])
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [1 / 3, 0.5, 1 / 6], [0.6, 0.3, 0.1], [0.9, 0.05, 0.05]], np.float32
)
IMAGES = np.arange(5 * 16, dtype=np.uint8).reshape(5, 4, 4)
FOUND = Predictions(SPEC, LABELS, PROBABILITIES)


def data():
    return SimpleNamespace(test=SimpleNamespace(inputs=IMAGES))


@pytest.fixture
def folder(tmp_path):
    """A run of two epochs with predictions."""
    folder = RunFolder(tmp_path / "run")
    journal = Journal(folder)
    journal.append("start", run_key="k", params=RunConfig(dataset="digits").as_dict(), tags={}, parent="")
    profile = {"features_shape": [9, 4, 4], "targets_shape": [9], "held_out_for_validation": 3}
    journal.append("dataset", inputs=[{"dataset": {"digest": "d1", "profile": json.dumps(profile)}}])
    for epoch in (1, 2):
        values = {"train_loss": 1.0 / epoch, "val_loss": 0.5, "train_accuracy": 0.5, "val_accuracy": 0.25 * epoch}
        journal.metrics(values, epoch)
    journal.metrics({"test_loss": 0.5, "seconds_per_epoch": 1.0}, 2)
    journal.close()
    folder.artifacts.mkdir()
    FOUND.save(folder.artifacts / predictions.FILE)
    return folder


def test_predictions_come_back_as_they_were_and_open_without_this_pipeline(tmp_path):
    FOUND.save(tmp_path / predictions.FILE)
    again = Predictions.load(tmp_path / predictions.FILE)
    assert again.spec == SPEC
    assert again.probabilities.dtype == np.float32
    assert np.array_equal(again.probabilities, PROBABILITIES)
    assert np.array_equal(again.labels, LABELS)
    assert again.predicted.tolist() == [0, 1, 1, 0, 0]
    with np.load(tmp_path / predictions.FILE) as parts:
        assert parts["classes"].tolist() == ["cat", "dog", "rat"]
        assert parts["labels"].dtype == np.uint8


def test_the_same_predictions_are_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        FOUND.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_labels_of_many_classes_keep_their_number(tmp_path):
    spec = DataSpec("table", (1,), tuple(str(number) for number in range(257)), ("x",), (0.0,), (1.0,))
    Predictions(spec, np.array([256, 0]), np.zeros((2, 257), np.float32)).save(tmp_path / "p.npz")
    assert Predictions.load(tmp_path / "p.npz").labels.tolist() == [256, 0]


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"])
def test_damaged_predictions_are_told_as_such(tmp_path, content):
    (tmp_path / predictions.FILE).write_bytes(content)
    with pytest.raises(ValueError, match=r"predictions\.npz cannot be read"):
        Predictions.load(tmp_path / predictions.FILE)


def test_everything_is_drawn_and_the_same_each_time(folder):
    assert drawing.draw(folder, data) == []
    names = [drawing.TABLE, drawing.CURVES, drawing.MATRIX, drawing.GALLERY]
    first = {name: (folder.artifacts / name).read_bytes() for name in names}
    assert drawing.drawn(folder) == [folder.artifacts / drawing.TABLE, folder.artifacts / drawing.PICTURES]
    assert drawing.draw_curves(folder) + drawing.draw_predictions(folder, FOUND, data) == []
    assert {name: (folder.artifacts / name).read_bytes() for name in names} == first


def test_the_curves_are_those_of_the_record(folder, monkeypatch):
    given = []
    monkeypatch.setattr(figures, "learning_curves", lambda *words: given.append(words))
    assert drawing.draw_curves(folder) == []
    ((history, evaluated, path),) = given
    assert (evaluated, path) == ("held-out images", folder.artifacts / drawing.CURVES)
    assert {epoch: values["val_accuracy"] for epoch, values in history.items()} == {1: 0.25, 2: 0.5}
    assert history[1]["train_loss"] == 1.0


def test_the_table_tells_each_example_to_the_last_bit(folder):
    drawing.draw(folder, data)
    with (folder.artifacts / drawing.TABLE).open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["index", "label", "predicted", "pcat", "pdog", "prat"]
    assert [row[:3] for row in rows[1:4]] == [["1", "dog", "dog"], ["2", "rat", "dog"], ["3", "dog", "cat"]]
    assert np.array_equal(np.array([row[3:] for row in rows], np.float64).astype(np.float32), PROBABILITIES)


def test_without_the_data_only_the_gallery_is_missing(folder):
    def gone():
        raise ValueError("no data in /gone")

    assert drawing.draw(folder, gone) == ["not drawn: mistakes.png: no data in /gone"]
    assert (folder.artifacts / drawing.MATRIX).exists()
    assert not (folder.artifacts / drawing.GALLERY).exists()


def test_without_predictions_the_curves_are_drawn_and_the_rest_is_told(folder):
    (folder.artifacts / predictions.FILE).unlink()
    expected = "not drawn: test_predictions.csv, confusion_matrix.png, mistakes.png: predictions.npz is not there"
    assert drawing.draw(folder, data) == [expected]
    assert (folder.artifacts / drawing.CURVES).exists()


def test_a_run_without_an_epoch_has_no_curves(tmp_path):
    folder = RunFolder(tmp_path / "run")
    journal = Journal(folder)
    journal.append("start", run_key="k", params={}, tags={}, parent="")
    journal.close()
    assert drawing.draw_curves(folder) == ["not drawn: learning_curves.png: the run has no epoch yet"]


def test_a_picture_that_cannot_be_drawn_costs_itself_alone(folder, monkeypatch):
    def fail(*words):
        raise RuntimeError("no ink")

    monkeypatch.setattr(figures, "confusion_matrix", fail)
    assert drawing.draw(folder, data) == ["not drawn: confusion_matrix.png: RuntimeError: no ink"]
    assert (folder.artifacts / drawing.GALLERY).exists()


@pytest.mark.parametrize("data_dir", [None, "elsewhere"])
def test_the_data_of_the_record_are_read_where_they_lie_and_compared(folder, monkeypatch, data_dir):
    asked = []

    def load(**knobs):
        asked.append(knobs)
        return SimpleNamespace(digest=digest)

    monkeypatch.setattr(drawing.datasets, "load", load)
    digest = "d1"
    assert drawing.data_of(folder, data_dir).digest == "d1"
    assert asked[0]["data_dir"] == (data_dir or "data")
    digest = "d2"
    with pytest.raises(ValueError, match="are others: digest d2, the run's was d1"):
        drawing.data_of(folder, data_dir)
