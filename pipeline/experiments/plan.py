"""An experiment's plan: every trial that its question asks for, with what is there of it already."""

import os
import time
from collections.abc import Mapping
from typing import Any

from pipeline import divergence
from pipeline.comparing.seen import Origin
from pipeline.config import ROLES, RunConfig
from pipeline.experiments.question import Question
from pipeline.experiments.trial import Data, Trial, data_of
from pipeline.recording.code_digest import code_digest
from pipeline.recording.record import forget_checkpoints
from pipeline.recording.resuming import QUESTION, recorded_knobs
from pipeline.tracking import recovery
from pipeline.tracking.folders import all_folders, data_digest, values_of
from pipeline.tracking.journal import Journal, RunFolder, RunIsAliveError
from pipeline.tracking.lines import Event
from pipeline.tracking.uploader import Uploader, UploaderProcess

ALIVE_PATIENCE_S = 20.0
Identity = tuple[Any, ...]


def origins(question: Question, digests: Mapping[Data, str]) -> dict[str, Origin]:
    """Label -> code and data that its runs are to be of; `digests`: `data_of` a config -> digest of what lies there."""
    variants = question.variants.items()
    return {label: (code_digest(config.own_code()), digests[data_of(config)]) for label, config in variants}


def plan(
    question: Question, origins: Mapping[str, Origin], runs_dir: str, parent: RunFolder, uploader: UploaderProcess
) -> list[Trial]:
    """Every trial, seed by seed, in the order in which they are to be trained.

    Args:
        question: what is asked.
        origins: label -> code and data of now.
        runs_dir: where runs lie.
        parent, uploader: the question's own run, to which all belong, and what delivers them.

    Raises:
        RunIsAliveError: if one of them is being trained by another process.
    """
    known = _known_runs(question.name, runs_dir)
    trials = []
    configs = {variant: question.configs(variant) for variant in question.variants}
    for place in range(len(question.baseline_seeds)):
        for variant, of_variant in configs.items():
            if place < len(of_variant):
                trials.append(_trial(question, variant, of_variant[place], origins[variant][0], place))
    for trial in trials:
        code, digest = origins[trial.variant]
        wanted = _identity(trial.variant, trial.config.as_dict(), digest, code)
        if wanted in known:
            _take_up(trial, known[wanted], parent, uploader)
    return trials


def _trial(question: Question, variant: str, config: RunConfig, code: str, place: int) -> Trial:
    tags = {"experiment": question.name, "variant": variant, "seed": str(config.seed)}
    trial = Trial(variant, config.seed, config, tags, code, place)
    trial.config = config.replace(run_name=trial.name, experiment_name=question.name)
    return trial


def _identity(variant: str, knobs: Mapping[str, Any], digest: str, code: str) -> Identity:
    """What must be the same for a run not to be trained again."""
    return variant, _deciding(knobs), digest, code


def _deciding(knobs: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, value) for name, value in knobs.items() if name not in ROLES or ROLES[name].decides))


def _known_runs(name: str, runs_dir: str) -> dict[Identity, RunFolder]:
    """The experiment's runs that lie in runs_dir and are this user's to go on with; of the same the newest."""
    known = {}
    for folder in all_folders(runs_dir):
        events = folder.events()
        start = next((event for event in events if event["kind"] == "start"), None)
        digest = data_digest(events)
        own = os.access(folder.path, os.W_OK)
        if own and start and digest and start["tags"].get("experiment") == name and QUESTION not in start["tags"]:
            knobs = recorded_knobs(events)  # epochs may have grown since the start
            known[_identity(start["tags"]["variant"], knobs, digest, _code_of(start, events))] = folder
    return known


def _code_of(start: Event, events: list[Event]) -> str:
    """The code that the run was trained with; where a resumption brought other code, that of none."""
    code: str = start["tags"]["code"]
    resumed = {event["tags"].get("resumed.code", code) for event in events if event["kind"] == "resume"}
    return code if resumed <= {code} else ""


def _take_up(trial: Trial, folder: RunFolder, parent: RunFolder, uploader: UploaderProcess) -> None:
    """Go on with a run that is there: it is finished, or interrupted; if it still lives it is about to end."""
    until = time.monotonic() + ALIVE_PATIENCE_S
    while folder.is_alive():
        if time.monotonic() > until:
            raise RunIsAliveError(f"run {folder.path.name} ({trial.name}) is still running in another process")
        time.sleep(0.2)
    recovery.mark_if_dead(folder)
    end, events = folder.ended(), folder.events()
    trial.folder = folder
    trial.state = "finished" if end and end["status"] == "FINISHED" else "interrupted"
    forget_checkpoints(folder)  # of one that was killed between its end and this
    if end and trial.state != "finished" and divergence.recorded(events):  # the same again would do the same
        trial.state, trial.reason = "diverged", end["tags"].get("failure_reason", "")
    trial.epochs_done = max(values_of(events).get("train_loss", {0: 0.0}))
    belongs_to = [event["parent"] for event in events if event["kind"] in ("start", "parent")]
    if belongs_to[-1] != parent.path.name:  # `mlflow run` opened a new run for the same question
        journal = Journal(folder)
        journal.append("parent", parent=parent.path.name)
        journal.close()
    Uploader(folder, uploader.descriptor).notify()
