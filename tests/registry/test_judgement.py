"""A promotion: what it decides, writes and tells, and in what order; the registry is one in memory."""

import re

import pytest

from pipeline.registry import promotion
from pipeline.registry.versions import NotServableError
from tests.judging import DATA, NOW, WRONG, Model, breaks, promote, registry_of_five, world  # noqa: F401

pytestmark = pytest.mark.usefixtures("world")

TAGS_OF_3 = [
    ("tag", "3", "promotion.verdict", "promote: at least as accurate, and not shown to be worse"),
    ("tag", "3", "promotion.accuracy", "0.8750 against 0.7500"),
    ("tag", "3", "promotion.mcnemar", "p = 0.0625, 5 to 0"),
    ("tag", "3", "promotion.against", "version 1"),
    ("tag", "3", "promotion.when", NOW),
]
TABLE_OF_3 = [
    "m                     right  accuracy  right alone",
    "version 1, champion   30     75.00%    0",
    "version 3, candidate  35     87.50%    5",
    "exact McNemar test on 5 of 40 test examples: p = 0.0625",
    "promote: at least as accurate, and not shown to be worse",
]


def lines(text):
    return [line.rstrip() for line in text.splitlines()]


def test_a_better_version_gets_its_verdict_then_previous_then_champion(registry, capsys):
    assert promote("3") == 0
    assert registry.writes == [*TAGS_OF_3, ("alias", "previous", "1"), ("alias", "champion", "3")]
    out, err = capsys.readouterr()
    moved = "m: version 3 is champion now, version 1 previous (promote --rollback exchanges them)"
    assert (lines(out), err) == ([*TABLE_OF_3, moved], "")


def test_both_are_asked_about_the_test_images_of_the_champions_data(registry):
    registry.entries[0].tags["dataset"] = "fashion"
    registry.entries[2].tags.pop("dataset")
    promote("3")
    assert registry.loaded == [("fashion", "data", "")]
    assert registry.opened == [("models:/m/3", "m", "3", "run3"), ("models:/m/1", "m", "1", "run1")]


def test_a_champion_that_names_no_data_was_made_on_mnist(registry):
    registry.entries[0].tags = {}
    registry.entries[2].tags = {"data_digest": ""}
    assert promote("3") == 0
    assert registry.loaded == [("mnist", "data", "")]


def test_a_worse_version_gets_its_verdict_and_no_alias(registry, capsys):
    assert promote("2") == 1
    assert registry.writes == [
        ("tag", "2", "promotion.verdict", "refuse: shown to be worse (p = 0.002)"),
        ("tag", "2", "promotion.accuracy", "0.5000 against 0.7500"),
        ("tag", "2", "promotion.mcnemar", "p = 0.00195312, 0 to 10"),
        ("tag", "2", "promotion.against", "version 1"),
        ("tag", "2", "promotion.when", NOW),
    ]
    out, err = capsys.readouterr()
    assert lines(out) == [
        "m                     right  accuracy  right alone",
        "version 1, champion   30     75.00%    10",
        "version 2, candidate  20     50.00%    0",
        "exact McNemar test on 10 of 40 test examples: p = 0.00195",
    ]
    assert err == "refuse: shown to be worse (p = 0.002); --force REASON promotes it all the same\n"


def test_one_image_less_is_refused_and_as_many_are_enough(registry, capsys):
    assert promote("5") == 1
    assert capsys.readouterr().err == (
        "refuse: less accurate than the champion; --force REASON promotes it all the same\n"
    )
    assert registry.aliases == {"m": {"champion": "1"}}
    assert promote("4") == 0
    assert registry.aliases == {"m": {"champion": "4", "previous": "1"}}


def test_force_moves_the_alias_and_records_why_beside_the_verdict(registry, capsys):
    assert promote("2", force="a bug in 1") == 0
    assert registry.writes[0] == ("tag", "2", "promotion.verdict", "refuse: shown to be worse (p = 0.002)")
    assert registry.writes[5:] == [
        ("tag", "2", "promotion.forced", "a bug in 1"),
        ("alias", "previous", "1"),
        ("alias", "champion", "2"),
    ]
    out, err = capsys.readouterr()
    assert out.splitlines()[-2] == "forced: a bug in 1"
    assert err == ""


def test_a_force_that_was_not_needed_is_recorded_and_not_told(registry, capsys):
    assert promote("3", force="impatience") == 0
    assert ("tag", "3", "promotion.forced", "impatience") in registry.writes
    assert "forced" not in capsys.readouterr().out


