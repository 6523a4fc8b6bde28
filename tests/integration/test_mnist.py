"""The sample on the real data: two epochs, recorded, registered, and what is served is what was tested."""

import mlflow
import numpy as np
import pytest

from pipeline.data import datasets
from tests import faults
from tests.conftest import ready_store, run_pipeline


@pytest.fixture(scope="module")
def mnist_run(mnist_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist")
    uri = ready_store(folder)
    done = run_pipeline("train", "--epochs", "2", "--data_dir", mnist_dir, cwd=folder)
    assert done.returncode == 0, done.stderr
    return uri, folder


@pytest.fixture
def served(mnist_run):
    mlflow.set_tracking_uri(mnist_run[0])
    yield mlflow.pyfunc.load_model("models:/mnist-mlp@champion")
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def test_examples(mnist_dir):
    return datasets.load("mnist", mnist_dir).test


def test_two_epochs_reach_what_keras_reaches(mnist_run):
    record = faults.full_record(*mnist_run)
    accuracy = dict(record["metrics"]["val_accuracy"])
    assert accuracy[2] > 0.965  # the twelve reference runs: 0.970 to 0.977
    loss = dict(record["metrics"]["train_loss"])
    assert loss[1] == pytest.approx(0.2555, abs=0.01)
    assert loss[2] == pytest.approx(0.1042, abs=0.005)


def test_the_served_model_has_exactly_the_recorded_accuracy_at_any_batch_size(mnist_run, served, test_examples):
    record = faults.full_record(*mnist_run)
    images = test_examples.inputs.astype(np.float32)
    whole = served.predict(images)
    assert (whole.argmax(axis=1) == test_examples.labels).mean() == record["metrics"]["test_accuracy"][0][1]
    sevens = np.concatenate([served.predict(images[k : k + 7]) for k in range(0, 1400, 7)])
    ones = np.concatenate([served.predict(images[k : k + 1]) for k in range(100)])
    assert np.abs(sevens - whole[:1400]).max() < 1e-6
    assert np.abs(ones - whole[:100]).max() < 1e-6


def test_the_digest_is_that_of_the_original_files(mnist_run):
    assert faults.full_record(*mnist_run)["datasets"] == ["06b0d1f124c4e5fa", "06b0d1f124c4e5fa"]
