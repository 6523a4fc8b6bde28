"""What a finished training leaves."""

from types import SimpleNamespace

import pytest

from pipeline.config import RunConfig
from pipeline.config.own_code import OwnCodeError
from pipeline.data.datasets import load
from pipeline.recording import results
from pipeline.recording.description import run_name
from pipeline.recording.results import describe
from pipeline.training.building import make_network
from tests.own_training_code import Network


@pytest.mark.parametrize(
    ("knobs", "epochs", "words"),
    [
        ({}, 20, "98.47 % on 10,000 test images; sample, 20 epochs"),
        ({"epochs": 1, "dropout": 0.5, "seed": 3}, 1, "98.47 % on 10,000 test images; dropout=0.5, 1 epoch"),
        ({"run_name": "mine", "optimizer": "sgd"}, 7, "98.47 % on 10,000 test images; optimizer=sgd, 7 epochs"),
    ],
)
def test_the_description_tells_the_result_and_what_differs_from_the_sample(knobs, epochs, words):
    assert describe(RunConfig(**knobs), 0.98471, "10,000 test images", epochs) == words


def test_the_runs_name_is_as_it_was():
    assert run_name(RunConfig(dropout=0.5)) == "dropout=0.5 epochs=20 seed=1"
    assert run_name(RunConfig()) == "sample epochs=20 seed=1"


CODE = """
from torch import nn
class Loops(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.layer = nn.Linear(spec.size, 10)
    def forward(self, inputs):
        if inputs.max() > 300:
            inputs = inputs / 300
        return self.layer(inputs.flatten(1))
"""


def test_a_network_that_no_export_takes_is_told_in_a_line_after_a_training_that_was_over_before_its_trial(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "my_loops.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    config, source = RunConfig(network="my_loops:Loops", dataset="digits", model_name="loops"), load("digits", tmp_path)
    result = SimpleNamespace(classifier=SimpleNamespace(network=make_network(config, source.spec)))
    words = (
        r"^network my_loops:Loops cannot be exported: my_loops.py:\d+: \w+: .*; --model_name '' trains it all the same"
    )
    with pytest.raises(OwnCodeError, match=words) as caught:
        results._exported(config, result, source, tmp_path / "network.onnx")
    assert "\n" not in str(caught.value)
    assert results._exported(config.replace(model_name=""), result, source, tmp_path / "network.onnx") is None
    assert "warning: the network cannot be exported (my_loops.py:" in capsys.readouterr().err
    config = RunConfig(network="tests.own_training_code:Network", model_name="loops")
    result = SimpleNamespace(classifier=SimpleNamespace(network=Network(source.spec)))
    with pytest.raises(FileNotFoundError):  # no network's fault
        results._exported(config, result, source, tmp_path / "none" / "network.onnx")
