"""An experiment's plan: which runs it asks for, in what order, what is there of each, and what is no answer."""

import os
from itertools import count
from types import SimpleNamespace

import pytest

from pipeline.config import RunConfig
from pipeline.experiments import plan as planning
from pipeline.experiments.spec import read_question
from pipeline.experiments.trial import data_of
from pipeline.tracking.folders import new_folder
from pipeline.tracking.journal import Journal, RunIsAliveError
from pipeline.tracking.recovery import DIED
from tests.trials import ALL, BASE, CODE, DIGEST, DIVERGED, TRIAL, WHY, NotedUploader, record, trial

__all__ = ["trial"]


def plan(data=DIGEST, parent=None):
    """The plan of the trial, as the subcommand makes it."""
    question = read_question("trial.yaml", runs_dir="runs")
    digests = {data_of(config): data for config in question.variants.values()}
    parent = parent or new_folder("runs")
    Journal(parent).close()
    origins = planning.origins(question, digests)
    return planning.plan(question, origins, "runs", parent, NotedUploader(parent)), parent


def first():
    """The first run of the plan: `none seed=2`."""
    return plan()[0][0]


def test_every_seed_is_taken_with_every_variant_in_the_order_of_the_file(trial):
    children, _ = plan()
    assert [child.name for child in children] == ALL
    assert {(child.state, child.folder, child.epochs_done, child.reason) for child in children} == {
        ("missing", None, 0, "")
    }
    half = children[1]
    knobs = {"dropout": 0.5, "seed": 2, "run_name": "half seed=2", "experiment_name": "trial"}
    assert half.config == RunConfig(**BASE, **knobs)
    assert (half.variant, half.seed) == ("half", 2)
    assert half.tags == {"experiment": "trial", "variant": "half", "seed": "2"}


def test_a_finished_run_of_the_same_knobs_data_and_code_is_not_trained_again(trial):
    there = record("half", 1)
    children, _ = plan()
    assert [child.state for child in children] == ["missing", "missing", "missing", "finished"]
    assert (children[3].folder.path, children[3].epochs_done) == (there.path, 3)
    assert children[3].ended
    assert trial.notes == [(there.path.name, 99)]


def test_the_code_of_a_variant_is_read_once_for_all_its_seeds(trial, monkeypatch):
    read = []
    monkeypatch.setattr(planning, "code_digest", lambda own: read.append(own) or CODE)
    record_file(TRIAL.replace("[2, 1]", "[1, 2, 3, 4, 5]").replace("half:", "off: {dropout: 0.1}\n  half:"))
    children, _ = plan()
    assert (len(children), len(read)) == (15, 3)


# Of every knob that decides numbers another value than the trial's.
OTHERS = {
    "dataset": "mnist", "data_name": "mine", "validation_size": 301, "epochs": 4, "batch_size": 129, "dropout": 1e-300,
    "hidden_units": 513, "hidden_layers": 3, "optimizer": "sgd", "learning_rate": 0.0010000000000000002, "rho": 0.91,
    "epsilon": 1e-8, "momentum": 0.5, "early_stopping": 1, "keep_best": True, "on_divergence": "continue", "seed": 3,
    "weight_decay": 0.5, "schedule": "step", "gradient_clip": 1.0, "augment": "shift", "metric": "macro_f1",
    "callback": "my:Callback", "validation_seed": 1,
    "accelerator": "cpu", "devices": "1", "strategy": "ddp", "precision": "64-true", "matmul_precision": "highest",
}  # fmt: skip
FREE = {
    "data_dir": "x",
    "run_name": "x",
    "experiment_name": "x",
    "model_name": "x",
    "runs_dir": "x",
    "verbose": "0",
    "record": "full",
    "num_nodes": 2,
}


def test_every_knob_decides_or_is_free():
    assert {*OTHERS, *FREE, "network"} == set(RunConfig().as_dict())
    assert not set(OTHERS) & set(FREE)


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_of_other_knobs_is_no_answer(trial, name):
    other = {name: OTHERS[name], **({"dataset": "mnist"} if name == "data_name" else {})}
    record(knobs=other)
    assert {child.state for child in plan()[0]} == {"missing"}


