"""A run that MLflow does not take as a whole: why in one line, what to do about it, and how the delivery goes on."""

import os

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from pipeline.delivery.delivery import BlockedError, Delivery, LeftError
from pipeline.mlflow_client import connection
from tests import recorded
from tests.fake_mlflow import FakeMlflow, gateway, refusal
from tests.recorded import Held, artifact, end, metrics, start, tags

NOT_THERE = refusal(RESOURCE_DOES_NOT_EXIST)


@pytest.fixture(autouse=True)
def secret(address):
    """An address with a password, which is told without it."""
    mlflow.set_tracking_uri("http://bob:secret@mlflow.test")


@pytest.fixture
def held(tmp_path):
    def make(*events, **about):
        return Held(tmp_path / "others/one two", start(**about), *events)

    return make


def blocked(delivery, act="deliver"):
    """The reason and the advice."""
    with pytest.raises(BlockedError) as caught:
        getattr(delivery, act)()
    return str(caught.value), caught.value.advice


def sync(more):
    return f"python -m pipeline sync 'one two'{more} --runs_dir others"


def as_new():
    return f"send it as a new run: {sync(' --as-new')}"


def then():
    return f"then: {sync('')}; or {as_new()}"


def begun(fake, folder):
    """A delivery of the run's start and first metrics."""
    delivery = Delivery(folder, fake)
    delivery.deliver()
    folder.held += Held(folder.path, *[("none", {})] * 2, metrics(2), end()).held[2:]
    return delivery


@pytest.mark.parametrize("act", ["deliver", "check"])
def test_a_run_that_is_deleted_is_restored_or_sent_anew(fake, held, act):
    folder = held(metrics(1))
    delivery = begun(fake, folder)
    fake.delete_run(delivery.run_id)
    advice = f"mlflow runs restore --run-id {delivery.run_id}, {then()}"
    assert blocked(delivery, act) == (f"run {delivery.run_id} is deleted in MLflow", advice)
    assert delivery.delivered == 2
    fake.runs[delivery.run_id].info.lifecycle_stage = "active"
    delivery.check()
    delivery.deliver()
    assert fake.record()["runs"][0]["status"] == "FINISHED"


def test_an_experiment_that_is_deleted_is_restored_or_the_run_sent_anew(fake, held):
    folder = held(metrics(1), experiment_name="it's here")
    delivery = begun(fake, folder)
    (experiment,) = fake.experiments.values()
    experiment.lifecycle_stage = fake.runs[delivery.run_id].info.lifecycle_stage = "deleted"
    advice = f"mlflow experiments restore -x {experiment.experiment_id}, {then()}"
    assert blocked(delivery) == ("""experiment "it's here" is deleted in MLflow""", advice)


@pytest.mark.parametrize("about", ["experiment_id", "experiment_name"])
def test_so_is_one_that_was_deleted_before_the_run_began(fake, held, about):
    identity = fake.create_experiment("here")
    folder = held(metrics(1), **({about: identity} if about == "experiment_id" else {}))
    fake.experiments[identity].lifecycle_stage = "deleted"
    advice = f"mlflow experiments restore -x {identity}, {then()}"
    assert blocked(Delivery(folder, fake)) == ("experiment 'here' is deleted in MLflow", advice)
    fake.experiments[identity].lifecycle_stage = "active"
    Delivery(folder, fake).deliver()
    assert fake.record()["runs"][0]["experiment"] == "here"


@pytest.mark.parametrize("act", ["deliver", "check"])
def test_a_run_that_the_store_does_not_know_is_sent_anew(fake, held, act):
    folder = held(metrics(1))
    delivery = begun(fake, folder)
    fake.runs.clear()
    told = f"http://mlflow.test does not know run {delivery.run_id} (any more)"
    assert blocked(delivery, act) == (told, as_new())
    folder.write_state({**folder.state(), "tracking_uri": "sqlite:////elsewhere.db"})
    told = f"http://mlflow.test does not know run {delivery.run_id}; it went to sqlite:////elsewhere.db"
    assert blocked(Delivery(folder, fake), act) == (told, as_new())


def test_a_run_whose_experiment_cannot_be_is_sent_elsewhere(fake, held):
    folder = held(metrics(1), experiment_id="77")
    advice = f"send it elsewhere: {sync(' --experiment_name NAME')}"
    assert blocked(Delivery(folder, fake)) == ("MLflow does not take the run: MlflowException: no", advice)
    folder = held(metrics(1))
    fake.refuse = lambda name, words, options: refusal() if name == "create_experiment" else None
    assert blocked(Delivery(folder, fake))[0] == "MLflow does not take the run: MlflowException: no"


