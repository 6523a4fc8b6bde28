"""The experiment verb: a question's variants x seeds as runs under one parent, trained where missing, then compared."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import divergence
from pipeline.analysis import comparison, report, tables
from pipeline.analysis.comparison import Comparison
from pipeline.config import RunConfig
from pipeline.data import datasets
from pipeline.delivery import console
from pipeline.experiments.pool import Child, WorkerPool
from pipeline.experiments.progress import Progress
from pipeline.experiments.recorded import run_of
from pipeline.experiments.spec import Question, read_question
from pipeline.mlflow_client import preflight
from pipeline.mlflow_client.tracking_uri import keep_store
from pipeline.recording.code_digest import code_digest
from pipeline.recording.resuming import recorded_knobs
from pipeline.signals import Interrupted, interruptions
from pipeline.terminal.shell import command, shown
from pipeline.tracking import recovery
from pipeline.tracking.folders import (
    Event,
    Journal,
    RunFolder,
    RunIsAliveError,
    all_folders,
    data_digest,
    new_folder,
    values_of,
)
from pipeline.tracking.provenance import cores, git_tags
from pipeline.tracking.run import Run
from pipeline.tracking.uploader import SharedUploader, UploaderProcess

KILLED_PATIENCE_S, ALIVE_PATIENCE_S = 6.0, 20.0
QUESTION = "question"  # the tag that tells an experiment's own run from its children
DEFAULT_EXPERIMENT = "0"


def experiment(file: str, jobs: int, runs_dir: str, everywhere: dict[str, Any]) -> int:
    """Train what the file asks for and is not there yet, and compare; returns the exit code.

    Args:
        file: the experiment file.
        jobs: runs at a time; 0: as many as there are cores.
        runs_dir: where runs lie.
        everywhere: knobs that hold for every run (where the data lies).

    Raises:
        ValueError: for a file that is wrong, before anything is left behind.
    """
    _leave_the_default_experiment()
    question = read_question(file, runs_dir=runs_dir, **everywhere)
    for config in question.variants.values():
        preflight.check_names({**config.as_dict(), "experiment_name": question.name})
    digests = {data: datasets.load(*data).digest for data in {_data(config) for config in question.variants.values()}}
    with interruptions():
        journal = _open_parent(question, runs_dir)
        parent, uploader = journal.folder, UploaderProcess(journal.folder)
        try:
            with Run(journal, uploader) as run:
                _begin(question, run)
                children = _plan(question, digests, runs_dir, parent, uploader)
                _train(question, children, jobs, uploader, parent, Path(runs_dir).absolute())
                return _answer(question, children, run, uploader)
        except Interrupted as interruption:
            again = command("experiment", shown(Path(file)), runs_dir=runs_dir, **everywhere)
            print(f"stopped by {interruption}; what is done stays done; go on with: {again}", flush=True)
            console.tell_delivery(parent, uploader.wait(KILLED_PATIENCE_S))
            return interruption.exit_code
        except BaseException:
            uploader.wait(KILLED_PATIENCE_S)
            raise


def _leave_the_default_experiment() -> None:
    """`mlflow run` without an experiment's name opens its run in `Default`; the file's name is meant then."""
    if os.environ.get("MLFLOW_EXPERIMENT_ID") == DEFAULT_EXPERIMENT:
        os.environ.pop("MLFLOW_EXPERIMENT_ID")
        os.environ.pop("MLFLOW_RUN_ID", None)


def _data(config: RunConfig) -> tuple[str, str, str]:
    """What decides which data a run gets, as `datasets.load` takes it."""
    return config.dataset, config.data_dir, config.data_name


def _open_parent(question: Question, runs_dir: str) -> Journal:
    """The question's own run: a new one, or the one that was begun before and is gone on with."""
    chosen = os.environ.get("MLFLOW_RUN_ID")
    for folder in reversed(all_folders(runs_dir)):
        start = folder.started()
        if not start or start["tags"].get(QUESTION) != question.name or not os.access(folder.path, os.W_OK):
            continue
        if folder.is_alive():
            raise RunIsAliveError(f"experiment {question.name} is running already, in another process ({folder.path})")
        if chosen in (None, start["mlflow_run_id"], folder.state().get("run_id")):
            keep_store(folder.state())
            preflight.check_store(question.name, folder.state().get("run_id", ""), folder.path.name)
            recovery.mark_if_dead(folder)
            return Journal(folder)
    preflight.check_store(os.environ.get("MLFLOW_EXPERIMENT_NAME") or question.name)
    preflight.tell_of_old_store()
    folder = new_folder(runs_dir)
    try:
        return Journal(folder)
    except OSError as error:
        raise ValueError(f"runs_dir {runs_dir} cannot be written ({error}); give another with --runs_dir") from None


def _begin(question: Question, run: Run) -> None:
    about = {"baseline": question.baseline, "seeds": ", ".join(map(str, question.seeds))}
    about["variants"] = ", ".join(question.variants)
    tags = {
        "mlflow.runName": question.name,
        "mlflow.note.content": question.question,
        QUESTION: question.name,
        "experiment": question.name,
        "variant": "(all)",
        "code": code_digest(),
    }
    if run.folder.started():
        run.resume({}, {**tags, **git_tags()})
    else:
        run.start(question.name, about, tags)
    run.text_artifact(f"{question.name}.yaml", question.text)


