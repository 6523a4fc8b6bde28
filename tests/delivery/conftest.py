"""What the tests share that deliver into an MLflow in memory."""

import mlflow
import pytest

from tests import recorded
from tests.fake_mlflow import FakeMlflow
from tests.uploads import World


@pytest.fixture
def address(monkeypatch):
    """Nothing connects; the address is only told."""
    mlflow.set_tracking_uri("http://mlflow.test")
    recorded.quick(monkeypatch)
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture
def fake():
    """An MLflow that has nothing yet."""
    return FakeMlflow()


@pytest.fixture
def world(monkeypatch):
    """As the uploader sees it."""
    return World().put_in_place(monkeypatch)
