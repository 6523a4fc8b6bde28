"""What a record says of a training, as plain values."""

import json

import numpy as np
import pytest

from pipeline.config import RunConfig
from pipeline.recording import description
from pipeline.recording.description import dataset_inputs, identity_tags, run_name, what_differs
from tests.small_data import digits_of


def images(count):
    return np.full((count, 28, 28), 2, np.uint8), np.zeros(count, np.uint8)


SOURCE = digits_of(images(5), images(3), source="/data")


def test_a_run_says_whose_it_is_and_what_it_is_called(monkeypatch):
    monkeypatch.setattr(description, "user_name", lambda: "me")
    assert identity_tags(RunConfig(epochs=3)) == {
        "mlflow.runName": "sample epochs=3 seed=1",
        "mlflow.user": "me",
        "mlflow.source.name": "pipeline",
        "mlflow.source.type": "LOCAL",
    }


@pytest.mark.parametrize(("held_out", "profile"), [(0, {}), (2, {"held_out_for_validation": 2})])
def test_what_was_trained_and_evaluated_on_is_recorded_as_mlflow_takes_it(held_out, profile):
    training, testing = inputs = dataset_inputs(SOURCE, held_out)
    assert [each["context"] for each in inputs] == ["training", "testing"]
    spec = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 28, 28]}}
    label = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1]}}
    for each, name, count, more in ((training, "training", 5, profile), (testing, "testing", 3, {})):
        found = each["dataset"]
        assert found.keys() == {"name", "digest", "source_type", "source", "schema", "profile"}
        assert (found["name"], found["digest"], found["source_type"]) == (f"digits-{name}", SOURCE.digest, "local")
        assert json.loads(found["source"]) == {"uri": "/data"}
        schema = json.loads(found["schema"])["mlflow_tensorspec"]
        assert {key: json.loads(text) for key, text in schema.items()} == {"features": [spec], "targets": [label]}
        shapes = {"features_shape": [count, 28, 28], "targets_shape": [count]}
        assert json.loads(found["profile"]) == {**shapes, **more}


@pytest.mark.parametrize(
    ("knobs", "differs"),
    [
        ({}, "sample"),
        ({"dropout": 0.5, "hidden_units": 16}, "hidden_units=16 dropout=0.5"),
        ({"optimizer": "sgd", "seed": 3, "epochs": 2, "verbose": "0"}, "optimizer=sgd"),
        ({"data_dir": "/d", "runs_dir": "r", "model_name": "m", "experiment_name": "e"}, "sample"),
    ],
)
def test_a_run_is_called_by_what_differs_from_the_sample(knobs, differs):
    config = RunConfig(**knobs)
    assert what_differs(config) == differs
    assert run_name(config) == f"{differs} epochs={config.epochs} seed={config.seed}"
    assert run_name(RunConfig(run_name="mine", **knobs)) == "mine"
    assert what_differs(RunConfig(run_name="mine", **knobs)) == differs
