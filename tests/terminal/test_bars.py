import io

import pytest
from rich.console import Console

from pipeline.terminal.bars import EpochBar, EpochLine

VALUES = {"loss": 0.4321, "accuracy": 0.8754}
METRICS = {"train_loss": 0.4, "train_accuracy": 0.9, "val_loss": 0.2, "val_accuracy": 0.95, "epoch_seconds": 2.0}


def test_the_finished_line_is_keras_own():
    line = EpochLine(469, 469, values=VALUES, seconds=2.0)
    assert line.text(120).plain == "469/469 " + "━" * 20 + " 2s 4ms/step - loss: 0.4321 - accuracy: 0.8754"
    assert "━" not in line.text(120, ascii_only=True).plain


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_a_line_on_the_way_counts_batches_and_is_never_wider_than_the_terminal(width):
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None).print(EpochLine(469, 120, values=VALUES))
    (line,) = out.getvalue().splitlines()
    assert line.startswith("120/469 ")
    assert len(line) <= width


def test_the_last_line_of_an_epoch_stands_and_tells_what_is_recorded():
    out = io.StringIO()
    with EpochBar(2, Console(file=out, width=200)) as bar:
        for epoch in (1, 2):
            bar.step(epoch, 0, 12, {})
            bar.step(epoch, 7, 12, VALUES)
            bar(epoch, METRICS)
    lines = out.getvalue().splitlines()
    assert [line.split(" ")[0] for line in lines] == ["Epoch", "12/12", "Epoch", "12/12"]
    assert lines[0] == "Epoch 1/2"
    assert lines[1].endswith(
        "2s 167ms/step - loss: 0.4000 - accuracy: 0.9000 - val_loss: 0.2000 - val_accuracy: 0.9500"
    )


def test_what_else_was_measured_follows_by_stage_and_a_rate_has_as_many_digits_as_it_needs():
    further = {"val_f1": 0.5, "learning_rate": 2.5e-05, "train_f1": 0.25, "time_ms": 7.0, **METRICS}
    out = io.StringIO()
    with EpochBar(1, Console(file=out, width=200)) as bar:
        bar.step(1, 0, 12, {})
        bar(1, further)
    line = out.getvalue().splitlines()[1]
    assert line.endswith(" - val_accuracy: 0.9500 - f1: 0.2500 - val_f1: 0.5000 - learning_rate: 2.5e-05")
