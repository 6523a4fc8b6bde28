"""What the console says of an epoch and of the result: also what a user measures beside loss and accuracy."""

from types import SimpleNamespace

from pipeline.delivery import console

METRICS = {"train_loss": 0.4, "train_accuracy": 0.9, "val_loss": 0.2, "val_accuracy": 0.95}
SAMPLE = "train_loss: 0.4000 - train_accuracy: 0.9000 - val_loss: 0.2000 - val_accuracy: 0.9500"


def test_an_epochs_line_has_every_metric_once(monkeypatch, capsys):
    monkeypatch.setattr(console, "trouble_words", lambda journal: "")
    lines = console.EpochLines(10, SimpleNamespace())
    lines(2, {**METRICS, "epoch_seconds": 1.5, "time_ms": 9})
    lines(3, {"val_f1": float("nan"), **METRICS, "train_f1": 0.5, "epoch_seconds": 1.5, "learning_rate": 5e-06})
    assert capsys.readouterr().out.splitlines() == [
        f"epoch  2/10 - 1.5 s - {SAMPLE}",
        f"epoch  3/10 - 1.5 s - {SAMPLE} - train_f1: 0.5000 - val_f1: nan - learning_rate: 5e-06",
    ]


def test_the_last_line_has_what_was_measured_of_the_test(tmp_path, capsys):
    folder = SimpleNamespace(state=dict, path=tmp_path)
    console.tell_result(SimpleNamespace(), folder, {"test_loss": 0.25, "test_accuracy": 0.5})
    console.tell_result(SimpleNamespace(), folder, {"test_f1": 0.75, "test_loss": 0.25, "test_accuracy": 0.5})
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("test")]
    assert told == [
        "test loss: 0.2500 - test accuracy: 0.5000",
        "test loss: 0.2500 - test accuracy: 0.5000 - test f1: 0.7500",
    ]
