"""What the tests of the alias watcher share."""

import pytest

from pipeline.serving import alias_watcher
from tests.fake_registry import Registry


@pytest.fixture
def registry(monkeypatch):
    """A registry that has nothing yet, whose versions the watcher opens."""
    found = Registry()
    monkeypatch.setattr(alias_watcher, "load", lambda *arguments: found.load(*arguments))
    return found
