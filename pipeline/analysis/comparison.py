"""What runs have shown, with error bars: groups of seeds, their means and intervals, each against a baseline. Pure."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline import divergence
from pipeline.analysis import statistics
from pipeline.analysis.statistics import ANY, CONFIDENCE, MAX_RUNS, MIN_RUNS, Bounds, Estimate, corrected, estimate
from pipeline.config import KNOBS, ROLES

# The smallest difference that a comparison should be able to see; where it could not, it says how many runs it takes.
SMALLEST = {"accuracy": 0.001, "loss": 0.005, "seconds": 0.05}
# What every training of ours records, so that a comparison of nothing but divergences is no mistyped metric.
DEFAULT_METRICS = ("val_accuracy", "val_loss", "train_accuracy", "train_loss", "test_accuracy", "test_loss")


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

    @property
    def seed(self) -> str:
        """The seed, as recorded."""
        return self.params.get("seed", "")


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

    def values(self, metric: str) -> dict[str, float]:
        """Seed -> final value, of the runs that have the metric."""
        return {run.seed: run.metrics[metric] for run in self.runs if metric in run.metrics}

    def estimate(self, metric: str) -> Estimate | None:
        """The group's mean, or None if no run has the metric."""
        values = list(self.values(metric).values())
        return estimate(values, bounds_of(metric)) if values else None


@dataclass(frozen=True)
class Contrast:
    """A group against the baseline, in one metric.

    Attributes:
        difference: group minus baseline; nan where runs of either diverged: the others judge nothing.
        p: of the test, corrected for the number of comparisons; nan if there are too few runs to test.
        needed: runs per group that would show the smallest difference of interest, if known.
    """

    label: str
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    test: str = ""
    verdict: str = ""
    needed: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Groups of runs and what they show.

    Attributes:
        metric: the one that decides.
        contrasts: each group but the baseline against it.
        common: knobs that are the same everywhere.
        notes: what a reader must know before believing the table.
    """

    title: str
    metric: str
    baseline: str
    groups: tuple[Group, ...]
    contrasts: tuple[Contrast, ...]
    common: Mapping[str, str]
    notes: tuple[str, ...]

    def contrast(self, label: str) -> Contrast | None:
        """The contrast of a group; None for the baseline."""
        return next((each for each in self.contrasts if each.label == label), None)


def compare(
    runs: Iterable[Run],
    *,
    title: str = "",
    baseline: str | None = None,
    metric: str = "val_accuracy",
    smallest: float | None = None,
    order: Sequence[str] = (),
) -> Comparison:
    """Group the runs and compare each group with the baseline.

    Args:
        runs: whatever was found; those that are not finished are counted and left out, those that diverged are
            counted with their group, whose verdict they are.
        title: the question, or where the runs are from.
        baseline: a group's label; None: the group with the most runs, of those the oldest.
        metric: the final value that decides.
        smallest: the smallest difference of interest in the metric; None: see `SMALLEST`.
        order: labels in the order wanted; groups that it does not name come last, the oldest first.

    Raises:
        ValueError: if there is nothing to compare, or no such baseline or metric.
    """
    runs = list(runs)
    diverged = [run for run in runs if run.diverged and run.status in ("FINISHED", "FAILED")]
    measured = [run for run in runs if run.status == "FINISHED" and metric in run.metrics and not run.diverged]
    finished = [*measured, *diverged]
    if not finished or not (measured or metric in DEFAULT_METRICS):
        known = sorted({name for run in runs for name in run.metrics})
        raise ValueError(
            f"none of {len(runs)} runs is finished and has {metric}; metrics there: {', '.join(known) or 'none'}"
        )
    groups, common = group(finished)
    groups.sort(key=lambda each: order.index(each.label) if each.label in order else len(order))
    labels = [each.label for each in groups]
    if baseline is None:
        baseline = max(groups, key=lambda each: (len(each.runs), -min(run.started_ms for run in each.everyone))).label
    if baseline not in labels:
        raise ValueError(f"baseline {baseline!r} is not among the groups: {', '.join(labels)}")
    contrasts = _contrasts(groups, baseline, metric, smallest or smallest_of(metric))
    notes = tuple(_notes(runs, finished, groups, metric))
    return Comparison(title, metric, baseline, tuple(groups), tuple(contrasts), common, notes)


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
    if len({each.label for each in groups}) < len(groups):  # variants of the same name with other knobs
        groups = [replace(each, label=_knobs_label(each.knobs)) for each in groups]
    return groups, common


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


def _contrasts(groups: Sequence[Group], baseline: str, metric: str, smallest: float) -> list[Contrast]:
    base = next(each for each in groups if each.label == baseline)
    others = [each for each in groups if each is not base]
    whole = [each for each in others if not (each.diverged or base.diverged)]
    tested = [statistics.test(each.values(metric), base.values(metric), bounds_of(metric)) for each in whole]
    contrasts = {
        each.label: Contrast(each.label, verdict=each.fate or f"not judged: {baseline} {base.fate}") for each in others
    }
    for other, found, p in zip(whole, tested, corrected([each.p for each in tested]), strict=True):
        needed = found.needed(smallest, (1 - CONFIDENCE) / len(whole))
        verdict = _verdict(found.difference, p, found.n, needed, higher_is_better(metric))
        numbers = (found.difference, found.low, found.high, p)
        contrasts[other.label] = Contrast(other.label, *numbers, found.name, verdict, needed)
    return list(contrasts.values())


def _verdict(difference: float, p: float, n: int, needed: int | None, higher_better: bool) -> str:
    """better, worse, no difference shown, or too few runs to say."""
    if n >= MIN_RUNS and p < 1 - CONFIDENCE:
        return "better" if (difference > 0) == higher_better else "worse"
    if n >= MIN_RUNS and needed is not None and needed <= n:
        return "no difference shown"
    if needed is None:
        return "too few runs to say"
    return f"too few runs to say (takes {needed if needed < MAX_RUNS else f'over {MAX_RUNS}'})"


def higher_is_better(metric: str) -> bool:
    """Whether more of the metric is what one wants."""
    return not any(word in metric for word in ("loss", "seconds", "error"))


def bounds_of(metric: str) -> Bounds:
    """Where the metric's values end: an accuracy at 0 and 1, a loss or a time at 0."""
    if "accuracy" in metric:
        return 0.0, 1.0
    return (0.0, math.inf) if "loss" in metric or "seconds" in metric else ANY


