"""A delivery that is stopped at any call, and begun again, leaves the record that an undisturbed one leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests import ConnectionError, Timeout

from pipeline.delivery import delivery as delivery_module
from pipeline.delivery.delivery import Delivery
from tests.fake_mlflow import FakeMlflow, Killed, gateway
from tests.recorded import WHOLE, Held, artifact, dataset, end, metrics, model, resume, run_of, start, tags

pytestmark = pytest.mark.usefixtures("address")


@pytest.fixture
def folder(tmp_path):
    return run_of(tmp_path / "runs/run", *WHOLE)


def undisturbed(folder):
    """The store after a delivery that nothing disturbed."""
    fake = FakeMlflow()
    folder.write_state({})
    Delivery(folder, fake).deliver()
    return fake


def delivered(folder, fake, tries=9):
    """Deliver as an uploader does: again after an answer that was lost, as another process after a death."""
    delivery = Delivery(folder, fake)
    for _ in range(tries):
        try:
            delivery.deliver()
        except Killed:
            delivery = Delivery(folder, fake)
        except Exception:
            continue
        else:
            return delivery
    raise AssertionError("never delivered")


def disturbed(folder, faults):
    """The store after a delivery with these faults."""
    fake = FakeMlflow()
    fake.faults = dict(faults)
    folder.write_state({})
    delivery = delivered(folder, fake)
    assert (delivery.left, folder.state()["delivered"], folder.state()["refused"]) == ([], len(folder.events()), [])
    return fake


def test_a_whole_run_arrives_with_all_of_its_parts(folder):
    record = undisturbed(folder).record()
    (run,) = record["runs"]
    times = [event["time"] for event in folder.events()]
    assert (run["run_name"], run["status"], run["experiment"]) == ("a run", "FINISHED", "here")
    assert (run["start_time"], run["end_time"]) == (times[0], times[-1])
    assert run["params"] == {"epochs": "2", "seed": "1"}
    assert run["tags"] == {
        "pipeline.run": "key",
        "mlflow.runName": "a run",
        "note": "third",
        "only": "once",
        "failure_reason": "Ctrl-C",
        "resumed_after_epoch": "1",
        "mlflow.note.content": "ours",
    }
    assert run["metrics"] == {
        "train_loss": [(1, 1.0, times[3]), (2, 0.5, times[7])],
        "val_loss": [(1, 2.0, times[3]), (2, 1.0, times[7])],
    }
    assert run["artifacts"] == {
        str(file.relative_to(folder.artifacts)): file.read_bytes()
        for file in folder.artifacts.rglob("*")
        if file.is_file()
    }
    assert run["datasets"] == {("digits-training", "1234"): "training"}
    assert run["outputs"] == ["model of run of key"]
    assert record["models"] == [("model of run of key", "model", "READY", {"network": b"a network of 1,000 weights"})]
    about = {"dataset": "digits", "run_id": "run of key", "first_champion": "true"}
    assert record["versions"] == [("digits-mlp", "1", "models:/model of run of key", "run of key", about, "good")]
    assert record["aliases"] == {"digits-mlp": {"champion": "1"}}


def test_each_event_goes_up_once_and_in_the_order_of_the_journal(folder):
    fake = undisturbed(folder)
    assert fake.uploads == [
        "packages.txt",
        "checkpoint/last.ckpt",
        "pictures/below/second.txt",
        "pictures/first.txt",
        "network",
    ]
    steps = [options["metrics"][0].step for name, _, options in fake.calls if options.get("metrics")]
    assert steps == [1, 2]
    written = ("log_inputs", "log_artifact", "set_terminated", "update_run", "create_model_version")
    names = [
        name if name in written else "metrics"
        for name, _, options in fake.calls
        if name in written or options.get("metrics")
    ]
    assert names == [  # but for params, metrics and tags up to the next end, which go before
        "metrics",
        "log_inputs",
        "log_artifact",
        "set_terminated",
        "update_run",
        "metrics",
        "log_artifact",
        "log_artifact",
        "create_model_version",
        "set_terminated",
    ]


def test_what_is_delivered_is_not_sent_again_by_this_process_or_another(folder):
    fake = undisturbed(folder)
    fake.calls.clear()
    delivery = Delivery(folder, fake)
    delivery.deliver()
    delivery.deliver()
    assert (fake.calls, delivery.run_id, delivery.writer.versions) == ([], "run0002", {"digits-mlp": "1"})


def test_what_takes_long_is_written_down_as_it_is_done_and_what_does_not_once(folder, monkeypatch):
    written = []
    real = type(folder).write_state
    monkeypatch.setattr(type(folder), "write_state", lambda self, state: (written.append(state), real(self, state)))
    undisturbed(folder)
    few = [state.get("delivered") for state in written[1:]]
    assert few[-1] == len(WHOLE)
    assert len(few) <= 5  # the run's id, the second batch, the end
    written.clear()
    monkeypatch.setattr(delivery_module, "SAVE_EACH_S", -1.0)
    undisturbed(folder)
    assert {state.get("delivered") for state in written[1:]} == {None, *range(len(WHOLE) + 1)} - {None}


@pytest.mark.parametrize("when", ["before", "amid", "after"])
@pytest.mark.parametrize("error", [Killed(), gateway(502), gateway(403)], ids=["killed", "answer lost", "forbidden"])
def test_stopped_at_any_call_and_begun_again_it_leaves_the_same_record(folder, when, error, monkeypatch):
    monkeypatch.setattr(delivery_module, "SAVE_EACH_S", -1.0)  # as where every file takes long
    whole = undisturbed(folder)
    wanted, others = whole.record(), []
    for number, (name, _, _) in enumerate(whole.calls):
        if when != "amid" or name.startswith("log_"):
            fake = disturbed(folder, {number: (when, error)})
            if fake.record() != wanted or len(fake.uploads) > len(whole.uploads) + 2:
                others.append((number, name))
    assert others == []


STOPS = [Killed(), gateway(502), gateway(403), gateway(429), Timeout(), ConnectionError("reset")]
KINDS = [
    dataset(),
    dataset("digits-testing", "5678", "testing"),
    artifact("packages.txt"),
    artifact("pictures"),
    metrics(1),
    metrics(2),
    metrics(1, test_loss=0.5),
    tags(note="second"),
    tags(note="third", other="1"),
    tags(other="2"),
    end("KILLED", failure_reason="Ctrl-C"),
    resume(resumed_after_epoch="1"),
    resume(note="resumed"),
    model(),
    model(""),
    end(),
]


@given(
    st.lists(st.sampled_from(KINDS), max_size=8),
    st.dictionaries(
        st.integers(0, 60), st.tuples(st.sampled_from(["before", "amid", "after"]), st.sampled_from(STOPS)), max_size=6
    ),
)
def test_any_record_through_any_stops_is_the_record_that_it_is_without_them(tmp_path_factory, events, faults):
    folder = Held(tmp_path_factory.getbasetemp() / "held", start(), *events)
    assert disturbed(folder, faults).record() == undisturbed(folder).record()


def test_a_crowning_that_was_cut_off_is_not_made_up_for_once_somebody_has_taken_the_crown_away(folder):
    (number,) = [number for number, call in enumerate(undisturbed(folder).calls) if call[0] == "set_model_version_tag"]
    fake = disturbed(folder, {number: ("before", Killed())})
    del fake.registered["digits-mlp"].aliases["champion"]
    folder.write_state({})
    Delivery(folder, fake).deliver()
    assert fake.record()["aliases"] == {"digits-mlp": {}}
