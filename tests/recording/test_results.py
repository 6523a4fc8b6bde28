"""What a finished training leaves."""

import pytest

from pipeline.config import RunConfig
from pipeline.recording.description import run_name
from pipeline.recording.results import describe


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
