"""An experiment from end to end, its trainings written by hand: what is trained, how it ends, with which code."""

import json
import os
import signal
from pathlib import Path

import pytest

from pipeline import signals
from pipeline.analysis import runs
from pipeline.comparing.groups import training_of
from pipeline.config import ConfigError
from pipeline.experiments import engine, experiment
from pipeline.signals import Interrupted
from pipeline.tracking.folders import all_folders
from pipeline.tracking.journal import Journal, RunIsAliveError
from tests.trials import ALL, BASE, DIVERGED, TRIAL, HandPool, HeldJournal, NotedUploader, record, trial

__all__ = ["trial"]
HALF = "half seed=2"
NONE, HALVED = (training_of({**BASE, "dropout": dropout}) for dropout in (0.0, 0.5))


def run(jobs=1, runs_dir="runs", *, until_decided=False, **everywhere):
    try:
        return experiment.experiment("trial.yaml", jobs, runs_dir, everywhere, until_decided=until_decided)
    finally:
        HeldJournal.let_go()


def parents():
    return [folder for folder in all_folders("runs") if "question" in folder.started()["tags"]]


def parent():
    (found,) = parents()
    return found


def children():
    return [folder for folder in all_folders("runs") if "question" not in folder.started()["tags"]]


def kinds(folder):
    return [event["kind"] for event in folder.events()]


def test_it_trains_what_is_missing_in_order_and_tells_the_answer(trial, capsys):
    assert run() == 0
    assert HandPool.trained == [(name, False) for name in ALL]
    start, *_ = parent().events()
    planned = json.loads(start["tags"].pop("plan"))
    assert planned == {
        **{"seeds": "2 1", "contrasts": 1, "asked": 1, "look": 0, "baseline": "none", "metric": "val_accuracy"},
        "asks": {"baseline": "none", "metric": "val_accuracy"},
        "now": "code-1/data-1",
        **{"file": str(Path("trial.yaml").absolute()), "variants": {"none": NONE, "half": HALVED}},
    }
    assert start["tags"] == {
        "mlflow.runName": "trial",
        "mlflow.note.content": "Does dropout help?",
        "question": "trial",
        "experiment": "trial",
        "variant": "(all)",
        "code": "code-1",
        "git.commit": "c0ffee",
    }
    assert start["params"] == {
        **{"baseline": "none", "seeds": "2, 1"},
        **{"variants": "none, half", "metric": "val_accuracy"},
    }
    assert (start["mlflow_run_id"], start["experiment_id"], start["parent"]) == (None, None, "")
    assert (start["experiment_name"], len(start["run_key"])) == ("trial", 32)
    assert kinds(parent()) == ["start", "artifact", "artifact", "tags", "metrics", "metrics", "metrics", "end"]
    assert [event["path"] for event in parent().events() if event["kind"] == "artifact"] == ["trial.yaml", "comparison"]
    assert (parent().artifacts / "trial.yaml").read_text() == TRIAL
    assert (parent().ended()["status"], parent().ended()["tags"]) == ("FINISHED", {})
    (compared, made), answer = trial.written[0], parent().events()[3]["tags"]
    assert (compared.title, compared.baseline, made) == (
        "Does dropout help?", "none", "python -m pipeline experiment experiments/trial.yaml"
    )  # fmt: skip
    assert [(group.label, len(group.runs)) for group in compared.groups] == [("none", 2), ("half", 2)]
    assert {run.data for group in compared.groups for run in group.runs} == {"data-1"}
    assert answer["mlflow.note.content"].startswith(f"**Does dropout help?**\n\n{answer['answer']}\n\n|")
    out, err = capsys.readouterr()
    assert out.startswith("trial: 4 runs, 1 at a time\n")
    name = parent().path.name
    assert f"\nanswer     {answer['answer']}\nreport     runs/{name}/artifacts/comparison/report.html\n" in out
    assert out.splitlines()[-2:] == [
        f"run        r-{name[-6:]} in sqlite:///mlflow.db, experiment trial",
        "time       0 s, nothing was trained",  # by workers that are played by hand
    ]
    assert err == ""
    assert NotedUploader.finished == [None]
    (uploader,) = NotedUploader.made
    assert (uploader.folder.path, uploader.notes) == (parent().path, 8)  # of every event


