"""Which examples decide between two versions: held out by both runs and untouched, else those to test with."""

import numpy as np
import pytest

from pipeline.data import datasets
from pipeline.data.datamodule import DataModule
from pipeline.registry import evaluation, looks
from pipeline.registry.candidates import Entry
from pipeline.registry.evaluation import deciding
from pipeline.registry.tags import version_tags
from tests.judging import DATA, LABELS, WRONG, looks_of, promote, registry_of_five, world  # noqa: F401
from tests.small_data import digits_of

HELD = f"held-out.{DATA.digest}"


def entry(version, size, by="", digest=DATA.digest):
    tags = {"data_digest": digest, "selected_by": by}
    return Entry(version, "", "", tags if size is None else {**tags, "validation_size": size})


def decide(champion, candidate, data=DATA):
    return deciding(data, entry("2", *candidate), entry("1", *champion))


@pytest.mark.parametrize(("champion", "candidate", "count"), [("20", "20", 20), ("20", "60", 20), ("79", "25", 25)])
def test_what_both_held_out_decides_and_is_what_the_datamodule_holds_out(champion, candidate, count, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda *words: DATA)
    found = decide((champion,), (candidate,))
    assert (found.part, found.reason, found.images) == ("held-out", "", HELD)
    assert found.words == f"{count} held-out examples"
    for size in (champion, candidate):
        module = DataModule("digits", validation_size=int(size))
        module.setup()
        held_out, trained_on = (
            {*each.inputs[:, 0, 0, 0].tolist()} for each in (module.val_examples, module.train_examples)
        )
        numbers = {*found.examples.inputs[:, 0, 0].tolist()}
        assert numbers <= held_out
        assert not numbers & trained_on
        if size == str(count):
            assert found.examples.labels.tolist() == module.val_examples.labels.tolist()


NOT_SAID = "version {} does not say which examples its run held out"


@pytest.mark.parametrize(
    ("champion", "candidate", "reason"),
    [
        (("0",), ("0",), ""),
        (("0",), ("30",), "the run of version 1 held none out"),
        ((None,), ("30",), NOT_SAID.format(1)),
        (("30",), (None,), NOT_SAID.format(2)),
        ((None,), (None,), f"{NOT_SAID.format(1)}; {NOT_SAID.format(2)}"),
        (("x",), ("30",), NOT_SAID.format(1)),
        (("-3",), ("30",), NOT_SAID.format(1)),
        (("80",), ("30",), NOT_SAID.format(1)),
        (("9" * 5000,), ("30",), NOT_SAID.format(1)),
        (("30", "", ""), ("30",), NOT_SAID.format(1)),
        (("30", "keep_best"), ("30",), "version 1 was selected on its held-out examples (keep_best)"),
        (("30",), ("30", "experiment"), "version 2 was selected on its held-out examples (experiment)"),
        (("19",), ("70",), "both held out only 19, less than half as many as there are to test with"),
    ],
)
def test_else_the_test_examples_decide_and_it_is_said_why(champion, candidate, reason):
    found = decide(champion, candidate)
    assert (found.part, found.reason, found.examples) == ("test", reason, DATA.test)
    assert found.words == "40 test examples"


def test_looks_at_test_images_are_counted_by_the_images_whatever_was_trained_on():
    test = (DATA.test.inputs, DATA.test.labels)
    more = digits_of((DATA.train.inputs[:50], DATA.train.labels[:50]), test)
    other = digits_of((DATA.train.inputs, DATA.train.labels), (test[0] + np.uint8(1), test[1]))
    mine, its, others = (decide(("0",), ("0",), data).images for data in (DATA, more, other))
    assert DATA.digest != more.digest
    assert mine == its != others
    assert mine.startswith("test.")


def test_a_version_says_what_its_run_held_out_and_what_selected_by_it():
    knobs = {"validation_size": 30, "keep_best": True, "early_stopping": 5, "epochs": 3}
    assert version_tags(0.5, "digits", "d", None, knobs) == {
        "test_accuracy": "0.5",
        "dataset": "digits",
        "data_digest": "d",
        "validation_size": "30",
        "selected_by": "early_stopping, keep_best",
    }
    unselected = version_tags(0.5, "digits", "d", None, {**knobs, "keep_best": False, "early_stopping": 0})
    assert unselected["selected_by"] == ""
    assert version_tags(0.5, "digits", "d", None, knobs, "parent")["selected_by"].endswith("keep_best, experiment")


@pytest.mark.usefixtures("world")
def test_held_out_images_decide_and_the_test_images_are_told(registry, capsys, monkeypatch):
    """Version 1 is wrong about ten held-out images, 3 about ten test images: on those that decide it is better."""
    rows = evaluation.held_out_rows(80, 30)
    numbers = sorted(40 + rows)
    monkeypatch.setitem(WRONG, "1", (numbers[0], numbers[10]))
    monkeypatch.setitem(WRONG, "3", (0, 10))
    for each in registry.entries:
        each.tags["validation_size"] = "30"
    assert promote("3") == 0
    out = capsys.readouterr().out
    assert "version 1, champion   20     66.67%    0" in out
    assert "version 3, candidate  30     100.00%   10" in out
    assert "look 1 at 30 held-out examples\n" in out
    assert "of the 40 test examples, which decide nothing here: 75.00% against 100.00%\n" in out
    assert list(registry.tags) == [looks.key_of(HELD, "models:/m-1", "models:/m-3")]
    assert registry.get_model_version("m", "3").tags["promotion.look"] == f"1 at 30 held-out examples ({HELD})"


@pytest.mark.usefixtures("world")
def test_a_run_that_was_selected_on_its_held_out_images_is_judged_on_the_test_images(registry, capsys):
    for each in registry.entries:
        each.tags["validation_size"] = "30"
    registry.entries[2].tags["selected_by"] = "keep_best"
    assert promote("3") == 0
    reason = "the test examples decide: version 3 was selected on its held-out examples (keep_best)\n"
    assert capsys.readouterr().out.startswith(reason)
    assert looks_of(registry) == [1]
    assert len(LABELS) == 120


def test_runs_that_held_out_others_are_judged_on_those_that_both_held_out(monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda *words: DATA)
    one, other = (
        Entry(version, "", "", {"data_digest": DATA.digest, "validation_size": "60", "validation_seed": seed})
        for version, seed in (("1", "0"), ("2", "7"))
    )
    found = deciding(DATA, other, one)
    parts = []
    for seed in (0, 7):
        module = DataModule("digits", validation_size=60, validation_seed=seed)
        module.setup()
        parts.append({*module.val_examples.inputs[:, 0, 0, 0].tolist()})
    assert found.part == "held-out"
    assert {*found.examples.inputs[:, 0, 0].tolist()} == parts[0] & parts[1] < parts[0]


def test_a_version_says_which_examples_its_run_held_out():
    knobs = {"validation_size": 5, "validation_seed": 3}
    assert version_tags(0.9, "mnist", "d", knobs=knobs)["validation_seed"] == "3"
    assert "validation_seed" not in version_tags(0.9, "mnist", "d", knobs=knobs | {"validation_seed": "0"})
