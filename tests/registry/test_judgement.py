"""A promotion: what it decides, writes and tells, and in what order; the registry is one in memory."""

import re

import pytest

from pipeline.registry import evaluation, looks
from pipeline.registry.candidates import Entry
from pipeline.registry.versions import NotServableError
from tests.judging import DATA, NOW, breaks, promote, registry_of_five, world  # noqa: F401

pytestmark = pytest.mark.usefixtures("world")

PROMOTED = "promote: shown to be better; needs p < 0.025 (look 1), has 0.00391: 8 to 0"
REFUSED = "refuse: not shown to be better; needs p < 0.025 (look 1), has 1: 0 to 10; it would have taken 9 to 1"
SET = evaluation.deciding(DATA, Entry("3", "", "", {}), Entry("1", "", "", {})).images


def look_of(candidate, number=1, champion="1"):
    """The two writes of a look at the test images."""
    key = looks.key_of(SET, f"models:/m-{champion}", f"models:/m-{candidate}")
    note = f"version {candidate} against {champion}, {NOW}"
    return [("look", key, note), ("look", key, f"look {number}: {note}")]


TAGS_OF_3 = [
    ("tag", "3", "promotion.verdict", PROMOTED),
    ("tag", "3", "promotion.accuracy", "0.9500 against 0.7500"),
    ("tag", "3", "promotion.look", f"1 at 40 test examples ({SET})"),
    ("tag", "3", "promotion.against", "version 1"),
    ("tag", "3", "promotion.when", NOW),
]
TABLE_OF_3 = [
    "m                     right  accuracy  right alone",
    "version 1, champion   30     75.00%    0",
    "version 3, candidate  38     95.00%    8",
    "look 1 at 40 test examples",
    PROMOTED,
]


def lines(text):
    return [line.rstrip() for line in text.splitlines()]


def test_a_better_version_has_its_look_counted_gets_its_verdict_then_previous_then_champion(registry, capsys):
    assert promote("3") == 0
    assert registry.writes == [*look_of("3"), *TAGS_OF_3, ("alias", "previous", "1"), ("alias", "champion", "3")]
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
        *look_of("2"),
        ("tag", "2", "promotion.verdict", REFUSED),
        ("tag", "2", "promotion.accuracy", "0.5000 against 0.7500"),
        ("tag", "2", "promotion.look", f"1 at 40 test examples ({SET})"),
        ("tag", "2", "promotion.against", "version 1"),
        ("tag", "2", "promotion.when", NOW),
    ]
    out, err = capsys.readouterr()
    assert lines(out) == [
        "m                     right  accuracy  right alone",
        "version 1, champion   30     75.00%    10",
        "version 2, candidate  20     50.00%    0",
        "look 1 at 40 test examples",
    ]
    assert err == f"{REFUSED}; --force REASON promotes it all the same\n"


def test_as_many_right_is_not_enough_and_says_what_would_have_been(registry, capsys):
    assert promote("4") == 1
    assert capsys.readouterr().err == (
        "refuse: not shown to be better; needs p < 0.025 (look 1), has 0.588: 10 to 10; it would have taken 15 to 5; "
        "--force REASON promotes it all the same\n"
    )
    assert promote("5") == 1
    assert "(look 2), has 1: 0 to 1; no split of 1 would have been enough; --force" in capsys.readouterr().err
    assert registry.aliases == {"m": {"champion": "1"}}


def test_within_the_margin_a_version_that_is_a_little_worse_is_promoted(registry, capsys):
    assert promote("5", margin=30.0) == 0
    assert "promote: shown to be at most 30 points worse" in capsys.readouterr().out
    assert registry.aliases["m"]["champion"] == "5"