@pytest.mark.parametrize("name", FREE)
def test_where_a_run_lay_and_what_it_was_called_does_not_matter(trial, name):
    record(knobs={name: FREE[name]})
    assert first().state == "finished"


@pytest.mark.parametrize(
    "other",
    [
        {"tags": {"code": "code-2"}},
        {"digest": "data-2"},
        {"digest": None},
        {"tags": {"experiment": "another"}},
        {"tags": {"variant": "half"}},
        {"tags": {"question": "trial"}},
    ],
    ids=["other code", "other data", "no data looked at", "other experiment", "other variant", "a question's own run"],
)
@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
def test_a_run_of_anything_else_is_no_answer_and_is_not_gone_on_with(trial, other, status):
    record(status=status, **other)
    assert {child.state for child in plan()[0]} == {"missing"}


def test_the_data_that_lie_here_now_decide(trial):
    record()
    assert plan("data-2")[0][0].state == "missing"


def test_a_run_that_another_user_alone_may_write_is_no_answer(trial, monkeypatch):
    there, allowed = record(), os.access
    monkeypatch.setattr(
        "os.access", lambda path, mode: not (path == there.path and mode == os.W_OK) and allowed(path, mode)
    )
    assert first().state == "missing"


def test_of_two_runs_of_the_same_the_newest_counts(trial):
    record(status="KILLED", epochs=1)
    newest = record(epochs=2)
    assert (first().folder.path, first().state) == (newest.path, "finished")


@pytest.mark.parametrize(
    ("status", "other", "state", "reason"),
    [
        ("FINISHED", {}, "finished", ""),
        ("KILLED", {"reason": "Ctrl-C"}, "interrupted", ""),
        ("FAILED", {"reason": "OSError: x"}, "interrupted", ""),
        ("FAILED", {"diverged": True, "reason": WHY}, "diverged", WHY),
        ("FAILED", {"diverged": True}, "diverged", ""),
        ("FINISHED", {"diverged": True}, "finished", ""),
    ],
)
def test_a_run_that_is_there_is_taken_up_as_it_ended(trial, status, other, state, reason):
    there = record(status=status, epochs=2, **other)
    child = first()
    assert (child.state, child.reason, child.epochs_done, child.folder.path) == (state, reason, 2, there.path)
    assert child.ended == (state != "interrupted")


@pytest.mark.parametrize(("status", "kept"), [("FINISHED", False), ("KILLED", True)])
def test_a_finished_run_that_was_killed_between_its_end_and_its_checkpoints_loses_them_now(trial, status, kept):
    there = record(status=status, epochs=2)
    there.checkpoints.mkdir(exist_ok=True)
    (there.checkpoints / "epoch-0002.ckpt").write_bytes(b"network")
    first()
    assert there.checkpoints.exists() == kept


def test_a_run_that_died_without_a_word_is_marked_so_and_gone_on_with(trial):
    there = record(status="", epochs=2)
    child = first()
    assert (child.state, child.epochs_done) == ("interrupted", 2)
    assert there.ended()["status"] == "FAILED"
    assert there.ended()["tags"] == {"failure_reason": DIED}


def test_a_run_that_died_in_its_first_epoch_begins_with_it(trial):
    record(status="", epochs=0)
    assert (first().state, first().epochs_done) == ("interrupted", 0)


def test_a_run_that_still_lives_is_waited_for(trial, monkeypatch):
    there = record(status="", epochs=1)
    living, waits = Journal(there), []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            living.append("end", status="FINISHED", tags={})
            living.close()

    monkeypatch.setattr(planning.time, "sleep", sleep)
    monkeypatch.setattr(planning.time, "monotonic", lambda: 0.0)
    assert first().state == "finished"
    assert waits == [0.2] * 3


