"""Which events go to MLflow in one request, and that a whole small run takes a handful of them."""

import pytest

from pipeline.delivery.batches import next_batch
from pipeline.delivery.delivery import ASKED, Delivery
from pipeline.delivery.opening import Known
from tests.fake_mlflow import Killed, gateway
from tests.recorded import artifact, dataset, end, metrics, model, resume, run_of, start, tags

LIGHT = (
    start(),
    dataset(),
    artifact("packages.txt"),
    artifact("config.yaml"),
    metrics(1),
    metrics(1, test_loss=0.5),
    model(""),
    tags(**{"mlflow.note.content": "ours"}),
    artifact("predictions.npz"),
    end(),
)


def events(*kinds):
    return [{"kind": kind, **content} for kind, content in kinds]


def kinds(found):
    together, index = found
    return [each["kind"] for each in together], index


def test_what_is_logged_goes_together_past_files_and_models_up_to_the_end():
    assert kinds(next_batch(events(*LIGHT), 0)) == (["start", "metrics", "metrics", "tags"], 9)
    assert kinds(next_batch(events(*LIGHT), 5)) == (["metrics", "tags"], 9)
    assert kinds(next_batch(events(*LIGHT), 9)) == ([], 9)
    assert kinds(next_batch(events(*LIGHT[:3]), 0)) == (["start"], 3)


def test_a_resumption_is_waited_for():
    assert kinds(next_batch(events(metrics(1), resume(), metrics(2)), 0)) == (["metrics"], 1)


@pytest.mark.parametrize(
    ("one", "fit"),
    [
        (("metrics", {"values": {f"m{k}": 1.0 for k in range(300)}, "step": 1}), 3),
        (("metrics", {"values": {f"m{k}": 1.0 for k in range(250)}, "step": 1}), 4),
        (("params", {"params": {f"p{k}": 1 for k in range(34)}}), 2),
        (("tags", {"tags": {f"t{k}": "1" for k in range(50)}}), 2),
        (("start", {"params": {}, "tags": {f"t{k}": "1" for k in range(97)}}), 1),
        (("start", {"params": {}, "tags": {f"t{k}": "1" for k in range(98)}}), 0),
        (("params", {"params": {f"p{k}": 1 for k in range(101)}}), 0),
    ],
)
def test_no_more_goes_together_than_mlflow_takes(one, fit):
    together, index = next_batch(events(*[one] * 6), 0)
    assert (len(together), index) == (fit, fit)


@pytest.fixture
def folder(tmp_path, address):
    return run_of(tmp_path / "runs/run", *LIGHT)


def names(fake):
    return [name for name, *_ in fake.calls if not name.startswith("log_artifact")]


FIRST = ["get_experiment_by_name", "create_experiment", "get_experiment", *["set_experiment_tag"] * 2]
EACH = ["create_run", "log_batch", "log_inputs"]
MODEL = ["create_logged_model", "log_outputs", "log_model_artifacts", "finalize_logged_model"]


def test_a_small_run_takes_one_call_each_to_begin_to_log_and_to_end(folder, fake, tmp_path):
    known = Known(since=0)
    Delivery(folder, fake, known).deliver()
    assert sorted(names(fake)) == sorted([*FIRST, *EACH, *MODEL, "set_terminated"])
    fake.calls.clear()
    Delivery(run_of(tmp_path / "runs/next", start(run_key="next"), *LIGHT[1:]), fake, known).deliver()
    assert names(fake) == [*EACH, *MODEL, "set_terminated"]
    record = fake.record()["runs"]
    assert {**record[0], "key": "", "tags": ""} == {**record[1], "key": "", "tags": "", "outputs": record[0]["outputs"]}


def test_a_run_that_began_before_this_process_is_looked_for(folder, fake):
    Delivery(folder, fake, Known(since=folder.events()[0]["time"] + 1)).deliver()
    assert len(fake.named("search_runs")) == 1  # for its doubles; its experiment there was not yet


@pytest.mark.parametrize("error", [Killed(), gateway()], ids=["killed", "answer lost"])
def test_once_its_creation_was_tried_a_run_is_looked_for_by_whoever_comes_next(folder, fake, error):
    fake.refuse = lambda name, *_: error if name == "create_run" else None
    known = Known(since=0)
    first = Delivery(folder, fake, known)
    with pytest.raises(type(error)):
        first.deliver()
    assert folder.state()[ASKED] is True
    fake.refuse = lambda *_: None
    fake.create_run("1", 0, {"pipeline.run": "key"}, "a run")  # its answer was lost
    one = first if isinstance(error, Exception) else Delivery(folder, fake, known)
    one.deliver()
    assert (one.run_id, len(fake.record()["runs"])) == ("run0002", 1)


def test_a_disk_that_does_not_take_that_it_was_tried_has_the_run_looked_for(folder, fake, monkeypatch):
    def full(self, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(folder), "write_state", full)
    Delivery(folder, fake, Known(since=0)).deliver()
    assert len(fake.named("search_runs")) == 1


def test_a_damaged_state_has_the_run_looked_for(folder, fake):
    (folder.path / "delivery.json").write_text("{")
    Delivery(folder, fake, Known(since=0)).deliver()
    assert len(fake.named("search_runs")) == 1


def test_an_edited_description_outlives_the_runs_own(tmp_path, fake, address):
    folder = run_of(tmp_path / "runs/run", *LIGHT[:5])
    one = Delivery(folder, fake, Known(since=0))
    one.deliver()
    fake.runs[one.run_id].data.tags["mlflow.note.content"] = "a person's"
    for event in LIGHT[5:]:
        run_of(folder.path, event)
    one.deliver()
    assert fake.runs[one.run_id].data.tags["mlflow.note.content"] == "a person's"


def test_of_a_param_and_a_tag_that_come_twice_mlflow_is_sent_one(tmp_path, fake, address):
    again = ("params", {"params": {"seed": 1, "more": "2"}})
    folder = run_of(tmp_path / "runs/run", start(), again, again, tags(note="2"), tags(note="3"), end())
    one = Delivery(folder, fake, Known(since=0))
    one.deliver()
    (batch,) = [options for name, _, options in fake.calls if name == "log_batch"]
    assert [(each.key, each.value) for each in batch["params"]] == [("epochs", "2"), ("seed", "1"), ("more", "2")]
    assert [(each.key, each.value) for each in batch["tags"]] == [("note", "3")]
    assert one.left == []
