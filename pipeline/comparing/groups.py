"""Runs, and groups of those that differ only in chance: in the seed, and in which examples were held out."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pipeline import divergence
from pipeline.comparing.quantities import bounds_of
from pipeline.comparing.statistics import Estimate, estimate
from pipeline.config import KNOBS, ROLES, as_recorded, own_code
from pipeline.config.roles import names_of

ENDED = ("FINISHED", "FAILED")
SEEDS = ("seed", "validation_seed")
NAMED = [name for name, knob in KNOBS.items() if names_of(knob)]  # what may be code of the user's own


@dataclass(frozen=True)
class Run:
    """What is known of one run.

    Attributes:
        metrics: name -> final value.
        curves: name -> epoch (from 1) -> value; empty where nobody asked for curves.
    """

    run_id: str
    name: str
    status: str
    started_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    data: str = ""
    curves: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    experiment_id: str = ""

    @property
    def diverged(self) -> bool:
        """Whether its losses or weights became nan or infinite on the way, whatever its status."""
        return divergence.TAG in self.tags

    @cached_property
    def seed(self) -> str:
        """The seed, as recorded, and which examples were held out if they were others than usual: `3`, `3/2`."""
        held_out = self.params.get("validation_seed", "0")
        return self.params.get("seed", "") + (f"/{held_out}" if held_out not in ("", "0") else "")

    @property
    def is_of_this_code_alone(self) -> bool:
        """Whether its code digest is that of the package, no code of the user's own with it."""
        return not any(own_code.is_own(self.params.get(name, "")) for name in NAMED)


@dataclass(frozen=True)
class Group:
    """Runs that differ only in seed.

    Attributes:
        label: the variant's name, or the knobs that set the group apart.
        knobs: of the knobs that differ between groups, this one's.
        runs: those with a value to compare.
        diverged: those that have none, because they diverged.
    """

    label: str
    knobs: Mapping[str, str]
    runs: tuple[Run, ...]
    diverged: tuple[Run, ...] = ()

    @property
    def everyone(self) -> tuple[Run, ...]:
        """All runs, those that diverged last."""
        return self.runs + self.diverged

    @property
    def fate(self) -> str:
        """`diverged in 2 of 5 runs`, or nothing."""
        return f"diverged in {len(self.diverged)} of {len(self.everyone)} runs" if self.diverged else ""

    @cached_property
    def seeds(self) -> frozenset[str]:
        """Of all runs."""
        return frozenset(run.seed for run in self.everyone)

    def only(self, seeds: Collection[str]) -> "Group":
        """The group with its runs of these seeds alone."""
        wanted = frozenset(seeds)
        whole, diverged = (tuple(run for run in runs if run.seed in wanted) for runs in (self.runs, self.diverged))
        return replace(self, runs=whole, diverged=diverged)

    def values(self, metric: str) -> dict[str, float]:
        """Seed -> final value, of the runs that have the metric."""
        return {run.seed: run.metrics[metric] for run in self.runs if metric in run.metrics}

    def estimate(self, metric: str) -> Estimate | None:
        """The group's mean, or None if no run has the metric."""
        values = list(self.values(metric).values())
        return estimate(values, bounds_of(metric)) if values else None


def group(runs: Sequence[Run]) -> tuple[list[Group], dict[str, str]]:
    """Runs that differ only in seed, together, in the order of their first runs; and the knobs that all share.

    Of runs that repeat a seed of their group the newest counts.
    """
    same_in_kind = {name for name, role in ROLES.items() if not role.groups}
    names = sorted({name for run in runs for name in run.params} - same_in_kind)
    values = {name: {_param(run, name) for run in runs} for name in names}
    common = {name: next(iter(values[name])) for name in names if len(values[name]) == 1}
    different = [name for name in names if name not in common]
    by_knobs: dict[tuple[str, ...], dict[str, Run]] = {}
    for run in sorted(runs, key=lambda run: run.started_ms):
        key = tuple(_param(run, name) for name in different)
        by_knobs.setdefault(key, {})[run.seed] = run
    groups = [_group(dict(zip(different, key, strict=True)), seeds.values()) for key, seeds in by_knobs.items()]
    named = Counter(each.label for each in groups)  # variants of the same name may have other knobs
    return [replace(each, label=_knobs_label(each.knobs)) if named[each.label] > 1 else each for each in groups], common


def training_of(knobs: Mapping[str, object]) -> str:
    """Twelve hex digits of the knobs that decide a training, but for its seeds.

    A knob at its default counts as one that is not given: as of a run from before there was that knob.
    """
    deciding = sorted(
        (name, value)
        for name, value in as_recorded({name: str(value) for name, value in knobs.items()}).items()
        if name not in SEEDS and (name not in ROLES or (ROLES[name].decides and value != str(KNOBS[name].default)))
    )
    return hashlib.sha256(repr(deciding).encode()).hexdigest()[:12]


def _param(run: Run, name: str) -> str:
    """The run's param; of one from before there was another network than the sample's, also what it could not have."""
    is_of_before = {"dataset", "epochs"} <= run.params.keys() and "network" not in run.params and name in KNOBS
    return run.params.get(name, str(KNOBS[name].default) if is_of_before else "")


def _group(knobs: dict[str, str], runs: Collection[Run]) -> Group:
    variants = {run.tags.get("variant", "") for run in runs}
    label = (variants.pop() if len(variants) == 1 else "") or _knobs_label(knobs)
    whole, diverged = (tuple(run for run in runs if run.diverged is each) for each in (False, True))
    return Group(label, knobs, whole, diverged)


def _knobs_label(knobs: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in knobs.items()) or "all"
