"""The subcommand promote: a version becomes the champion if it is shown to be better, at the level of the look."""

import re
import sys
import time
from contextlib import nullcontext

import mlflow

from pipeline.mlflow_client import searches
from pipeline.mlflow_client.connection import connect
from pipeline.mlflow_client.errors import asking
from pipeline.registry import candidates, challenge, looks
from pipeline.registry.candidates import Entry
from pipeline.registry.challenge import Challenge
from pipeline.registry.judgement import Verdict
from pipeline.registry.promotion_lock import one_at_a_time
from pipeline.registry.versions import (
    CHAMPION,
    PREVIOUS,
    UnknownAliasError,
    version_by_alias,
)
from pipeline.terminal.shell import DONE, NOT_ALL, user_name

AGAIN = "run it again when it does: what was half done is made whole"
ROLLED_BACK = "promotion.rolled_back"
NOT_ALWAYS = ("promotion.accuracy", "promotion.look", "promotion.forced")  # tags that a verdict may lack


@asking(AGAIN)
def promote(
    target: str,
    name: str,
    *,
    runs_dir: str,
    data_dir: str,
    dry_run: bool = False,
    force: str = "",
    margin: float = 0.0,
) -> int:
    """Let a version take the alias `champion`, if it earns it; returns 0 if it did or would, 1 if it is refused.

    Args:
        target: a version, a run (id, folder name, `last`), or `newest`: the newest version.
        name: the registered model.
        runs_dir, data_dir: where runs and data lie.
        dry_run: leave nothing behind: tell what it would take, or again what a look has shown before.
        force: a reason to promote whatever the comparison says, or nothing.
        margin: by how many percentage points it may be worse; 0: it has to be better.

    Raises:
        ValueError: if there is no such model, version or run, or its data is not the data that lies here.
        UnreachableError: if the registry does not answer.
    """
    client = connect(looking_for="models")
    with nullcontext() if dry_run else one_at_a_time(name):
        candidate = candidates.find(client, target, name, runs_dir, dry_run=dry_run)
        champion = _champion(client, name)
        if champion is None or champion.version == candidate.version:
            _take_uncontested(client, name, candidate, is_free=champion is None, dry_run=dry_run)
            return DONE
        these = challenge.prepare(name, candidate, champion, data_dir, force=force)
        earned = True
        if dry_run and these and looks.recorded(client, name, these.look) is None:
            challenge.tell_what_it_takes(client, name, these, margin)
        else:
            when = f"{_now()} by {user_name()}"
            verdict = challenge.compare(client, name, these, margin, when) if these else None
            earned = _tell_verdict(verdict, force=force)
            if not dry_run:
                _record(client, name, candidate, _verdict_tags(champion, these, verdict, force, when))
        if dry_run:
            print("dry run: nothing was changed")
        elif earned:
            _move(client, name, candidate, champion)
        return DONE if earned else NOT_ALL


def _take_uncontested(
    client: mlflow.MlflowClient, name: str, candidate: Entry, *, is_free: bool, dry_run: bool
) -> None:
    """Let the candidate have the alias that is free, or its own."""
    if not is_free:
        print(f"{name} version {candidate.version} is the champion already: nothing to do")
        return
    print(f"{name} has no champion; version {candidate.version} {'would become' if dry_run else 'becomes'} it")
    if not dry_run:
        client.set_registered_model_alias(name, CHAMPION, candidate.version)


def _move(client: mlflow.MlflowClient, name: str, candidate: Entry, champion: Entry) -> None:
    """`previous` first, so that what is cut off in between can still be rolled back."""
    _check_champion(client, name, champion.version)
    client.set_registered_model_alias(name, PREVIOUS, champion.version)
    client.set_registered_model_alias(name, CHAMPION, candidate.version)
    _tell_of_move(name, candidate.version, champion.version)


@asking(AGAIN)
def rollback(name: str) -> int:
    """Exchange `champion` and `previous`; returns the exit code.

    Raises:
        ValueError: if no version has the alias `previous`.
        UnreachableError: if the registry does not answer.
    """
    client = connect(looking_for="models")
    with one_at_a_time(name):
        former, champion = (str(version_by_alias(client, name, alias).version) for alias in (PREVIOUS, CHAMPION))
        if former == champion:
            champion = _rolled_back(client, name, former)  # a rollback that was cut off between the two aliases
        else:
            _check_champion(client, name, champion)
            _tag(client, name, champion, {ROLLED_BACK: f"{_now()} by {user_name()}, in favour of version {former}"})
            # `champion` first: it is what the rollback is for, and the tag says what `previous` is to be
            client.set_registered_model_alias(name, CHAMPION, former)
        client.set_registered_model_alias(name, PREVIOUS, champion)
    _tell_of_move(name, former, champion)
    return DONE


def _rolled_back(client: mlflow.MlflowClient, name: str, champion: str) -> str:
    """The version that was rolled back last in favour of the champion."""
    found = [
        (each.tags[ROLLED_BACK], str(each.version))
        for each in searches.versions(client, name)
        if re.search(rf"in favour of version {champion}$", each.tags.get(ROLLED_BACK, ""))
    ]
    if not found:
        raise ValueError(f"version {champion} of {name} is both champion and previous: there is nothing to go back to")
    return max(found)[1]


def _champion(client: mlflow.MlflowClient, name: str) -> Entry | None:
    try:
        return candidates.of_version(version_by_alias(client, name, CHAMPION))
    except UnknownAliasError:
        return None


def _tell_verdict(verdict: Verdict | None, *, force: str) -> bool:
    """Print what follows from what was found; returns whether the candidate is promoted."""
    earned = verdict is not None and verdict.promotes
    if verdict and earned:
        print(verdict.words)
    elif force:
        print(f"{verdict.words}\nforced: {force}" if verdict else f"forced: {force}")
    elif verdict:
        print(f"{verdict.words}; --force REASON promotes it all the same", file=sys.stderr)
    return earned or bool(force)


def _verdict_tags(
    champion: Entry, these: Challenge | None, verdict: Verdict | None, force: str, when: str
) -> dict[str, str]:
    """What is recorded with the candidate."""
    tags = {"promotion.verdict": "not compared: the champion could not be opened"}
    if these and verdict:
        candidates_share, champions_share = verdict.candidate / verdict.images, verdict.champion / verdict.images
        tags = {
            "promotion.verdict": verdict.words,
            "promotion.accuracy": f"{candidates_share:.4f} against {champions_share:.4f}",
            "promotion.look": f"{verdict.look} at {these.examples.words} ({these.examples.images})",
        }
    tags |= {"promotion.against": f"version {champion.version}", "promotion.when": when}
    return tags | ({"promotion.forced": force} if force else {})


def _record(client: mlflow.MlflowClient, name: str, candidate: Entry, tags: dict[str, str]) -> None:
    """Keep with the candidate what was found, and nothing that an earlier verdict alone had."""
    for key in {*NOT_ALWAYS} & candidate.tags.keys() - tags.keys():
        client.delete_model_version_tag(name, candidate.version, key)
    _tag(client, name, candidate.version, tags)


def _tag(client: mlflow.MlflowClient, name: str, version: str, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)


def _check_champion(client: mlflow.MlflowClient, name: str, expected: str) -> None:
    now = str(version_by_alias(client, name, CHAMPION).version)
    if now != expected:
        raise ValueError(f"version {now} became champion meanwhile; run promote again to be compared with it")


def _tell_of_move(name: str, champion: str, previous: str) -> None:
    print(
        f"{name}: version {champion} is champion now, version {previous} previous (promote --rollback exchanges them)"
    )


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