def test_comparisons_from_before_looks_were_counted_count_where_they_were_of_this_data_or_tell_of_none(
    registry, capsys
):
    before = {"promotion.mcnemar": "p=0.2"}
    for entry, digest in zip(registry.entries[1:], (DATA.digest, DATA.digest, "another", None), strict=True):
        entry.tags |= before | {"data_digest": digest}
        if digest is None:
            del entry.tags["data_digest"]
    assert promote("3", dry_run=True) == 0
    assert "it would be look 4 at them" in capsys.readouterr().out
    promote("3")
    assert "look 4 at 40 test examples" in capsys.readouterr().out


def test_force_moves_the_alias_and_records_why_beside_the_verdict(registry, capsys):
    assert promote("2", force="a bug in 1") == 0
    assert registry.writes[:3] == [*look_of("2"), ("tag", "2", "promotion.verdict", REFUSED)]
    assert registry.writes[7:] == [
        ("tag", "2", "promotion.forced", "a bug in 1"),
        ("alias", "previous", "1"),
        ("alias", "champion", "2"),
    ]
    out, err = capsys.readouterr()
    assert out.splitlines()[-3:-1] == [REFUSED, "forced: a bug in 1"]
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


WOULD = [
    "m: version 3 would be compared with version 1, champion, on 40 test examples",
    "it would be look 1 at them: to be shown better the candidate needs p < 0.025",
    "what the two get right is not shown: that would be the look",
    "dry run: nothing was changed",
]


@pytest.mark.parametrize("force", ["", "so be it"])
def test_a_dry_run_tells_what_a_look_takes_shows_none_of_it_and_writes_nothing(registry, capsys, force):
    assert promote("3", dry_run=True, force=force) == 0
    assert lines(capsys.readouterr().out) == WOULD
    assert len(registry.opened) == 2
    assert registry.writes == []
    promote("2")
    capsys.readouterr()
    assert promote("3", dry_run=True, margin=0.5) == 0
    words = "it would be look 2 at them: to be shown at most 0.5 points worse the candidate needs p < 0.00833"
    assert lines(capsys.readouterr().out)[1] == words


@pytest.mark.parametrize(("target", "force", "code"), [("2", "", 1), ("2", "so be it", 0)])
def test_a_dry_run_shows_again_what_a_look_has_shown(registry, capsys, target, force, code):
    assert promote(target) == 1
    shown, written = lines(capsys.readouterr().out), list(registry.writes)
    assert promote(target, dry_run=True, force=force) == code
    told = lines(capsys.readouterr().out)
    assert told[:4] == shown
    assert told[-1] == "dry run: nothing was changed"
    assert ("forced: so be it" in told) == bool(force)
    assert registry.writes == written


def test_a_dry_run_without_a_champion_and_of_the_champion_says_the_same(registry, capsys):
    assert promote("1", dry_run=True) == 0
    del registry.aliases["m"]["champion"]
    assert promote("2", dry_run=True) == 0
    assert lines(capsys.readouterr().out) == [
        "m version 1 is the champion already: nothing to do",
        "m has no champion; version 2 would become it",
    ]
    assert registry.writes == []


def test_a_run_without_a_version_is_the_same_look_before_and_after_it_gets_one(registry, capsys):
    registry.add_run("fresh", metrics={"test_accuracy": 0.875}, params={"dataset": "digits"}, digests=[DATA.digest])
    registry.add_model("m-fresh", "fresh")
    assert promote("fresh", dry_run=True) == 0
    assert registry.writes == []
    assert registry.opened[0] == ("models:/m-fresh", "m", "(new)", "fresh")
    assert "version (new) would be compared" in capsys.readouterr().out
    assert promote("fresh") == 0
    assert registry.aliases["m"] == {"champion": "6", "previous": "1"}
    assert registry.opened[2] == ("models:/m/6", "m", "6", "fresh")
    assert list(registry.tags) == [looks.key_of(SET, "models:/m-1", "models:/m-fresh")]


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
    monkeypatch.setattr(evaluation, "load", breaks("1"))
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
    monkeypatch.setattr(evaluation, "load", breaks("3"))
    with pytest.raises(NotServableError, match=r"^m version 3 cannot be opened$"):
        promote("3", force=force)
    assert registry.writes == []
