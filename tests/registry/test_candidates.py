"""Which version a person means, and what a run without one gets."""

import re
from types import SimpleNamespace

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from pipeline.registry import candidates
from pipeline.registry.candidates import Entry
from pipeline.registry.versions import UnknownAliasError, UnknownModelError
from tests.fake_model_registry import FakeRegistry


@pytest.fixture
def registry():
    fake = FakeRegistry("m", 3, champion="1")
    for number in (1, 2, 3):
        fake.add_run(f"run{number}")
    return fake


def find(registry, target, dry_run=False):
    return candidates.find(registry, target, "m", "runs", dry_run=dry_run)


def test_a_number_the_newest_and_a_run_each_mean_a_version(registry):
    registry.entries[1].tags = {"a": "b"}
    second = Entry("2", "run2", "models:/m/2", {"a": "b"}, "models:/m-2")
    assert find(registry, "2") == find(registry, "run2") == second
    assert find(registry, "newest").version == "3"
    assert registry.writes == []


def test_of_two_versions_of_a_run_the_first_is_meant(registry):
    registry.add("m", 4).run_id = "run2"
    assert find(registry, "run2").version == "2"


def test_a_number_that_is_no_version_is_told_with_those_that_are(registry):
    with pytest.raises(UnknownModelError, match=r"^model m has no version 20 \(versions: 1, 2, 3\)$"):
        find(registry, "20")
    registry.entries[:2] = []
    with pytest.raises(UnknownModelError, match=r"^model m has no version 1 \(versions: 3\)$"):
        find(registry, "1")
    registry.entries.clear()
    registry.aliases["m"] = {}
    with pytest.raises(UnknownAliasError, match="model m has no alias 'champion'"):
        find(registry, "newest")
    with pytest.raises(UnknownModelError, match=r"no registered model 'x' \(models there: m; --model names one\)"):
        candidates.find(registry, "1", "x", "runs", dry_run=False)


def test_a_run_without_a_version_gets_one_of_its_model_and_what_is_known_of_it(registry):
    registry.add_run(
        "fresh",
        metrics={"test_accuracy": 0.875},
        params={"dataset": "mnist", "data_name": "mine", "validation_size": "9", "keep_best": "True"},
        digests=["d1", "d2"],
    )
    registry.add_model("m-fresh", "fresh")
    data = '{"dataset": "mnist", "data_dir": "data", "data_name": "mine"}'
    tags = {"test_accuracy": "0.875", "dataset": "mine", "data_digest": "d1", "data": data}
    tags |= {"validation_size": "9", "selected_by": "keep_best"}
    assert find(registry, "fresh", dry_run=True) == Entry("(new)", "fresh", "models:/m-fresh", tags, "models:/m-fresh")
    assert registry.writes == []
    assert find(registry, "fresh") == Entry("4", "fresh", "models:/m/4", tags, "models:/m-fresh")
    assert registry.writes == [
        ("version", "4", "models:/m-fresh", "fresh", {**tags, "run_id": "fresh"}, None, "m-fresh")
    ]
    assert find(registry, "fresh").version == "4"
    assert len(registry.writes) == 1


def test_a_run_of_an_experiment_was_selected_by_it(registry):
    params = {"validation_size": "9", "keep_best": "False", "early_stopping": "0"}
    registry.add_run("fresh", params=params).data.tags["mlflow.parentRunId"] = "experiment"
    registry.add_model("m-fresh", "fresh")
    tags = find(registry, "fresh").tags
    assert (tags["validation_size"], tags["selected_by"]) == ("9", "experiment")


@pytest.mark.parametrize(("params", "dataset"), [({"dataset": "digits", "data_name": ""}, "digits"), ({}, "")])
def test_a_run_of_which_little_is_known_gets_a_version_all_the_same(registry, params, dataset):
    registry.add_run("fresh", params=params)
    registry.add_model("m-fresh", "fresh")
    data = {"data": '{"dataset": "digits", "data_dir": "data", "data_name": ""}'} if params else {}
    assert find(registry, "fresh").tags == {"test_accuracy": "None", "dataset": dataset, "data_digest": "", **data}


def test_a_run_without_a_model_is_told(registry):
    registry.add_run("bare")
    with pytest.raises(UnknownModelError, match=r"^run bare \(name of bare, FINISHED\) has no model$"):
        find(registry, "bare")


@pytest.fixture
def folders(monkeypatch):
    """Folders of runs by name, as `find_folder` gives them: their state."""
    states = {}

    def find_folder(runs_dir, target):
        assert runs_dir in ("runs", "elsewhere")
        return SimpleNamespace(state=lambda: states[target], path=SimpleNamespace(name=f"folder-{target}"))

    monkeypatch.setattr(candidates, "find_folder", find_folder)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "http://bob:secret@here:5000")
    return states


def test_a_folder_of_a_run_means_the_run_that_it_became(registry, folders):
    folders["last"] = {"run_id": "run2"}
    assert find(registry, "last").version == "2"


def test_a_run_that_was_not_delivered_is_told_with_the_command_that_does(registry, folders):
    folders["last"] = {}
    words = "MLflow has not heard of run last yet; python -m pipeline sync folder-last delivers it"
    with pytest.raises(UnknownModelError, match=f"^{re.escape(words)}$"):
        find(registry, "last")
    words = words.replace(" delivers", " --runs_dir elsewhere delivers")
    with pytest.raises(UnknownModelError, match=f"^{re.escape(words)}$"):
        candidates.find(registry, "last", "m", "elsewhere", dry_run=False)


def test_a_run_of_another_store_is_told_without_secrets(registry, folders):
    folders["last"] = {"run_id": "elsewhere", "tracking_uri": "http://eve:secret@there:5000"}
    words = "run last was recorded in http://there:5000; http://here:5000 does not have it: set MLFLOW_TRACKING_URI"
    with pytest.raises(UnknownModelError, match=f"^{re.escape(words)}$"):
        find(registry, "last")


@pytest.mark.parametrize("dies_at", [1, 2])
def test_a_registry_that_does_not_answer_is_no_run_that_is_missing(registry, folders, monkeypatch, dies_at):
    folders["last"] = {"run_id": "elsewhere"}
    real, asked = registry.get_run, []

    def dying(run_id):
        asked.append(run_id)
        if len(asked) == dies_at:
            raise MlflowException("API request to http://here failed with exception Connection refused")
        return real(run_id)

    monkeypatch.setattr(registry, "get_run", dying)
    with pytest.raises(MlflowException, match="Connection refused"):
        find(registry, "last")