def test_the_champion_itself_has_nothing_to_earn(registry, capsys):
    for force in ("", "all the same"):
        assert promote("1", force=force) == 0
        assert capsys.readouterr() == ("m version 1 is the champion already: nothing to do\n", "")
    assert registry.writes == registry.opened == []


def test_without_a_champion_the_version_becomes_it_unexamined(registry, capsys):
    del registry.aliases["m"]["champion"]
    assert promote("2") == 0
    assert capsys.readouterr() == ("m has no champion; version 2 becomes it\n", "")
    assert registry.writes == [("alias", "champion", "2")]
    assert registry.opened == []


@pytest.mark.parametrize(
    ("target", "force", "champion", "code"),
    [("3", "", "1", 0), ("2", "", "1", 1), ("2", "so be it", "1", 0), ("2", "", None, 0), ("1", "", "1", 0)],
)
def test_a_dry_run_says_and_returns_the_same_and_writes_nothing(registry, capsys, target, force, champion, code):
    if champion is None:
        del registry.aliases["m"]["champion"]
    assert promote(target, dry_run=True, force=force) == code
    assert registry.writes == []
    told = lines(capsys.readouterr().out)
    if target == "3":
        assert told == [*TABLE_OF_3, "dry run: nothing was changed"]
    elif champion is None:
        assert told == ["m has no champion; version 2 would become it"]
    elif target == "2":
        assert told[-1] == "dry run: nothing was changed"
        assert ("forced: so be it" in told) == bool(force)
    assert promote(target, force=force) == code


def test_a_dry_run_of_a_run_without_a_version_makes_none(registry, capsys):
    registry.add_run("fresh", metrics={"test_accuracy": 0.875}, params={"dataset": "digits"}, digests=[DATA.digest])
    registry.add_model("m-fresh", "fresh")
    assert promote("fresh", dry_run=True) == 0
    assert registry.writes == []
    assert registry.opened[0] == ("models:/m-fresh", "m", "(new)", "fresh")
    assert "version (new), candidate  35     87.50%    5" in capsys.readouterr().out
    assert promote("fresh") == 0
    assert registry.aliases["m"] == {"champion": "6", "previous": "1"}
    assert registry.opened[2] == ("models:/m/6", "m", "6", "fresh")


@pytest.mark.parametrize(
    ("version", "tag", "value"),
    [("3", "data_digest", "x"), ("1", "data_digest", "x"), ("3", "dataset", "mnist")],
)
def test_versions_of_other_data_are_not_compared(registry, version, tag, value):
    tags = registry.get_model_version("m", version).tags
    tags[tag] = value
    mine, its = (registry.get_model_version("m", each).tags for each in ("3", "1"))
    words = (
        f"version 3 was made on {mine['dataset']} (digest {mine['data_digest']}), version 1 on {its['dataset']} "
        f"({its['data_digest']}), and here holds {DATA.digest}: they cannot be compared here"
    )
    for force in ("", "all the same"):
        with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
            promote("3", force=force)
    assert registry.writes == registry.opened == []


def test_a_champion_that_does_not_open_goes_only_by_force(registry, capsys, monkeypatch):
    monkeypatch.setattr(promotion, "load", breaks("1"))
    words = "the champion, m version 1 cannot be opened; --force REASON replaces it without a comparison"
    with pytest.raises(NotServableError, match=f"^{words}$"):
        promote("3")
    assert registry.writes == []
    assert promote("3", dry_run=True, force="gone") == 0
    assert registry.writes == []
    assert capsys.readouterr() == (
        "forced: gone\ndry run: nothing was changed\n",
        "not compared: the champion, m version 1 cannot be opened\n",
    )
    assert promote("3", force="gone") == 0
    assert registry.writes == [
        ("tag", "3", "promotion.verdict", "not compared: the champion could not be opened"),
        ("tag", "3", "promotion.against", "version 1"),
        ("tag", "3", "promotion.when", NOW),
        ("tag", "3", "promotion.forced", "gone"),
        ("alias", "previous", "1"),
        ("alias", "champion", "3"),
    ]


@pytest.mark.parametrize("force", ["", "so be it"])
def test_a_version_that_does_not_open_becomes_champion_by_no_means(registry, monkeypatch, force):
    monkeypatch.setattr(promotion, "load", breaks("3"))
    with pytest.raises(NotServableError, match=r"^m version 3 cannot be opened$"):
        promote("3", force=force)
    assert registry.writes == []