def test_a_second_call_trains_nothing_and_answers_the_same_in_the_same_record(trial, capsys):
    assert run() == 0
    before, first = {folder.path: folder.events() for folder in children()}, capsys.readouterr().out
    assert run() == 0
    assert HandPool.trained == [(name, False) for name in ALL]
    assert {folder.path: folder.events() for folder in children()} == before
    assert trial.written[0] == trial.written[1]
    once = ["artifact", "artifact", "tags", "end"]
    curves = ["metrics"] * 3  # which stand already the second time
    assert kinds(parent()) == ["start", *once[:-1], *curves, "end", "resume", *once]
    head, answer = capsys.readouterr().out.split("\n", 1)
    assert head == "trial: 4 runs, 1 at a time, 4 finished before"
    assert first.endswith(answer)


def test_what_is_interrupted_is_resumed_and_what_is_finished_is_left(trial, capsys):
    record("none", 2)
    record("half", 2, status="KILLED", epochs=2)
    record("none", 1, status="FAILED", diverged=True)
    assert run() == 0
    assert HandPool.trained == [(HALF, True), ("half seed=1", False)]
    assert capsys.readouterr().out.startswith("trial: 4 runs, 1 at a time, 2 finished before, 1 to be resumed\n")


@pytest.mark.parametrize(("jobs", "missing", "size"), [(1, 4, 1), (3, 4, 3), (9, 4, 4), (0, 4, 2), (0, 1, 1)])
def test_as_many_train_at_a_time_as_asked_for_or_as_there_are_cores_and_no_more_than_runs(
    trial, monkeypatch, capsys, jobs, missing, size
):
    monkeypatch.setattr(engine, "cores_here", lambda: 2)
    for variant, seed in [("half", 1), ("none", 1), ("half", 2)][: 4 - missing]:
        record(variant, seed)
    run(jobs)
    assert HandPool.sizes == [size]
    assert f"4 runs, {size} at a time" in capsys.readouterr().out


def test_a_run_that_fails_ends_with_1_and_is_trained_again_by_the_next_call(trial, capsys):
    HandPool.fates = {HALF: ("FAILED", "OSError: x"), "none seed=1": ("FAILED", "OSError: y")}
    assert run() == 1
    assert HandPool.trained == [(name, False) for name in ALL]
    assert parent().ended()["status"] == "FAILED"
    assert parent().ended()["tags"] == {"failure_reason": f"2 of 4 runs failed: {HALF}: OSError: x"}
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"failed: {HALF}: OSError: x",
        "failed: none seed=1: OSError: y",
        "start the same command again: what is finished is not trained twice",
    ]
    assert "\nanswer     " in out
    HandPool.fates, HandPool.trained = {}, []
    assert run() == 0
    assert HandPool.trained == [(HALF, True), ("none seed=1", True)]
    assert (parent().ended()["status"], parent().ended()["tags"]) == ("FINISHED", {})


def test_a_run_that_diverged_is_an_answer_and_not_trained_again(trial, capsys):
    HandPool.fates = {HALF: ("DIVERGED", "diverged in epoch 3: train_loss is nan")}
    assert run() == 0
    assert parent().ended()["status"] == "FINISHED"
    groups = trial.written[0][0].groups
    assert [(group.label, len(group.runs), len(group.diverged)) for group in groups] == [("none", 2, 0), ("half", 1, 1)]
    assert groups[1].diverged[0].tags["diverged_in_epoch"] == DIVERGED["diverged_in_epoch"]
    HandPool.trained.clear()
    assert run() == 0
    assert HandPool.trained == []
    assert capsys.readouterr().err == ""


def test_where_nothing_finished_there_is_nothing_to_compare_and_it_says_so(trial, capsys):
    HandPool.fates = dict.fromkeys(ALL, ("FAILED", "why"))
    assert run() == 1
    assert (trial.written, kinds(parent())) == ([], ["start", "artifact", "end"])
    out, err = capsys.readouterr()
    assert err.splitlines()[0].startswith("nothing to compare: none of 4 runs is finished and has val_accuracy")
    assert "answer" not in out
    assert "report" not in out


def test_what_was_interrupted_and_no_look_asks_for_is_no_failure(trial, capsys, monkeypatch):
    """Seeds beyond the look that decided."""
    text = TRIAL.replace("[2, 1]", "[1, 2, 3, 4, 5, 6]")
    Path("trial.yaml").write_text(text)
    monkeypatch.setattr("tests.trials.accuracy_of", lambda config: config.dropout + 1e-4 * config.seed**2)
    record("none", 6, status="KILLED")
    assert run(until_decided=True) == 0
    assert parent().ended()["status"] == "FINISHED"
    assert "failed" not in capsys.readouterr().err