def smallest_of(metric: str) -> float:
    """The smallest difference of interest."""
    return next((value for word, value in SMALLEST.items() if word in metric), 0.001)


def _notes(runs: Sequence[Run], finished: Sequence[Run], groups: Sequence[Group], metric: str) -> Iterable[str]:
    if left_out := len(runs) - len(finished):
        yield f"{left_out} of {len(runs)} runs are not finished or lack {metric}, and are left out"
    for each in groups:
        if each.diverged:
            numbers = ", ".join(sorted((run.seed for run in each.diverged), key=lambda seed: (len(seed), seed)))
            kept = f"; the values shown are of the other {len(each.runs)} and judge nothing" if each.runs else ""
            yield f"{each.label} {each.fate} (seed {numbers}){kept}"
    if repeated := len(finished) - sum(len(each.everyone) for each in groups):
        yield f"{repeated} runs repeat a seed of their group; the newest of each counts"
    known = {"data": {run.data for run in finished}}
    for tag, what in {"code": "code", "device": "devices", "threads": "numbers of threads"}.items():
        known[what] = {run.tags[tag] for run in finished if tag in run.tags}
    for what, found in known.items():
        if len(found) > 1:
            yield f"runs on different {what} are compared with each other: {', '.join(sorted(found))}"
    if metric.startswith("val_") and any(run.params.get("validation_size") == "0" for run in finished):
        yield f"{metric} of runs with validation_size 0 is that of the test images: nothing may be selected by it"
