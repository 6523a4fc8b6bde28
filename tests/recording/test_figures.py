"""The learning curves: a panel for loss, accuracy and each further measure."""

import numpy as np
import pytest
from matplotlib import image

from pipeline.data_spec import DataSpec
from pipeline.recording import figures


@pytest.fixture
def drawn(monkeypatch):
    """The figures, before they are written."""
    found, save = [], figures._save
    monkeypatch.setattr(figures, "_save", lambda figure, path: found.append(figure) or save(figure, path))
    return found


def epoch(**more):
    return {
        "train_loss": 0.4,
        "train_accuracy": 0.9,
        "val_loss": 0.2,
        "val_accuracy": 0.95,
        "epoch_seconds": 2.0,
        **more,
    }


@pytest.mark.parametrize(
    ("more", "panels"),
    [
        ({}, ["loss", "accuracy"]),
        ({"train_f1": 0.5, "val_f1": 0.6, "learning_rate": 0.1}, ["loss", "accuracy", "f1"]),
        ({"train_f1": 0.5, "val_f1": 0.6, "val_auc": float("nan"), "mine": 1.0}, ["loss", "accuracy", "f1", "auc"]),
    ],
)
def test_each_measure_has_a_panel(tmp_path, drawn, more, panels):
    figures.learning_curves({1: epoch(**more), 2: epoch(**more)}, "test images", tmp_path / "a/curves.png")
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == panels
    assert all([each.get_text() for each in axes.get_legend().texts][1] == "test images" for axes in figure.axes)
    assert image.imread(tmp_path / "a/curves.png").ndim == 3


def test_a_measure_that_some_epochs_lack_is_drawn_where_it_is(tmp_path, drawn):
    figures.learning_curves({1: epoch(), 2: epoch(val_f1=0.25), 3: epoch()}, "test rows", tmp_path / "curves.png")
    training, evaluation = drawn[0].axes[2].lines
    assert (list(training.get_xdata()), list(evaluation.get_xdata())) == ([], [2])
    assert np.array_equal(evaluation.get_ydata(), [0.25])


def test_names_of_classes_are_text_whatever_is_in_them(tmp_path):
    """Two dollars are no formula, and a letter that the font lacks is no warning, which a test would fail by."""
    spec = DataSpec("image", (1, 4, 4), ("$_$", "5$ to 9$", "日本"))
    labels, images = np.array([0, 1, 2]), np.zeros((3, 4, 4), np.uint8)
    probabilities = np.roll(np.eye(3, dtype=np.float32), 1, axis=0)
    figures.confusion_matrix(spec, labels, probabilities.argmax(1), tmp_path / "matrix.png")
    figures.mistakes_gallery(spec, images, labels, probabilities, tmp_path / "mistakes.png")
    assert all(image.imread(tmp_path / name).ndim == 3 for name in ("matrix.png", "mistakes.png"))
