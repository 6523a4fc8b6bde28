"""The promote verb: a version becomes the champion if it is shown to be no worse on the same held-out images."""

import re
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from pipeline.config import AUTO, IN_MNISTS_FORMAT
from pipeline.data import datasets
from pipeline.data.dataset import Dataset
from pipeline.mlflow_client import searches
from pipeline.mlflow_client.connection import connect
from pipeline.mlflow_client.errors import asking
from pipeline.registry import candidates
from pipeline.registry.candidates import Entry
from pipeline.registry.promotion_lock import one_at_a_time
from pipeline.registry.tags import DATASET, DIGEST, data_knobs
from pipeline.registry.versions import CHAMPION, PREVIOUS, NotServableError, UnknownAliasError, load, version_by_alias
from pipeline.terminal.shell import user_name

ALPHA = 0.05
REFUSED = 1
EXAMINED_AT_ONCE = 1_568_000  # numbers, those of 2,000 images of MNIST
AGAIN = "run it again when it does: what was half done is made whole"
ROLLED_BACK = "promotion.rolled_back"


@dataclass(frozen=True)
class Verdict:
    """What the same images say of two models.

    Attributes:
        images: how many.
        champion, candidate: images that each got right.
        only_champion, only_candidate: images that only this one got right.
        p: of the exact McNemar test on those (two-sided).
    """

    images: int
    champion: int
    candidate: int
    only_champion: int
    only_candidate: int
    p: float

    @property
    def shown_worse(self) -> bool:
        """Whether the candidate loses more of the images where they disagree than chance would."""
        return self.p < ALPHA and self.only_champion > self.only_candidate

    @property
    def promotes(self) -> bool:
        """Not shown to be worse, and at least as accurate."""
        return not self.shown_worse and self.candidate >= self.champion

    @property
    def words(self) -> str:
        """The verdict in a line."""
        if self.promotes:
            return "promote: at least as accurate, and not shown to be worse"
        if self.shown_worse:
            return f"refuse: shown to be worse (p = {self.p:.2g})"
        return "refuse: less accurate than the champion"


def judge(labels: NDArray[Any], champion: NDArray[Any], candidate: NDArray[Any]) -> Verdict:
    """Compare two models' predictions (N,) of the same images: McNemar's exact test is the binomial one."""
    right, other = champion == labels, candidate == labels
    alone, other_alone = int((right & ~other).sum()), int((other & ~right).sum())
    p = float(binomtest(min(alone, other_alone), alone + other_alone).pvalue) if alone or other_alone else 1.0
    return Verdict(len(labels), int(right.sum()), int(other.sum()), alone, other_alone, p)


@asking(AGAIN)
def promote(target: str, name: str, *, runs_dir: str, data_dir: str, dry_run: bool = False, force: str = "") -> int:
    """Let a version take the alias `champion`, if it earns it; returns 0 if it did or would, 1 if it is refused.

    Args:
        target: a version, a run (id, folder name, `last`), or `newest`: the newest version.
        name: the registered model.
        runs_dir, data_dir: where runs and data lie.
        dry_run: compare and tell only, and leave nothing behind.
        force: a reason to promote whatever the comparison says, or nothing.

    Raises:
        ValueError: if there is no such model, version or run, or its data is not the data that lies here.
        UnreachableError: if the registry does not answer.
    """
    client = connect(looking_for="models")
    with nullcontext() if dry_run else one_at_a_time(name):
        candidate = candidates.find(client, target, name, runs_dir, dry_run=dry_run)
        champion = _champion(client, name)
        if champion and champion.version == candidate.version:
            print(f"{name} version {champion.version} is the champion already: nothing to do")
            return 0
        if champion is None:
            print(f"{name} has no champion; version {candidate.version} {'would become' if dry_run else 'becomes'} it")
            if not dry_run:
                client.set_registered_model_alias(name, CHAMPION, candidate.version)
            return 0
        verdict = _examine(name, candidate, champion, data_dir, force=force)
        promotes = _tell_verdict(name, candidate, champion, verdict, force=force)
        if dry_run:
            print("dry run: nothing was changed")
        else:
            _tag(client, name, candidate.version, _verdict_tags(champion, verdict, force))
            if promotes:
                _move(client, name, candidate, champion)
        return 0 if promotes else REFUSED


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
    return 0


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