def _plan(
    question: Question,
    digests: dict[tuple[str, str, str], str],
    runs_dir: str,
    parent: RunFolder,
    uploader: UploaderProcess,
) -> list[Child]:
    """Every run that the question asks for, seed by seed, with what is there of it already."""
    known = _known_runs(question.name, runs_dir)
    children = []
    for seed in question.seeds:
        for variant, first in question.variants.items():
            name = f"{variant} seed={seed}"
            config = replace(first, seed=seed, run_name=name, experiment_name=question.name)
            tags = {"experiment": question.name, "variant": variant, "seed": str(seed)}
            child = Child(variant, seed, config, tags)
            wanted = _identity(child, digests[_data(config)])
            found = [folder for folder, identity in known if identity == wanted]
            if found:
                _take_up(child, found[-1], parent, uploader)
            children.append(child)
    return children


def _identity(child: Child, digest: str) -> tuple[Any, ...]:
    """What must be the same for a run not to be trained again: variant, knobs, data, code."""
    return (child.variant, _deciding(child.config.as_dict()), digest, code_digest())


def _deciding(knobs: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        sorted(
            (name, value)
            for name, value in knobs.items()
            if name not in comparison.SAME_IN_KIND - {"seed", "on_divergence"}
        )
    )


def _known_runs(name: str, runs_dir: str) -> list[tuple[RunFolder, tuple[Any, ...]]]:
    """The experiment's runs that lie in runs_dir, oldest first, each with its identity."""
    found = []
    for folder in all_folders(runs_dir):
        events = folder.events()
        start = next((event for event in events if event["kind"] == "start"), None)
        digest = data_digest(events)
        own = os.access(folder.path, os.W_OK)
        if own and start and digest and start["tags"].get("experiment") == name and QUESTION not in start["tags"]:
            knobs = _deciding(recorded_knobs(events))  # epochs may have grown since the start
            identity = (start["tags"]["variant"], knobs, digest, _code_of(start, events))
            found.append((folder, identity))
    return found


def _code_of(start: Event, events: list[Event]) -> str:
    """The code that the run was trained with; where a resumption brought other code, that of none."""
    code: str = start["tags"]["code"]
    resumed = {event["tags"].get("resumed.code", code) for event in events if event["kind"] == "resume"}
    return code if resumed <= {code} else ""


def _take_up(child: Child, folder: RunFolder, parent: RunFolder, uploader: UploaderProcess) -> None:
    """Go on with a run that is there: it is finished, or interrupted; if it still lives it is about to end."""
    until = time.monotonic() + ALIVE_PATIENCE_S
    while folder.is_alive():
        if time.monotonic() > until:
            raise RunIsAliveError(f"run {folder.path.name} ({child.name}) is still running in another process")
        time.sleep(0.2)
    recovery.mark_if_dead(folder)
    end, events = folder.ended(), folder.events()
    child.folder = folder
    child.state = "finished" if end and end["status"] == "FINISHED" else "interrupted"
    if end and child.state != "finished" and divergence.recorded(events):  # the same again would do the same
        child.state, child.reason = "diverged", end["tags"].get("failure_reason", "")
    child.epochs_done = max(values_of(events).get("train_loss", {0: 0.0}))
    belongs_to = [event["parent"] for event in events if event["kind"] in ("start", "parent")]
    if belongs_to[-1] != parent.path.name:  # `mlflow run` opened a new run for the same question
        journal = Journal(folder)
        journal.append("parent", parent=parent.path.name)
        journal.close()
    SharedUploader(folder, uploader.descriptor).notify()


def _train(
    question: Question, children: list[Child], jobs: int, uploader: UploaderProcess, parent: RunFolder, runs_dir: Path
) -> None:
    """Train what is missing, so many at a time, and show how it goes."""
    missing = [child for child in children if not child.ended]
    size = min(jobs or cores(), len(missing))
    with Progress(question.name, children, max(1, size)) as progress:
        if missing:
            WorkerPool(size, uploader, parent, runs_dir).run(missing, progress.changed)


def _answer(question: Question, children: list[Child], run: Run, uploader: UploaderProcess) -> int:
    """Compare what is there, record it with the parent, tell it."""
    failed = [child for child in children if child.state not in ("finished", "diverged")]
    try:
        begun = [child.folder for child in children if child.folder and child.folder.started()]
        found = question.compare([run_of(folder) for folder in begun])
    except ValueError as error:
        found = None
        print(f"nothing to compare: {error}", file=sys.stderr)
    if found:
        _record_answer(question, found, run)
    reason = f"{len(failed)} of {len(children)} runs failed: {failed[0].name}: {failed[0].reason}" if failed else ""
    run.end("FAILED" if failed else "FINISHED", reason)
    delivered = uploader.wait()
    if found:
        tables.print_comparison(found)
        print(f"\nanswer     {tables.sentence(found)}")
        print(f"report     {shown(run.folder.artifacts / 'comparison/report.html')}")
    state = run.folder.state()
    if state.get("run_id"):
        print(f"run        {state['run_id']} in {state['tracking_uri']}, experiment {question.name}")
    for child in failed:
        print(f"failed: {child.name}: {child.reason}", file=sys.stderr)
    if failed:
        print("start the same command again: what is finished is not trained twice", file=sys.stderr)
    refused = console.tell_delivery(run.folder, delivered)
    return 1 if failed or refused else 0


def _record_answer(question: Question, found: Comparison, run: Run) -> None:
    folder = run.folder.artifacts / "comparison"
    report.write_files(found, folder, made=f"python -m pipeline experiment experiments/{question.name}.yaml")
    run.artifact(folder)
    answer = tables.sentence(found)
    note = f"**{question.question}**\n\n{answer}\n\n{tables.markdown(found)}"
    run.tags({"answer": answer, "mlflow.note.content": note})
