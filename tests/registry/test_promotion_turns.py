"""Promotions one after the other, at once, cut off and taken back; and which version is meant."""

import time
from contextlib import nullcontext

import pytest
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from pipeline.registry import candidates, evaluation, promotion
from pipeline.registry.versions import NotServableError
from pipeline.terminal.shell import UnreachableError
from tests.judging import NOW, WRONG, Model, breaks, promote, registry_of_five, world  # noqa: F401

pytestmark = pytest.mark.usefixtures("world")


@pytest.mark.parametrize("page", [1, 2, 100])
def test_the_newest_is_the_highest_number_on_whatever_page(registry, page):
    registry.page = page
    for number in (10, 9, 100, 11):
        registry.add("m", number)
        registry.add("other", number + 1000)
    assert candidates.find(registry, "newest", "m", "runs", dry_run=False).version == "100"
    assert candidates.find(registry, "9", "m", "runs", dry_run=False).version == "9"
    assert candidates.find(registry, "1", "m", "runs", dry_run=False).version == "1"


def test_a_champion_that_changed_meanwhile_is_not_overwritten(registry, monkeypatch):
    def load(uri, name, version, run_id, folder):
        registry.aliases["m"]["champion"] = "4"
        return Model(*WRONG[version])

    monkeypatch.setattr(evaluation, "load", load)
    words = r"^version 4 became champion meanwhile; run promote again to be compared with it$"
    for force in ("", "all the same"):
        registry.aliases["m"]["champion"] = "1"
        with pytest.raises(ValueError, match=words):
            promote("3", force=force)
    assert registry.aliases == {"m": {"champion": "4"}}


def locked(tmp_path):
    try:
        with FileLock(tmp_path / "mlflow.db.promote.lock", timeout=0):
            return False
    except Timeout:
        return True


def test_others_wait_from_the_look_at_the_champion_until_the_alias_has_moved(registry, monkeypatch, tmp_path):
    seen = []
    for name in (
        "get_model_version_by_alias",
        "set_registered_model_tag",
        "set_model_version_tag",
        "set_registered_model_alias",
    ):
        real = getattr(registry, name)

        def spy(*words, real=real):
            seen.append(locked(tmp_path))
            return real(*words)

        monkeypatch.setattr(registry, name, spy)
    assert promote("3") == 0
    assert len(seen) == 11
    assert promotion.rollback("m") == 0
    assert len(seen) > 15
    assert all(seen)
    assert not locked(tmp_path)


def test_the_lock_is_let_go_where_a_promotion_fails(registry, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluation, "load", breaks("3"))
    with pytest.raises(NotServableError):
        promote("3")
    assert not locked(tmp_path)


@pytest.mark.parametrize("act", [lambda: promote("3"), lambda: promotion.rollback("m")])
def test_where_the_registry_stops_answering_it_says_to_run_it_again(registry, monkeypatch, act):
    def dead(*words):
        raise MlflowException("API request to http://registry/api failed with exception Connection refused")

    registry.aliases["m"]["previous"] = "2"
    monkeypatch.setattr(registry, "set_registered_model_alias", dead)
    words = r"; run it again when it does: what was half done is made whole$"
    with pytest.raises(UnreachableError, match=words):
        act()


# Back again


def test_a_rollback_tags_the_champion_then_moves_champion_then_previous(registry, capsys):
    registry.aliases["m"] = {"champion": "3", "previous": "1"}
    assert promotion.rollback("m") == 0
    assert registry.writes == [
        ("tag", "3", "promotion.rolled_back", f"{NOW}, in favour of version 1"),
        ("alias", "champion", "1"),
        ("alias", "previous", "3"),
    ]
    moved = "m: version 1 is champion now, version 3 previous (promote --rollback exchanges them)\n"
    assert capsys.readouterr() == (moved, "")


def test_two_rollbacks_are_none(registry):
    registry.aliases["m"] = {"champion": "3", "previous": "1"}
    promotion.rollback("m")
    promotion.rollback("m")
    assert registry.aliases == {"m": {"champion": "3", "previous": "1"}}


def test_a_rollback_that_was_cut_off_goes_on_to_the_version_rolled_back_last(registry):
    """Both aliases are on 1. Rolled back in favour of 1: 4 last, 3 before, 2 on the oldest day; 5 in favour of 11."""
    registry.aliases["m"] = {"champion": "1", "previous": "1"}
    for version, text in (
        ("2", "2026-01-01 00:00:00 UTC by zoe, in favour of version 1"),
        ("4", "2026-01-03 00:00:00 UTC by bob, in favour of version 1"),
        ("3", "2026-01-02 00:00:00 UTC by ann, in favour of version 1"),
        ("5", "2026-01-04 00:00:00 UTC by bob, in favour of version 11"),
    ):
        registry.get_model_version("m", version).tags["promotion.rolled_back"] = text
    assert promotion.rollback("m") == 0
    assert registry.writes == [("alias", "previous", "4")]


def test_there_is_nothing_to_go_back_to_where_both_aliases_are_on_one_version(registry):
    registry.aliases["m"] = {"champion": "2", "previous": "2"}
    registry.get_model_version("m", "3").tags["promotion.rolled_back"] = f"{NOW}, in favour of version 1"
    words = r"^version 2 of m is both champion and previous: there is nothing to go back to$"
    with pytest.raises(ValueError, match=words):
        promotion.rollback("m")
    assert registry.writes == []


def test_a_rollback_does_not_overwrite_a_champion_that_changed_meanwhile(registry, monkeypatch):
    registry.aliases["m"] = {"champion": "3", "previous": "1"}
    real, asked = registry.get_model_version_by_alias, []

    def moving(name, alias):
        found = real(name, alias)
        asked.append(alias)
        if asked == ["previous", "champion"]:
            registry.aliases["m"]["champion"] = "4"
        return found

    monkeypatch.setattr(registry, "get_model_version_by_alias", moving)
    with pytest.raises(ValueError, match=r"^version 4 became champion meanwhile; run promote again"):
        promotion.rollback("m")
    assert registry.writes == []


def test_the_time_of_a_verdict_is_utc_to_the_second(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(promotion.time, "gmtime", lambda: time.struct_time((2026, 1, 2, 3, 4, 5, 4, 2, 0)))
    assert promotion._now() == "2026-01-02 03:04:05 UTC"


def test_each_model_has_a_lock_of_its_own_and_the_runs_folder_is_the_one_given(registry, monkeypatch):
    names, folders = [], []
    monkeypatch.setattr(promotion, "one_at_a_time", lambda name: names.append(name) or nullcontext())
    real = candidates.find

    def find(client, target, name, runs_dir, *, dry_run):
        folders.append(runs_dir)
        return real(client, target, name, runs_dir, dry_run=dry_run)

    monkeypatch.setattr(candidates, "find", find)
    promote("3")
    promotion.rollback("m")
    assert (names, folders) == (["m", "m"], ["runs"])
