"""The subcommand experiment: variants x seeds as runs under one parent, trained where missing, then compared."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.analysis import curves, tables, words
from pipeline.comparing.comparison import Comparison
from pipeline.data import datasets
from pipeline.delivery import console
from pipeline.experiments.artist import Artist
from pipeline.experiments.engine import Engine, Pool, ThisMachine
from pipeline.experiments.judging import Judged, before, looks
from pipeline.experiments.plan import origins, plan
from pipeline.experiments.progress import Progress, time_spent
from pipeline.experiments.question import Question
from pipeline.experiments.spec import read_question
from pipeline.experiments.trial import Trial, data_of
from pipeline.mlflow_client import preflight
from pipeline.mlflow_client.tracking_uri import keep_store
from pipeline.recording.code_digest import code_digest
from pipeline.recording.resuming import QUESTION
from pipeline.signals import Interrupted, interruptions
from pipeline.terminal.shell import DONE, NOT_ALL, command, shown
from pipeline.tracking import recovery
from pipeline.tracking.folders import all_folders, new_folder
from pipeline.tracking.journal import Journal, RunIsAliveError
from pipeline.tracking.provenance import git_tags
from pipeline.tracking.run import Run
from pipeline.tracking.uploader import KILLED_PATIENCE_S, UploaderProcess

DEFAULT_EXPERIMENT = "0"
UNASKED = ("missing", "interrupted")  # as no look has asked for them


def experiment(
    file: str,
    jobs: int,
    runs_dir: str,
    everywhere: dict[str, Any],
    *,
    until_decided: bool = False,
    engine: Engine | None = None,
) -> int:
    """Train what the file asks for and is not there yet, and compare; returns the exit code.

    Args:
        file: the experiment file.
        jobs: runs at a time; 0: as many as there are cores.
        until_decided: train look by look, only what the look before has left undecided.
        runs_dir: where runs lie.
        everywhere: knobs that hold for every run (where the data lies).
        engine: where they are trained; None: on this machine.

    Raises:
        ValueError: for a file that is wrong, before anything is left behind.
    """
    began = time.monotonic()
    _leave_the_default_experiment()
    question = read_question(file, runs_dir=runs_dir, **everywhere)
    for config in question.variants.values():
        preflight.check_names({**config.as_dict(), "experiment_name": question.name})
    engine = engine or ThisMachine()
    engine.prepare()
    sources = {data: datasets.load(**dict(data)) for data in set(map(data_of, question.variants.values()))}
    now = origins(question, {data: source.digest for data, source in sources.items()})
    with interruptions(), engine.open(question, sources, jobs):
        sources.clear()
        judged = Judged.after(question, before(question, runs_dir), now)
        question = judged.question
        journal = _open_parent(question, runs_dir)
        parent, uploader = journal.folder, UploaderProcess(journal.folder)
        try:
            with Run(journal, uploader) as run:
                _begin(question, judged, run)
                trials = plan(question, now, runs_dir, parent, uploader)
                size = min(engine.size(jobs), sum(not trial.ended for trial in trials))
                with Artist(uploader) as artist, engine.pool(size, uploader, parent, Path(runs_dir).absolute()) as pool:
                    for part in looks(trials, judged) if until_decided else [trials]:
                        _train(question, part, pool, artist)
                return _answer(
                    judged, trials, run, uploader, lambda: time_spent(trials, size, time.monotonic() - began)
                )
        except Interrupted as interruption:
            until = {"until": "decided"} if until_decided else {}
            flags = {**everywhere, **until, **({"jobs": jobs} if jobs else {}), **engine.flags}
            again = command("experiment", shown(Path(file)), runs_dir=runs_dir, **flags)
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
            preflight.check_store(question.name, folder.state().get("run_id", ""), folder.path)
            recovery.mark_if_dead(folder)
            return Journal(folder)
    preflight.check_store(os.environ.get("MLFLOW_EXPERIMENT_NAME") or question.name)
    preflight.tell_of_old_store()
    try:
        return Journal(new_folder(runs_dir))
    except OSError as error:
        raise ValueError(f"runs_dir {runs_dir} cannot be written ({error}); give another with --runs_dir") from None


def _begin(question: Question, judged: Judged, run: Run) -> None:
    tags = {
        "mlflow.runName": question.name,
        "mlflow.note.content": question.question,
        QUESTION: question.name,
        "experiment": question.name,
        "variant": "(all)",
        "code": code_digest(question.own_code()),
        **judged.tag(None),
    }
    if run.folder.started():
        run.resume({}, {**tags, **git_tags()})
    else:
        params = {"baseline": question.baseline, "variants": ", ".join(question.variants), "metric": question.metric}
        run.start(question.name, {**params, "seeds": ", ".join(map(str, question.seeds))}, tags)
    run.text_artifact(f"{question.name}.yaml", question.text)


def _train(question: Question, trials: list[Trial], pool: Pool, artist: Artist) -> None:
    """Train what is missing, so many at a time, and show how it goes."""
    missing = [trial for trial in trials if not trial.ended]
    with Progress(question.name, trials, max(1, min(pool.size, len(missing)))) as progress:
        for trial in trials:
            artist.draw(trial)  # finished before, but whoever was to draw it was killed

        def changed(trial: Trial) -> None:
            artist.draw(trial)
            progress.changed(trial)

        pool.run(missing, changed)


def _answer(judged: Judged, trials: list[Trial], run: Run, uploader: UploaderProcess, spent: Callable[[], str]) -> int:
    """Compare what is there, record it with the parent, tell it, with the time that was spent at last."""
    question = judged.question
    failed = [trial for trial in trials if trial.state not in ("finished", "diverged", *UNASKED)]
    try:
        found = judged.of(trials)
    except ValueError as error:
        found = None
        print(f"nothing to compare: {error}", file=sys.stderr)
    if found:
        _record_answer(judged, found, run)
    reason = f"{len(failed)} of {len(trials)} runs failed: {failed[0].name}: {failed[0].reason}" if failed else ""
    run.end("FAILED" if failed else "FINISHED", reason)
    delivered = uploader.wait()
    if found:
        tables.print_comparison(found)
        print(f"\nanswer     {words.sentence(found)}")
        print(f"report     {shown(run.folder.artifacts / 'comparison/report.html')}")
    state = run.folder.state()
    if state.get("run_id"):
        print(f"run        {state['run_id']} in {state['tracking_uri']}, experiment {question.name}")
    print(f"time       {spent()}")
    for trial in failed:
        print(f"failed: {trial.name}: {trial.reason}", file=sys.stderr)
    if failed:
        print("start the same command again: what is finished is not trained twice", file=sys.stderr)
    refused = console.tell_delivery(run.folder, delivered)
    return NOT_ALL if failed or refused or not found else DONE


def _record_answer(judged: Judged, found: Comparison, run: Run) -> None:
    from pipeline.analysis import report  # only now: it brings matplotlib

    folder, question = run.folder.artifacts / "comparison", judged.question
    report.write_files(found, folder, made=f"python -m pipeline experiment experiments/{question.name}.yaml")
    run.artifact(folder)
    answer = words.sentence(found)
    note = f"**{question.question}**\n\n{answer}\n\n{tables.markdown(found)}"
    run.tags({"answer": answer, "mlflow.note.content": note, **judged.tag(found)})
    for epoch, values in curves.as_metrics(found).items():
        run.metrics(values, epoch)
