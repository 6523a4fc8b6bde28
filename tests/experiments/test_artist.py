"""Who draws an experiment's full runs: one at a time, once, whatever the drawing meets."""

from types import SimpleNamespace

import pytest

from pipeline.config import RunConfig
from pipeline.experiments import artist
from pipeline.experiments.artist import Artist
from pipeline.experiments.trial import Trial
from pipeline.tracking.journal import RunFolder


@pytest.fixture
def noted(monkeypatch, tmp_path):
    """What was drawn, and who was told of it."""
    noted = SimpleNamespace(drawn=[], told=[], problems=[], there=[])

    def record(folder, data):
        noted.drawn.append(folder.path.name)
        data()
        return noted.problems

    class Shared:
        def __init__(self, folder, descriptor):
            self.words = folder.path.name, descriptor

        def notify(self):
            noted.told.append(self.words)

    monkeypatch.setattr(artist.drawing, "record", record)
    monkeypatch.setattr(artist.drawing, "drawn", lambda folder: noted.there)
    monkeypatch.setattr(artist, "source_of", lambda knobs: dict(knobs)["dataset"])
    monkeypatch.setattr(artist, "Uploader", Shared)
    return noted


def trial(name, state="finished", record="full"):
    config = RunConfig(dataset="digits", record=record)
    return Trial(name, 1, config, {}, state=state, folder=RunFolder(f"runs/{name}"))


def test_a_full_run_that_is_finished_is_drawn_and_its_uploader_told(noted):
    with Artist(SimpleNamespace(descriptor=9)) as drawing:
        for each in (trial("a"), trial("b")):
            drawing.draw(each)
    assert noted.drawn == ["a", "b"]
    assert noted.told == [("a", 9), ("b", 9)]


def test_light_runs_unfinished_ones_and_those_that_are_drawn_are_left(noted):
    with Artist(SimpleNamespace(descriptor=9)) as drawing:
        drawing.draw(trial("light", record="light"))
        for state in ("running", "failed", "diverged", "missing"):
            drawing.draw(trial("other", state=state))
        noted.there = ["pictures"]
        drawing.draw(trial("drawn"))
    assert noted.drawn == []


def test_what_cannot_be_drawn_is_told_with_the_run(noted, capsys):
    noted.problems = ["not drawn: mistakes.png: no data"]
    with Artist(SimpleNamespace(descriptor=9)) as drawing:
        drawing.draw(trial("a"))
    assert capsys.readouterr().err == "warning: a seed=1: not drawn: mistakes.png: no data\n"
    assert noted.told == [("a", 9)]


def test_an_error_of_the_drawing_ends_the_experiment_and_an_interruption_leaves_the_rest(noted, monkeypatch):
    def fail(folder, data):
        raise OSError("no room")

    monkeypatch.setattr(artist.drawing, "record", fail)
    with pytest.raises(OSError, match="no room"), Artist(SimpleNamespace(descriptor=9)) as drawing:
        drawing.draw(trial("a"))