def test_what_has_not_begun_is_not_compared(trial, monkeypatch):
    train = HandPool.train

    def without_a_record(pool, child, status, reason):
        if child.name == HALF:
            child.state, child.reason, child.folder = "failed", "it died before", children()[0].__class__("runs/none")
        else:
            train(pool, child, status, reason)

    monkeypatch.setattr(HandPool, "train", without_a_record)
    assert run() == 1
    assert sum(len(group.runs) for group in trial.written[0][0].groups) == 3


REFUSED = {"refused": [{"final": True, "words": "tag x: too long"}]}


@pytest.mark.parametrize(
    ("delivered", "state", "code"),
    [
        (True, {}, 0),
        (True, REFUSED, 1),
        (False, REFUSED, 1),
        (False, {}, 0),
        (False, {"trouble": {"since": 1, "error": "refused", "advice": "do"}}, 1),
    ],
)
def test_a_record_that_somebody_has_to_see_to_ends_with_1_and_one_that_only_waits_with_0(trial, delivered, state, code):
    NotedUploader.delivered, NotedUploader.state = delivered, state
    assert run() == code
    assert parent().ended()["status"] == "FINISHED"


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_ends_it_as_killed_with_what_to_type_to_go_on(trial, capsys, number, word):
    def interrupt(child):
        if child.name == HALF:
            raise Interrupted(number)

    HandPool.before = interrupt
    assert run(data_dir="my data") == 128 + number
    assert (parent().ended()["status"], parent().ended()["tags"]) == ("KILLED", {"failure_reason": word})
    expected = "go on with: python -m pipeline experiment trial.yaml --data_dir 'my data' --jobs 1"
    assert f"stopped by {word}; what is done stays done; {expected}\n" in capsys.readouterr().out
    assert NotedUploader.finished == [experiment.KILLED_PATIENCE_S]
    HandPool.before = None
    HandPool.trained.clear()
    assert run() == 0
    assert HandPool.trained == [(name, False) for name in ALL[1:]]


def test_what_to_type_to_go_on_says_where_the_runs_lie(trial, capsys):
    def interrupt(child):
        raise Interrupted(signal.SIGHUP)

    HandPool.before = interrupt
    assert run(runs_dir="over there") == 129
    out = capsys.readouterr().out
    assert "go on with: python -m pipeline experiment trial.yaml --runs_dir 'over there' --jobs 1\n" in out


def test_signals_are_heard_and_a_second_one_leaves_the_record_closed(trial):
    def look(child):
        if child.name == HALF:
            heard.append(signal.getsignal(signal.SIGTERM) is signals._interrupt)
            signals._last_words[-1]("SIGTERM")
            heard.append((parent().ended()["status"], parent().ended()["tags"]))
            raise SystemExit(143)

    heard, before = [], signal.getsignal(signal.SIGTERM)
    HandPool.before = look
    with pytest.raises(SystemExit):
        run()
    assert heard == [True, ("KILLED", {"failure_reason": "SIGTERM"})]
    assert kinds(parent()).count("end") == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert signals._last_words == []


def test_a_question_that_another_user_alone_may_write_is_asked_anew(trial, monkeypatch):
    run()
    first, allowed = parent().path, os.access
    monkeypatch.setattr("os.access", lambda path, mode: not (path == first and mode == os.W_OK) and allowed(path, mode))
    assert run() == 0
    assert [folder.path == first for folder in parents()] == [True, False]


def test_a_record_that_mlflow_has_not_heard_of_has_no_address_to_tell(trial, capsys):
    NotedUploader.state = {"run_id": ""}
    run()
    assert "\nrun  " not in capsys.readouterr().out


def test_a_run_is_read_back_as_it_stands_in_its_folder(trial):
    there = record("half", 1, status="", epochs=2)
    found = runs.of_folder(there)
    assert (found.run_id, found.name, found.status, found.data) == ("", "half seed=1", "RUNNING", "data-1")
    assert found.started_ms == there.started()["time"]
    assert (found.params["dropout"], found.params["keep_best"], found.params["seed"]) == ("0.5", "False", "1")
    assert (found.tags["variant"], found.diverged) == ("half", False)
    assert found.metrics == {"train_loss": 0.5, "val_loss": 0.5, "val_accuracy": 0.906}
    assert found.curves["train_loss"] == {1: 1.0, 2: 0.5}
    diverged = runs.of_folder(record(status="FAILED", diverged=True, digest=None))
    assert (diverged.status, diverged.data, diverged.diverged) == ("FAILED", "", True)
    assert diverged.tags["diverged_in_epoch"] == "2"
    there.write_state({"run_id": "r", "tracking_uri": "x"})
    assert runs.of_folder(there).run_id == "r"


