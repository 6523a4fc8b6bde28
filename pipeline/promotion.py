"""The promote verb: a version becomes the champion if it is shown to be no worse on the same held-out images."""

import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from statsmodels.stats.contingency_tables import mcnemar

from pipeline import candidates, datasets
from pipeline.candidates import Entry
from pipeline.connection import connect
from pipeline.shell import user_name
from pipeline.versions import CHAMPION, PREVIOUS, UnknownAliasError, load, version_by_alias

ALPHA = 0.05
REFUSED = 1
EXAMINED_AT_ONCE = 2_000


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
    """Compare two models' predictions (N,) of the same images."""
    right, other = champion == labels, candidate == labels
    table = [
        [int((right & other).sum()), int((right & ~other).sum())],
        [int((~right & other).sum()), int((~right & ~other).sum())],
    ]
    p = float(mcnemar(table, exact=True).pvalue)
    return Verdict(len(labels), int(right.sum()), int(other.sum()), table[0][1], table[1][0], p)


def promote(target: str, name: str, runs_dir: str, data_dir: str, dry_run: bool, force: str) -> int:
    """Let a version take the alias `champion`, if it earns it; returns 0 if it did or would, 1 if it is refused.

    Args:
        target: a version, a run (id, folder name, `last`), or `newest`: the newest version.
        name: the registered model.
        runs_dir: where runs lie, to find one by its folder's name.
        data_dir: where the data lies.
        dry_run: compare and tell only.
        force: a reason to promote whatever the comparison says, or nothing.

    Raises:
        ValueError: if there is no such model, version or run, or its data is not the data that lies here.
    """
    client = connect()
    with _one_at_a_time(name):
        candidate = candidates.find(client, target, name, runs_dir, dry_run)
        champion = _champion(client, name)
        if champion and champion.version == candidate.version:
            print(f"{name} version {champion.version} is the champion already: nothing to do")
            return 0
        if champion is None:
            return _crown_the_first(client, name, candidate, dry_run)
        verdict = _examine(name, candidate, champion, data_dir)
        _print_verdict(name, candidate, champion, verdict)
        if force and not verdict.promotes:
            print(f"forced: {force}")
        elif not verdict.promotes:
            print(f"{verdict.words}; --force REASON promotes it all the same", file=sys.stderr)
        if dry_run:
            print("dry run: nothing was changed")
        else:
            _record(client, name, candidate, champion, verdict, force)
        if not verdict.promotes and not force:
            return REFUSED
        if not dry_run:
            _move(client, name, candidate.version, champion.version)
    return 0


def rollback(name: str) -> int:
    """Exchange `champion` and `previous`; returns the exit code.

    Raises:
        ValueError: if no version has the alias `previous`.
    """
    client = connect()
    with _one_at_a_time(name):
        former, champion = (
            candidates.of_version(version_by_alias(client, name, alias)) for alias in (PREVIOUS, CHAMPION)
        )
        tags = {"promotion.rolled_back": f"{_now()} by {user_name()}, in favour of version {former.version}"}
        _tag(client, name, champion.version, tags)
        _move(client, name, former.version, champion.version)
    return 0


@contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    """On this machine: two at once would each judge a champion that the other is about to replace."""
    store = hashlib.sha256(f"{mlflow.get_registry_uri()} {name}".encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"pipeline-promote-{store}.lock"):
        yield


def _champion(client: mlflow.MlflowClient, name: str) -> Entry | None:
    try:
        return candidates.of_version(version_by_alias(client, name, CHAMPION))
    except UnknownAliasError:
        return None


def _crown_the_first(client: mlflow.MlflowClient, name: str, candidate: Entry, dry_run: bool) -> int:
    print(f"{name} has no champion; version {candidate.version} {'would become' if dry_run else 'becomes'} it")
    if not dry_run:
        client.set_registered_model_alias(name, CHAMPION, candidate.version)
    return 0


def _examine(name: str, candidate: Entry, champion: Entry, data_dir: str) -> Verdict:
    """Let both predict the test images, which neither was trained on.

    Raises:
        ValueError: if the two were made for different data, or the data here is not theirs.
    """
    dataset = champion.tags.get("dataset", "mnist")
    digests = {each.tags.get("data_digest", "") for each in (candidate, champion)}
    source = datasets.load(dataset, data_dir)
    if candidate.tags.get("dataset", dataset) != dataset or digests - {source.digest, ""}:
        raise ValueError(
            f"version {candidate.version} was made on {candidate.tags.get('dataset')} "
            f"(digest {candidate.tags.get('data_digest')}), version {champion.version} on {dataset} "
            f"({champion.tags.get('data_digest')}), and {source.source} holds {source.digest}: "
            "they cannot be compared here"
        )
    images, labels = source.test.images.astype(np.float32), source.test.labels.astype(np.int64)
    predicted = []
    for each in (champion, candidate):
        with tempfile.TemporaryDirectory(prefix="pipeline-model-") as folder:
            loaded = load(each.uri, name, each.version, each.run_id, Path(folder))
        parts = np.array_split(images, max(1, len(images) // EXAMINED_AT_ONCE))
        predicted.append(np.concatenate([loaded.predict(part).argmax(axis=1) for part in parts]))
    return judge(labels, *predicted)


def _print_verdict(name: str, candidate: Entry, champion: Entry, verdict: Verdict) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in (name, "right", "accuracy", "right alone"):
        table.add_column(column)
    for who, right, alone in (
        (f"version {champion.version}, champion", verdict.champion, verdict.only_champion),
        (f"version {candidate.version}, candidate", verdict.candidate, verdict.only_candidate),
    ):
        table.add_row(who, f"{right:,}", f"{right / verdict.images:.2%}", str(alone))
    Console(file=sys.stdout, highlight=False).print(table)
    disagreements = verdict.only_champion + verdict.only_candidate
    print(f"exact McNemar test on {disagreements} of {verdict.images:,} test images: p = {verdict.p:.3g}")
    if verdict.promotes:
        print(verdict.words)


def _record(
    client: mlflow.MlflowClient, name: str, candidate: Entry, champion: Entry, verdict: Verdict, force: str
) -> None:
    candidate_share = verdict.candidate / verdict.images
    tags = {
        "promotion.verdict": verdict.words,
        "promotion.against": f"version {champion.version}",
        "promotion.accuracy": f"{candidate_share:.4f} against {verdict.champion / verdict.images:.4f}",
        "promotion.mcnemar": f"p = {verdict.p:.6g}, {verdict.only_candidate} to {verdict.only_champion}",
        "promotion.when": f"{_now()} by {user_name()}",
    }
    if force:
        tags["promotion.forced"] = force
    _tag(client, name, candidate.version, tags)


def _tag(client: mlflow.MlflowClient, name: str, version: str, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)


def _move(client: mlflow.MlflowClient, name: str, champion: str, previous: str) -> None:
    """Move both aliases: `previous` first, so that what is cut off in between can still be rolled back."""
    now = str(version_by_alias(client, name, CHAMPION).version)
    if now != previous:
        raise ValueError(f"version {now} became champion meanwhile; run promote again to be compared with it")
    client.set_registered_model_alias(name, PREVIOUS, previous)
    client.set_registered_model_alias(name, CHAMPION, champion)
    print(
        f"{name}: version {champion} is champion now, version {previous} previous (promote --rollback exchanges them)"
    )


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