def test_a_first_record_that_is_damaged_says_so_and_asks_nobody(fake, tmp_path):
    lost = ("lost", {"was": "start", "about": "start"})
    folder = Held(tmp_path / "run", lost, metrics(1))
    reason = "its first record, which says what run this is, is damaged"
    assert blocked(Delivery(folder, fake)) == (reason, "the rest stays in the folder, to be read")
    assert fake.calls == []
    run = FakeMlflow.create_run(fake, fake.create_experiment("here"), 0, {"pipeline.run": "key"}, "a run")
    folder.write_state({"run_id": run.info.run_id, "delivered": 1, "elsewhere": {"keep_experiment_id": True}})
    folder.held.append({**folder.held[1], "kind": "end", "status": "FINISHED", "tags": {}, "n": 2})
    Delivery(folder, fake).deliver()  # what run it is stands in the state
    assert (run.data.metrics, run.info.status) == ({"train_loss": 1.0, "val_loss": 2.0}, "FINISHED")
    assert folder.state()["experiment_id"] == ""


def test_a_record_without_an_event_is_delivered(fake, tmp_path):
    delivery = Delivery(Held(tmp_path / "run"), fake)
    delivery.deliver()
    delivery.check()
    assert (fake.calls, delivery.delivered) == ([], 0)


def test_a_store_that_falls_silent_while_it_is_asked_why_is_not_taken_at_its_word(fake, held):
    folder = held(metrics(1))
    delivery = begun(fake, folder)
    folder.held[2:] = Held(folder.path, *[("none", {})] * 2, recorded.dataset()).held[2:]
    fake.delete_run(delivery.run_id)
    error = refusal()
    answers = {"log_inputs": error, "get_run": gateway(502)}
    fake.refuse = lambda name, words, options: answers.get(name)
    with pytest.raises(MlflowException) as caught:
        delivery.deliver()
    assert caught.value is error
    assert delivery.delivered == 2


def test_a_word_for_now_is_no_word_on_the_run(fake, held):
    folder = held(metrics(1))
    delivery = begun(fake, folder)
    fake.delete_run(delivery.run_id)
    fake.refuse = lambda name, words, options: gateway(403) if name == "log_batch" else None
    with pytest.raises(MlflowException, match="too many 403"):
        delivery.deliver()


@pytest.mark.parametrize(
    ("error", "longer"),
    [
        (MlflowException("API request to http://x failed with timeout exception read timeout=10."), True),
        (requests.Timeout("silence"), True),
        (gateway(502), False),
        (requests.ConnectionError("refused"), False),
    ],
)
def test_after_silence_the_next_answer_may_take_twice_as_long(fake, held, monkeypatch, error, longer):
    monkeypatch.setenv(connection.TIMEOUT, "10")
    fake.refuse = lambda name, words, options: error
    for seconds in ("20", "40") if longer else ("10", "10"):
        with pytest.raises(type(error)):
            Delivery(held(metrics(1)), fake).deliver()
        assert os.environ[connection.TIMEOUT] == seconds


def test_within_a_delivery_mlflows_client_repeats_nothing_by_itself(fake, held, monkeypatch):
    monkeypatch.setenv(connection.RETRIES, "5")
    seen = set()
    fake.refuse = lambda name, words, options: seen.add(os.environ[connection.RETRIES])
    Delivery(held(metrics(1), artifact("a.txt"), end()), fake).deliver()
    assert (seen, os.environ[connection.RETRIES]) == ({"0"}, "5")


def test_what_the_state_says_of_the_delivery(fake, held, monkeypatch):
    folder = held(tags(**{"never": "1"}), metrics(1), artifact("a.txt"), recorded.model(), end())
    fake.refuse = lambda name, words, options: gateway(404) if name == "log_artifact" else None
    with pytest.raises(LeftError, match=r"^artifact: http://mlflow.test answers 404$"):
        Delivery(folder, fake).deliver()
    bad = {"event": 1, "words": "tags never: MlflowException: a key is not allowed", "final": True, "names": ["never"]}
    waits = {"event": 3, "words": "artifact: http://mlflow.test answers 404", "final": False, "names": []}
    assert folder.state() == {
        "run_id": "run0002",
        "experiment_id": "1",
        "delivered": 6,
        "refused": [bad, waits],
        "told": bad["words"],
        "versions": {"digits-mlp": "1"},
        "tracking_uri": "http://mlflow.test",
        "trouble": None,
    }
    again = Delivery(folder, fake)
    assert (again.delivered, again.run_id, again.writer.experiment_id) == (6, "run0002", "1")
    assert (again.writer.versions, again.done) == ({"digits-mlp": "1"}, 4)


def test_a_state_that_a_full_disk_does_not_take_stops_nothing(fake, held, monkeypatch):
    def full(self, state):
        raise OSError(28, "No space left on device")

    folder = held(metrics(1), artifact("a.txt"), end())
    monkeypatch.setattr(type(folder), "write_state", full)
    delivery = Delivery(folder, fake)
    delivery.deliver()
    assert (delivery.delivered, fake.record()["runs"][0]["status"]) == (4, "FINISHED")