def test_an_error_ends_it_as_failed_and_is_raised(trial):
    def fail(child):
        raise KeyError("lost")

    HandPool.before = fail
    with pytest.raises(KeyError, match="lost"):
        run()
    assert parent().ended()["status"] == "FAILED"
    assert parent().ended()["tags"] == {"failure_reason": "KeyError: 'lost'"}
    assert NotedUploader.finished == [experiment.KILLED_PATIENCE_S]
    assert kinds(parent()).count("end") == 1


def test_an_error_after_the_end_leaves_the_end_as_it_is(trial, monkeypatch):
    def fail(found):
        raise BrokenPipeError

    monkeypatch.setattr(experiment.tables, "print_comparison", fail)
    with pytest.raises(BrokenPipeError):
        run()
    assert (kinds(parent()).count("end"), parent().ended()["status"]) == (1, "FINISHED")


def test_an_experiment_that_runs_already_is_refused(trial):
    run()
    living = Journal(parent())
    with pytest.raises(RunIsAliveError) as caught:
        run()
    assert str(caught.value) == f"experiment trial is running already, in another process ({parent().path})"
    living.close()


def test_one_that_died_is_marked_so_and_gone_on_with(trial):
    run()
    dead = Journal(parent())
    dead.append("resume", params={}, tags={})
    dead.close()
    assert run() == 0
    statuses = [event["status"] for event in parent().events() if event["kind"] == "end"]
    assert statuses == ["FINISHED", "FAILED", "FINISHED"]


def test_a_new_run_of_mlflow_is_a_new_question_over_the_same_runs(trial, monkeypatch):
    run()
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    HandPool.trained.clear()
    assert run() == 0
    assert HandPool.trained == []
    before, new = parents()
    assert (new.started()["mlflow_run_id"], new.started()["experiment_id"]) == ("0" * 32, "7")
    assert {folder.events()[-1]["parent"] for folder in children()} == {new.path.name}
    assert run() == 0  # the same run of MLflow's is gone on with
    assert parents()[1].path == new.path
    assert kinds(before).count("resume") == 0
    monkeypatch.setenv("MLFLOW_RUN_ID", before.state()["run_id"])
    assert run() == 0
    assert (len(parents()), kinds(before).count("resume")) == (2, 1)


def test_the_experiment_of_mlflow_that_nobody_named_gives_way_to_the_files(trial, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    run()
    assert (parent().started()["mlflow_run_id"], parent().started()["experiment_id"]) == (None, None)
    assert "MLFLOW_EXPERIMENT_ID" not in os.environ
    assert "MLFLOW_RUN_ID" not in os.environ


def test_the_name_that_the_environment_gives_is_the_experiments(trial, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    run()
    assert parent().started()["experiment_name"] == "mine"
    run()
    assert trial.stores == [("mine",), ("trial", parent().state()["run_id"], parent().path)]
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{Path('mlflow.db').absolute()}"


def test_every_data_set_is_read_once_and_a_run_is_judged_by_its_own(trial):
    Path("trial.yaml").write_text(TRIAL.replace("{dropout: 0.5}", "{dropout: 0.5, dataset: kmnist}"))
    record("half", 2, knobs={"dataset": "kmnist", "data_dir": "there"}, digest="data of kmnist")
    record("none", 2, digest="data of kmnist")
    run(data_dir="there")
    assert sorted(trial.loads) == [("digits", "there", ""), ("kmnist", "there", "")]
    assert HandPool.trained == [("none seed=2", False), ("none seed=1", False), ("half seed=1", False)]


def test_a_name_that_mlflow_does_not_take_is_told_before_anything_is_left_behind(trial):
    Path("trial.yaml").write_text(TRIAL.replace("{dropout: 0.5}", "{dropout: 0.5, model_name: a/b}"))
    with pytest.raises(ConfigError, match="model_name 'a/b' has a '/', ':' or"):
        run()
    assert not Path("runs").exists()


def test_runs_that_cannot_be_written_are_told_with_what_to_give(trial):
    Path("runs").write_text("a file")
    with pytest.raises(ValueError, match=r"^runs_dir runs cannot be written \(.+\); give another with --runs_dir$"):
        run()
