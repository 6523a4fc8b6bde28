"""Whatever becomes of alias, versions and registry: what serves had the alias at the last look that went well."""

import logging
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.registry.versions import NotServableError
from pipeline.serving import alias_watcher as module
from pipeline.serving.alias_watcher import Identity, identity_of
from tests.asgi import counted
from tests.fake_registry import Registry, look, watcher_of


def test_nothing_serves_before_the_first_look(registry):
    watcher = watcher_of(registry)
    assert (watcher.current, watcher.trouble) == (None, None)
    assert (watcher.name, watcher.alias, watcher.poll_s) == ("digits", "champion", 1.0)


EVENTS = st.one_of(
    st.tuples(st.just("move"), st.sampled_from("1234")),
    st.tuples(st.just("new"), st.sampled_from("1234")),
    st.tuples(st.just("broken"), st.sampled_from("1234")),
    st.tuples(st.just("delete"), st.sampled_from("1234")),
    st.tuples(st.sampled_from(["no alias", "no model", "away", "back"]), st.just("")),
)


@settings(max_examples=50)
@given(st.lists(EVENTS, max_size=15))
def test_whatever_happens_what_serves_is_what_had_the_alias_at_the_last_look_that_went_well(events):
    registry = Registry()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load", registry.load)
        watcher, serving = watcher_of(registry), None
        for event, version in events:
            if event in ("new", "broken"):
                registry.new(version)
                registry.broken |= {registry.entries[version].run_id} if event == "broken" else set()
            elif event == "delete":
                registry.entries.pop(version, None)
            elif event == "move":
                registry.champion = version
            elif event == "no model":
                registry.entries.clear()
            elif event == "no alias":
                registry.champion = None
            else:
                registry.away = event == "away"
            look(watcher)
            entry = registry.entries.get(registry.champion)
            well = bool(entry) and not registry.away and entry.run_id not in registry.broken
            serving = entry if well else serving
            assert (watcher.trouble is None) == well
            if serving is None:
                assert watcher.current is None
            else:
                assert (watcher.current.version, watcher.current.run_id) == (serving.version, serving.run_id)
                one = {f'{{model="digits",version="{serving.version}"}}': 1}
                assert counted(watcher, "model_version") == one
            assert counted(watcher, "following") == ({"": 1} if well else {})
        assert len(set(registry.opened) - registry.broken) <= counted(watcher, "model_exchanges_total").get("", 0)


def test_the_version_of_the_alias_is_opened_once_and_told(registry, caplog):
    caplog.set_level(logging.INFO, "pipeline.serving")
    registry.new("1")
    registry.new("2")
    registry.champion = "1"
    watcher = watcher_of(registry)
    for _ in range(3):
        watcher.look()
    assert registry.opened == ["run1"]
    registry.champion = "2"
    watcher.look()
    assert (watcher.current.version, registry.opened) == ("2", ["run1", "run2"])
    assert counted(watcher, "model_exchanges_total") == {"": 2}
    assert {record.getMessage() for record in caplog.records} == {"model exchanged"}
    told = [(record.model, record.version, record.run_id, record.before) for record in caplog.records]
    assert told == [("digits", "1", "run1", None), ("digits", "2", "run2", "1")]


def test_a_request_that_has_taken_a_version_keeps_it(registry):
    registry.new("1")
    registry.new("2")
    registry.champion = "1"
    watcher = watcher_of(registry)
    watcher.look()
    taken = watcher.current
    registry.champion = "2"
    watcher.look()
    assert (taken.version, watcher.current.version) == ("1", "2")


@pytest.mark.parametrize("fact", ["version", "run_id", "model_id", "source", "creation_timestamp"])
def test_what_differs_in_anything_is_another_version(fact):
    facts = {"version": "1", "run_id": "r", "model_id": "m", "source": "s", "creation_timestamp": 1}
    other = facts | {fact: 2 if fact == "creation_timestamp" else "2"}
    assert identity_of(SimpleNamespace(**facts)) == identity_of(SimpleNamespace(**facts))
    assert identity_of(SimpleNamespace(**facts)) != identity_of(SimpleNamespace(**other))


def test_an_identity_holds_what_the_registry_says_and_nothing_where_it_says_nothing():
    said = SimpleNamespace(version=3, run_id="r", model_id="m", source="s", creation_timestamp="17")
    assert identity_of(said) == Identity(version="3", run_id="r", model_id="m", source="s", created=17)
    silent = SimpleNamespace(version=3, run_id=None, source=None, creation_timestamp=None)
    assert identity_of(silent) == Identity("3", "", "", "", 0)
    assert identity_of(SimpleNamespace(**vars(silent), model_id=None)) == Identity("3", "", "", "", 0)


def test_a_version_made_anew_under_its_number_is_exchanged(registry):
    registry.new("1")
    registry.champion = "1"
    watcher = watcher_of(registry)
    watcher.look()
    registry.new("1")
    watcher.look()
    assert (watcher.current.version, watcher.current.run_id) == ("1", "run2")


def test_three_versions_stay_open_and_a_fourth_closes_the_first(registry):
    for version in "1234":
        registry.new(version)
    watcher = watcher_of(registry)
    for version in "12312341":
        registry.champion = version
        watcher.look()
        assert watcher.current.version == version
    assert registry.opened == ["run1", "run2", "run3", "run4", "run1"]


def test_the_versions_that_served_last_stay_open(registry):
    for version in "1234":
        registry.new(version)
    watcher = watcher_of(registry)
    for version in "12314121":
        registry.champion = version
        watcher.look()
    assert registry.opened == ["run1", "run2", "run3", "run4", "run2"]


def test_a_version_that_was_made_anew_while_it_was_fetched_does_not_serve(registry):
    registry.new("1")
    registry.champion = "1"
    watcher = watcher_of(registry)
    watcher.look()
    registry.new("2")
    registry.champion = "2"
    opening = registry.load

    def slow(*arguments):
        loaded = opening(*arguments)
        registry.new("2")
        return loaded

    registry.load = slow
    with pytest.raises(NotServableError) as told:
        watcher.look()
    assert str(told.value) == "digits version 2 was made anew while it was fetched"
    assert watcher.current.version == "1"
    registry.load = opening
    watcher.look()
    assert (watcher.current.version, watcher.current.run_id) == ("2", "run3")