def test_a_run_that_lives_on_is_waited_for_20_seconds_and_then_told(trial, monkeypatch):
    there = record(status="")
    living, waits, clock = Journal(there), [], count(100)
    monkeypatch.setattr(planning.time, "sleep", waits.append)
    monkeypatch.setattr(planning.time, "monotonic", lambda: next(clock))
    with pytest.raises(RunIsAliveError) as caught:
        plan()
    assert str(caught.value) == f"run {there.path.name} (none seed=2) is still running in another process"
    assert len(waits) == 20
    living.close()


def test_a_run_moves_once_to_the_question_that_is_asked_now(trial):
    there = record(parent="elsewhere")
    before = there.events()
    _, parent = plan()
    *same, moved = there.events()
    assert (same, moved["kind"], moved["parent"]) == (before, "parent", parent.path.name)
    assert not there.is_alive()
    plan(parent=parent)
    assert there.events() == [*same, moved]
    mine = record("half", parent=parent.path.name)
    before = mine.events()
    plan(parent=parent)
    assert mine.events() == before


def resumed(folder, tags=None, **changes):
    """Go on with the run by hand, to its end."""
    journal = Journal(folder)
    journal.append("resume", params=changes, tags=tags or {})
    journal.append("end", status="FINISHED", tags={})
    journal.close()


def test_a_run_that_a_person_went_on_with_for_more_epochs_is_another_answer(trial):
    there = record(status="KILLED", epochs=2)
    resumed(there, epochs=5)
    assert first().state == "missing"
    record_file(TRIAL.replace("epochs: 3", "epochs: 5"))
    assert (first().state, first().folder.path) == ("finished", there.path)


@pytest.mark.parametrize("tags", [{}, {"resumed.code": CODE}], ids=["before codes were told", "the same code"])
def test_a_run_that_was_resumed_as_it_was_is_the_answer(trial, tags):
    resumed(record(status="KILLED", epochs=2), tags)
    assert first().state == "finished"


@pytest.mark.parametrize("codes", [["code-2"], ["code-2", CODE], [CODE, "code-2"]])
def test_a_run_that_was_resumed_with_other_code_is_an_answer_of_neither(trial, monkeypatch, codes):
    there = record(status="KILLED", epochs=1)
    for code in codes:
        resumed(there, {"resumed.code": code})
    for code in (CODE, "code-2"):
        monkeypatch.setattr(planning, "code_digest", lambda own=(): code)  # noqa: B023
        assert first().state == "missing"


def test_a_resumption_says_with_which_code_it_goes_on(monkeypatch, tmp_path):
    from pipeline.recording import record as recording
    from pipeline.tracking.run import Run

    monkeypatch.setattr(recording, "code_digest", lambda own=(): "code-2")
    monkeypatch.setattr(Run, "provenance", lambda self: None)
    journal = Journal(new_folder("runs"))
    journal.append("start", run_key="k", params=RunConfig(epochs=3).as_dict(), tags={}, parent="")
    data = SimpleNamespace(source=SimpleNamespace(digest="d"))
    recording.resume(RunConfig(epochs=9), Run(journal, SimpleNamespace(notify=lambda: None)), data)
    event = next(event for event in journal.folder.events() if event["kind"] == "resume")
    assert (
        event["tags"].items() >= {"resumed_after_epoch": "0", "resumed.epochs": "9", "resumed.code": "code-2"}.items()
    )
    assert event["params"] == {"epochs": 9}
    journal.close()


def test_a_run_of_knobs_that_are_none_any_more_is_passed_over(trial):
    folder = new_folder("runs")
    journal = Journal(folder)
    tags = {"experiment": "trial", "variant": "none", "code": "code-1"}
    facts = {"mlflow_run_id": None, "run_key": "k", "experiment_name": "trial", "parent": ""}
    journal.append("start", params={**BASE, "momentun": 0.5}, tags=tags, **facts)
    journal.append("dataset", inputs=[{"dataset": {"digest": DIGEST}}])
    journal.close()
    assert first().state == "missing"


def record_file(text):
    with open("trial.yaml", "w") as file:  # noqa: PTH123
        file.write(text)


def test_what_diverged_is_known_by_the_tag_that_a_training_writes():
    from pipeline import divergence

    assert list(DIVERGED) == [divergence.TAG]