def _examine(name: str, candidate: Entry, champion: Entry, data_dir: str, *, force: str) -> Verdict | None:
    """Let both predict the test images, which neither was trained on; None if a champion that is to go does not open.

    Raises:
        NotServableError: if one of them does not open.
        ValueError: if the two were made for different data, or the data here is not theirs.
    """
    dataset = champion.tags.get(DATASET, "mnist")
    digests = {each.tags.get(DIGEST, "") for each in (candidate, champion)}
    source = _data_of(champion, data_dir)
    if candidate.tags.get(DATASET, dataset) != dataset or digests - {source.digest, ""}:
        raise ValueError(
            f"version {candidate.version} was made on {candidate.tags.get(DATASET)} "
            f"(digest {candidate.tags.get(DIGEST)}), version {champion.version} on {dataset} "
            f"({champion.tags.get(DIGEST)}), and {source.source} holds {source.digest}: they cannot be compared here"
        )
    inputs, labels = source.test.inputs, source.test.labels.astype(np.int64)
    found = _predicted(name, candidate, inputs)
    try:
        return judge(labels, _predicted(name, champion, inputs), found)
    except NotServableError as error:
        if force:
            print(f"not compared: the champion, {error}", file=sys.stderr)
            return None
        raise NotServableError(f"the champion, {error}; --force REASON replaces it without a comparison") from None


def _data_of(champion: Entry, data_dir: str) -> Dataset:
    """The data that the champion was made for, as they lie here: where its run found them, if that is not said."""
    knobs = data_knobs(champion.tags)
    dataset, recorded_dir = str(knobs.pop("dataset")), knobs.pop("data_dir", data_dir)
    known = dataset in (*IN_MNISTS_FORMAT, "digits")
    folder = recorded_dir if data_dir == AUTO and not known else data_dir
    return datasets.load(dataset, folder, knobs.pop("data_name", ""), **knobs)


def _predicted(name: str, entry: Entry, inputs: NDArray[Any]) -> NDArray[Any]:
    """The class that the version gives each example (N, ...), raw."""
    with tempfile.TemporaryDirectory(prefix="pipeline-model-") as folder:
        loaded = load(entry.uri, name, entry.version, entry.run_id, Path(folder))
    parts = np.array_split(inputs, max(1, inputs.size // EXAMINED_AT_ONCE))
    return np.concatenate([loaded.predict(part.astype(np.float32)).argmax(axis=1) for part in parts])


def _tell_verdict(name: str, candidate: Entry, champion: Entry, verdict: Verdict | None, *, force: str) -> bool:
    """Print what was found, and what follows from it; returns whether the candidate is promoted."""
    earned = verdict is not None and verdict.promotes
    if verdict:
        _print_table(name, candidate, champion, verdict)
        if earned:
            print(verdict.words)
    if force and not earned:
        print(f"forced: {force}")
    elif verdict and not earned:
        print(f"{verdict.words}; --force REASON promotes it all the same", file=sys.stderr)
    return earned or bool(force)


def _print_table(name: str, candidate: Entry, champion: Entry, verdict: Verdict) -> None:
    columns = (name, "right", "accuracy", "right alone")
    table = Table(*columns, box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for who, right, alone in (
        (f"version {champion.version}, champion", verdict.champion, verdict.only_champion),
        (f"version {candidate.version}, candidate", verdict.candidate, verdict.only_candidate),
    ):
        table.add_row(who, f"{right:,}", f"{right / verdict.images:.2%}", str(alone))
    Console(file=sys.stdout, highlight=False).print(table)
    disagreements = verdict.only_champion + verdict.only_candidate
    print(f"exact McNemar test on {disagreements} of {verdict.images:,} test examples: p = {verdict.p:.3g}")


def _verdict_tags(champion: Entry, verdict: Verdict | None, force: str) -> dict[str, str]:
    """What is recorded with the candidate."""
    tags = {"promotion.verdict": "not compared: the champion could not be opened"}
    if verdict:
        candidates_share, champions_share = verdict.candidate / verdict.images, verdict.champion / verdict.images
        tags = {
            "promotion.verdict": verdict.words,
            "promotion.accuracy": f"{candidates_share:.4f} against {champions_share:.4f}",
            "promotion.mcnemar": f"p = {verdict.p:.6g}, {verdict.only_candidate} to {verdict.only_champion}",
        }
    tags |= {"promotion.against": f"version {champion.version}", "promotion.when": f"{_now()} by {user_name()}"}
    return tags | ({"promotion.forced": force} if force else {})


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
