"""What the tests of promotions share: a registry in memory, models that are wrong about known images, their data."""

import numpy as np
import pytest

from pipeline.data import datasets
from pipeline.registry import evaluation, promotion, promotion_lock
from pipeline.registry.versions import NotServableError
from tests.fake_model_registry import FakeRegistry
from tests.small_data import digits_of

IMAGES, TRAINED_ON = 40, 80  # the first 40 numbers are the test images
NOW = "2026-01-02 03:04:05 UTC by bob"


def numbered(start, stop):
    """Images that tell their number, so that an answer for another image is seen."""
    images = np.zeros((stop - start, 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(start, stop)
    return images


NUMBERS = np.arange(IMAGES + TRAINED_ON)
LABELS = NUMBERS % 10
DATA = digits_of(
    (numbered(IMAGES, len(NUMBERS)), LABELS[IMAGES:]), (numbered(0, IMAGES), LABELS[:IMAGES].astype(np.int64))
)


class Model:
    """Wrong about the first so many images, from `start`; probabilities that tell the answer by a hair."""

    def __init__(self, start, stop):
        self.answers = (LABELS + ((start <= NUMBERS) & (stop > NUMBERS))) % 10

    def predict(self, images):
        assert images.dtype == np.float32
        probabilities = np.full((len(images), 10), 0.1, np.float32)
        probabilities[np.arange(len(images)), self.answers[images[:, 0, 0].astype(int)]] += 0.001
        return probabilities


# version -> the images that it gets wrong; 1 is the champion
WRONG = {"1": (0, 10), "2": (0, 20), "3": (0, 2), "4": (10, 20), "5": (0, 11)}


@pytest.fixture(name="registry")
def registry_of_five():
    """Versions 1 to 5, of the data here; 1 is the champion."""
    fake = FakeRegistry("m", 5, champion="1")
    for entry in fake.entries:
        entry.tags = {"dataset": "digits", "data_digest": DATA.digest, "validation_size": "0", "selected_by": ""}
    return fake


@pytest.fixture
def world(registry, monkeypatch, tmp_path):
    """The registry, the models and the data of these tests; `opened` and `loaded` tell what was asked of them."""
    opened, loaded = [], []

    def load(uri, name, version, run_id, folder):
        assert folder.is_dir()
        assert folder.name.startswith("pipeline-model-")  # what a kill leaves in /tmp tells whose it is
        opened.append((uri, name, version, run_id))
        return Model(*WRONG.get(version, (0, 2)))

    def load_data(*words):
        loaded.append(words)
        return DATA

    monkeypatch.setattr(promotion, "connect", lambda *, looking_for: registry)
    monkeypatch.setattr(evaluation, "load", load)
    monkeypatch.setattr(datasets, "load", load_data)
    monkeypatch.setattr(evaluation, "AT_ONCE", 7)
    monkeypatch.setattr(promotion, "_now", lambda: NOW.partition(" by ")[0])
    monkeypatch.setattr(promotion, "user_name", lambda: "bob")
    monkeypatch.setattr(promotion_lock.mlflow, "get_registry_uri", lambda: f"sqlite:///{tmp_path}/mlflow.db")
    registry.opened, registry.loaded = opened, loaded


def promote(target="newest", *, dry_run=False, force="", margin=0.0):
    words = {"runs_dir": "runs", "data_dir": "data", "dry_run": dry_run, "force": force, "margin": margin}
    return promotion.promote(target, "m", **words)


def looks_of(registry):
    """The numbers of the looks that are counted, in order."""
    return sorted(int(value.split()[1].rstrip(":")) for value in registry.tags.values())


def breaks(version):
    def load(uri, name, its, run_id, folder):
        if its == version:
            raise NotServableError(f"{name} version {its} cannot be opened")
        return Model(*WRONG[its])

    return load
