"""Searches in MLflow: every page, any name, oldest first."""

from types import SimpleNamespace

import pytest
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList

from pipeline.analysis import store
from pipeline.mlflow_client import searches
from pipeline.mlflow_client.searches import condition
from tests.fake_model_registry import FakeRegistry


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("plain", "f = 'plain'"),
        ("it's", 'f = "it\'s"'),
        ('say "hi"', "f = 'say \"hi\"'"),
        ("""it's "both" """, ""),
        ("back\\slash", ""),
        ("nul\0", ""),
        ("", ""),
        ("50%; --", "f = '50%; --'"),
    ],
)
def test_a_value_stands_in_the_quotes_that_it_does_not_hold_or_in_no_filter(value, words):
    assert condition("f", value) == words


class Store:
    """2,500 runs, the newest first, in pages as MLflow gives them: at most as many as asked for."""

    def __init__(self, *runs):
        self.runs, self.asked = list(runs), []

    def search_runs(self, experiment_ids, filter_string, run_view_type, max_results, page_token):
        assert len(self.asked) < 5
        self.asked.append((experiment_ids, filter_string, run_view_type, max_results, page_token))
        start = int(page_token or 0)
        end = start + max_results
        return PagedList(self.runs[start:end], str(end) if end < len(self.runs) else None)

    def search_experiments(self, max_results=1000, page_token=None):
        return PagedList([SimpleNamespace(name="e", experiment_id="1")], None)


def run(number, name="", status="FINISHED", **tags):
    data = SimpleNamespace(tags=tags, params={"seed": str(number)}, metrics={"val_accuracy": 0.5})
    info = SimpleNamespace(run_id=f"id{number}", run_name=name, status=status, start_time=number, experiment_id="1")
    return SimpleNamespace(info=info, data=data, inputs=None)


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2000, 2500])
def test_every_page_of_runs_is_read_once(count):
    client = Store(*map(run, range(count)))
    assert searches.runs(client, ["1"], "f") == client.runs
    assert [asked[-1] for asked in client.asked] == [None, "1000", "2000"][: max(1, -(-count // 1000))]
    assert {(*asked[0], *asked[1:4]) for asked in client.asked} == {("1", "f", ViewType.ACTIVE_ONLY, 1000)}


def test_a_comparison_reads_the_runs_of_the_second_page_too():
    client = Store(*map(run, range(1500)))
    found = store.find_runs(client, ["e"])
    assert [each.run_id for each in found] == [f"id{number}" for number in range(1500)]


def test_the_question_of_an_experiment_is_found_on_the_second_page():
    client = Store(*map(run, range(1200)), run(1200, question="why"), run(1201, question="why"))
    assert store.parents_of(client, "1", "why")[0].info.run_id == "id1200"
    assert client.asked[0][:2] == (["1"], "tags.`question` = 'why'")
    assert store.parents_of(client, "1", "why not") == []


def test_runs_are_found_by_their_whole_name_wherever_they_stand():
    client = Store(*[run(number, "other") for number in range(1000)], run(1000, "mine"), run(1001, "mine too"))
    assert [each.info.run_id for each in searches.runs_named(client, ["1"], "mine")] == ["id1000"]
    assert client.asked[0][:2] == (["1"], "attributes.run_name = 'mine'")


def test_a_run_is_found_by_its_id_and_one_that_mlflow_does_not_have_is_none(monkeypatch):
    def dead(run_id):
        raise MlflowException("API request to http://here failed with exception Connection refused")

    registry = FakeRegistry()
    run = registry.add_run("r")
    assert searches.run_of_id(registry, "r") is run
    assert searches.run_of_id(registry, "s") is None
    monkeypatch.setattr(registry, "get_run", dead)
    with pytest.raises(MlflowException, match="Connection refused"):
        searches.run_of_id(registry, "r")


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_versions_come_by_number_from_every_page_of_this_model_and_run_only(page):
    registry = FakeRegistry("m", 2)
    registry.page = page
    for number in (10, 9, 100):
        registry.add("m", number).run_id = "mine"
        registry.add("other", number).run_id = "mine"
    assert [each.version for each in searches.versions(registry, "m")] == [1, 2, 9, 10, 100]
    assert [each.version for each in searches.versions(registry, "m", "mine")] == [9, 10, 100]
    assert {each.name for each in searches.versions(registry, "m")} == {"m"}
    assert {*registry.filters} == {"name = 'm'", "name = 'm' and run_id = 'mine'"}


def test_a_name_that_no_filter_can_say_is_looked_for_among_all():
    registry = FakeRegistry("a\\b", 1)
    registry.add("a", 1)
    registry.add("a\\b", 2)
    registry.add_model("one", "r\\1")
    registry.add_model("two", "r")
    assert [each.version for each in searches.versions(registry, "a\\b")] == [1, 2]
    assert [each.model_id for each in searches.logged_models(registry, "7", "r\\1")] == ["one"]
    assert registry.filters == [None, None, None]


def test_the_models_of_a_run_and_the_models_there_are_come_from_every_page():
    registry = FakeRegistry()
    for number in range(5):
        registry.add_model(str(number), "r" if number != 1 else "s")
        registry.aliases[f"m{number}"] = {}
    assert [each.model_id for each in searches.logged_models(registry, "7", "r")] == ["0", "2", "3", "4"]
    assert set(registry.filters) == {"source_run_id = 'r'"}
    assert [each.name for each in searches.models(registry)] == ["m", "m0", "m1", "m2", "m3", "m4"]
    assert [each.name for each in searches.experiments(Store())] == ["e"]
