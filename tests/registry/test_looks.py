"""Looks at the images that decide: counted before anything is shown, each once, whoever dies or writes in between."""

import re

import pytest

from pipeline.registry import looks
from pipeline.registry.judgement import level_of
from pipeline.terminal.shell import UnreachableError
from tests.fake_model_registry import FakeRegistry

IMAGES = "test.0123456789abcdef"


@pytest.fixture
def registry():
    return FakeRegistry("m", 3, champion="1")


def key(candidate, champion="1", images=IMAGES):
    return looks.key_of(images, f"models:/m-{champion}", f"models:/m-{candidate}")


def count(registry, candidate, earlier=0, **of):
    return looks.count(registry, "m", key(candidate, **of), f"version {candidate}", earlier)


def test_looks_are_numbered_and_the_same_two_models_keep_their_number(registry):
    assert [count(registry, name) for name in ("2", "3", "2", "4", "3")] == [1, 2, 1, 3, 2]
    assert len(registry.writes) == 6
    assert registry.tags[key("3")] == "look 2: version 3"


def test_other_images_and_another_champion_count_for_themselves(registry):
    count(registry, "2")
    assert count(registry, "2", images="held-out.0123456789abcdef") == 1
    assert count(registry, "2", images="test.0123456789abcde") == 1
    assert count(registry, "2", champion="3") == 2


def test_looks_of_before_they_had_tags_count_too(registry):
    assert looks.upcoming(registry, "m", key("2"), 4) == 5
    assert [count(registry, "2", earlier=4), count(registry, "3", earlier=4)] == [5, 6]
    assert looks.upcoming(registry, "m", key("4"), 4) == 7


def test_one_that_was_killed_before_it_had_a_number_stays_counted(registry, monkeypatch):
    real = registry.get_registered_model
    asked = []

    def dying(name):
        asked.append(name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(name)

    monkeypatch.setattr(registry, "get_registered_model", dying)
    with pytest.raises(KeyboardInterrupt):
        count(registry, "2")
    assert looks.recorded(registry, "m", key("2")) is None
    assert count(registry, "3") == 2
    assert looks.upcoming(registry, "m", key("2"), 0) == 2
    assert count(registry, "2") == 2


@pytest.mark.parametrize("text", ["x", "", "look x: y", "look 0: y", "look -1: y", "look 1", f"look {10**20}: y", "2"])
def test_a_tag_that_somebody_edited_is_a_look_all_the_same(registry, text):
    registry.tags |= {key("9"): text, f"{looks.LOOK}.{IMAGES}.anything": text, "promotion.looks": text}
    assert count(registry, "2") == 3
    assert count(registry, "9") == 3


def test_a_registry_that_does_not_show_what_was_written_gives_no_look(registry, monkeypatch):
    monkeypatch.setattr(registry, "set_registered_model_tag", lambda *words: None)
    words = f"the registry does not show the tag {key('2')} that was just written, so no look is taken"
    with pytest.raises(UnreachableError, match=f"^{re.escape(words)}$"):
        count(registry, "2")


@pytest.mark.parametrize("other", ["3", "2"])
@pytest.mark.parametrize("point", range(4))
def test_another_that_comes_in_between_takes_no_look_twice(registry, monkeypatch, point, other):
    """One reads, writes, reads, writes; before each of these the other, of other models or the same, does all of it."""
    calls, numbers = [], []
    for name in ("get_registered_model", "set_registered_model_tag"):
        real = getattr(registry, name)

        def coming_in(*words, real=real):
            calls.append(words)
            if len(calls) == point + 1:
                numbers.append(count(registry, other))
            return real(*words)

        monkeypatch.setattr(registry, name, coming_in)
    numbers.append(count(registry, "2"))
    if other == "2":
        assert numbers == [1, 1]
        assert count(registry, "2") == 1
    else:
        assert all(number >= place for place, number in enumerate(sorted(numbers), 1))
        assert sum(map(level_of, numbers)) <= level_of(1) + level_of(2)
    assert count(registry, "4") == len({"2", other}) + 1