def test_refusals_that_an_older_version_noted_as_words_are_sent_again_by_retry(fake, held):
    folder = held(metrics(1), end())
    Delivery(folder, fake).deliver()
    state = folder.state()
    fake.runs[state["run_id"]].data.tags["pipeline.refused"] = "metrics: no"
    fake.runs[state["run_id"]].info.status = "FAILED"
    fake.runs[state["run_id"]].history.clear()
    fake.runs[state["run_id"]].data.params.clear()
    del state["told"]
    folder.write_state({**state, "refused": ["metrics: no"]})
    delivery = Delivery(folder, fake)
    delivery.deliver()
    assert (delivery.of_unknown_events, delivery.delivered, delivery.left) == (["metrics: no"], 3, [])
    assert fake.runs[state["run_id"]].history == {}
    assert fake.record()["runs"][0]["status"] == "FAILED"
    assert fake.record()["runs"][0]["tags"]["pipeline.refused"] == "metrics: no"
    delivery.deliver(retry=True)
    run = fake.record()["runs"][0]
    assert (run["status"], list(run["metrics"])) == ("FINISHED", ["train_loss", "val_loss"])
    assert run["params"] == {"epochs": "2", "seed": "1"}
    assert "pipeline.refused" not in run["tags"]
    assert folder.state()["refused"] == []


def test_a_journal_that_was_cut_is_delivered_from_its_end_on(fake, held):
    folder = held(metrics(1), metrics(2), end())
    Delivery(folder, fake).deliver()
    del folder.held[2:]
    delivery = Delivery(folder, fake)
    delivery.deliver()
    assert delivery.delivered == 2


def test_a_reason_of_the_trainings_own_is_neither_overwritten_nor_taken_away(fake, held):
    folder = held(metrics(1, **{"never": 1.0}), end("FAILED", failure_reason="it diverged"))
    delivery = Delivery(folder, fake)
    delivery.deliver()
    run = fake.record()["runs"][0]
    assert (run["status"], run["tags"]["failure_reason"]) == ("FAILED", "it diverged")
    assert run["tags"]["pipeline.refused"] == "metrics never: MlflowException: a key is not allowed"
    folder.held[1]["values"] = {"fine": 1.0}
    delivery.left = [delivery.left[0].__class__(1, "", True, ["fine"])]
    delivery.deliver(retry=True)
    run = fake.record()["runs"][0]
    assert (run["status"], run["tags"]["failure_reason"]) == ("FAILED", "it diverged")
    assert "pipeline.refused" not in run["tags"]


def test_a_run_that_goes_on_is_not_called_failed_before_it_ends(fake, held):
    folder = held(metrics(1, **{"never": 1.0}), end("KILLED"), recorded.resume())
    Delivery(folder, fake).deliver()
    run = fake.record()["runs"][0]
    assert run["status"] == "RUNNING"
    folder.held.append({"kind": "end", "time": 7, "status": "FINISHED", "tags": {}})
    Delivery(folder, fake).deliver()
    run = fake.record()["runs"][0]
    assert (run["status"], run["end_time"]) == ("FAILED", 7)
    assert run["tags"]["pipeline.refused"] == "metrics never: MlflowException: a key is not allowed"


def test_a_record_sent_elsewhere_begins_there_with_its_own_key(fake, held):
    folder = held(metrics(1), end(), experiment_id=fake.create_experiment("here"), mlflow_run_id="run of mlflow")
    folder.write_state({"elsewhere": {"run_key": "new", "experiment_name": "there", "keep_experiment_id": False}})
    Delivery(folder, fake).deliver()
    (run,) = fake.record()["runs"]
    assert (run["key"], run["experiment"], run["status"]) == ("run of new", "there", "FINISHED")
    assert folder.state()["elsewhere"]["run_key"] == "new"
    folder.write_state({"elsewhere": {"run_key": "newer", "keep_experiment_id": True}})
    Delivery(folder, fake).deliver()
    assert [(run["key"], run["experiment"]) for run in fake.record()["runs"]][1] == ("run of newer", "here")


def test_what_waited_in_the_state_of_an_older_version_arrives_and_its_words_are_taken_back(fake, held):
    folder = held(artifact("a.txt"), end())
    fake.refuse = lambda name, words, options: gateway(404) if name == "log_artifact" else None
    with pytest.raises(LeftError):
        Delivery(folder, fake).deliver()
    state = folder.state()
    assert state.pop("told") == ""
    folder.write_state(state)
    fake.runs[state["run_id"]].data.tags["pipeline.refused"] = "artifact: no"
    fake.refuse = lambda name, words, options: None
    Delivery(folder, fake).deliver()
    assert "pipeline.refused" not in fake.record()["runs"][0]["tags"]
    assert fake.record()["runs"][0]["artifacts"] != {}


def test_the_state_of_a_run_that_goes_on_is_one_that_is_read_again(fake, held):
    folder = held(metrics(1))
    Delivery(folder, fake).deliver()
    assert folder.state() == {
        "run_id": "run0002",
        "experiment_id": "1",
        "delivered": 2,
        "refused": [],
        "told": "",
        "versions": {},
        "tracking_uri": "http://mlflow.test",
        "trouble": None,
    }
