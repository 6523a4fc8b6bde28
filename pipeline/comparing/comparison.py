"""What runs have shown: groups of seeds, each against a baseline, with what a reader must know. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.comparing.groups import ENDED, Group, Run, group, training_of
from pipeline.comparing.looks import Plan
from pipeline.comparing.quantities import METRIC, higher_is_better, smallest_of
from pipeline.comparing.seen import NOTHING_SEEN, Origin, Seen, origin_of
from pipeline.comparing.verdicts import UNDECIDED, Contrast, contrasts
from pipeline.values import counted

# What every training of ours records, so that a comparison of nothing but divergences is no mistyped metric.
DEFAULT_METRICS = ("val_accuracy", "val_loss", "train_accuracy", "train_loss", "test_accuracy", "test_loss")


@dataclass(frozen=True)
class Comparison:
    """Groups of runs and what they show.

    Attributes:
        metric: the one that decides.
        groups: where there is a plan, with the runs that its looks took.
        contrasts: each group but the baseline against it.
        common: knobs that are the same everywhere.
        notes: what a reader must know before believing the table.
        smallest: differences below it are called the same.
        higher_better: whether more of the metric is what one wants.
        plan: of the looks; None: these runs were planned by nobody.
    """

    title: str
    metric: str
    baseline: str
    groups: tuple[Group, ...]
    contrasts: tuple[Contrast, ...]
    common: Mapping[str, str]
    notes: tuple[str, ...]
    smallest: float
    higher_better: bool
    plan: Plan | None = None

    def contrast(self, label: str) -> Contrast | None:
        """The contrast of a group; None for the baseline."""
        return next((each for each in self.contrasts if each.label == label), None)

    @property
    def undecided(self) -> tuple[Contrast, ...]:
        """The contrasts that more seeds could decide."""
        return tuple(each for each in self.contrasts if each.verdict == UNDECIDED)


def compare(
    runs: Iterable[Run],
    *,
    title: str = "",
    baseline: str | None = None,
    metric: str = METRIC,
    smallest: float | None = None,
    order: Sequence[str] = (),
    plan: Plan | None = None,
    objections: Mapping[str, str] = {},
    trainings: Mapping[str, str] = {},
    seen: Seen = NOTHING_SEEN,
    higher_better: bool | None = None,
) -> Comparison:
    """Group the runs and compare each group with the baseline.

    Args:
        runs: whatever was found; those that are not finished are counted and left out, those that diverged are
            counted with their group, whose verdict they are.
        title: the question, or where the runs are from.
        baseline: a group's label; None: the group with the most runs, of those the oldest.
        metric: the final value that decides.
        smallest: the smallest difference of interest in the metric; None: see `quantities.SMALLEST`.
        order: labels in the order wanted; groups that it does not name come last, the oldest first.
        plan: which seeds are looked at when; None: all runs count, and there are intervals, but no verdicts.
        objections: why the plan allows no verdict of a variant, by its label; of any: by `verdicts.EVERY`.
        trainings: what a question asks for now, label -> `groups.training_of`; other runs are counted and left out.
        seen: which runs were looked at before, and which are asked for; those of other code or data are told.
        higher_better: whether more of the metric is what one wants; None: as its name tells.

    Raises:
        ValueError: if there is nothing to compare, or no such baseline or metric.
    """
    runs, notes = _asked_for(list(runs), trainings)
    if plan:
        runs, former = _of_now(runs, baseline, plan, seen.now)
        notes += former
    groups, common, left_out = _groups(runs, metric, order)
    labels = [each.label for each in groups]
    if baseline is None:
        baseline = max(groups, key=lambda each: (len(each.runs), -min(run.started_ms for run in each.everyone))).label
    if baseline not in labels:
        raise ValueError(f"baseline {baseline!r} is not among the groups: {', '.join(labels)}")
    smallest = smallest or smallest_of(metric)
    if higher_better is None:
        higher_better = higher_is_better(metric) is not False
    found = contrasts(groups, baseline, metric, smallest, plan, objections, higher_better=higher_better)
    kept = tuple(_looked_at(each, baseline, found, plan) for each in groups)
    told_before = seen.note(kept)
    notes += [*left_out, *_of_the_plan(groups, kept, plan), *_notes(kept, metric), *filter(None, [told_before])]
    return Comparison(title, metric, baseline, kept, tuple(found), common, tuple(notes), smallest, higher_better, plan)


def _asked_for(runs: list[Run], trainings: Mapping[str, str]) -> tuple[list[Run], list[str]]:
    """The runs that a question asks for now, and how many others there are, in words.

    Raises:
        ValueError: if there are only others.
    """
    if not trainings:
        return runs, []
    wanted = [run for run in runs if trainings.get(run.tags.get("variant", "")) == training_of(run.params)]
    others = len(runs) - len(wanted)
    words = f"{counted(others, 'run')} of knobs that the question asks no more for, left out"
    if runs and not wanted:
        raise ValueError(f"none of {len(runs)} runs has the knobs that the question asks for now")
    return wanted, [words] if others else []


def _of_now(
    runs: list[Run], baseline: str | None, plan: Plan, asked: Mapping[str, Origin]
) -> tuple[list[Run], list[str]]:
    """The runs without those of former code or data, and how many these are, in words.

    An experiment trains anew where code or data changed: of a variant the runs count that are of the code and data it
    asked for last, or where it has not said of its newest run's, if they reach a look. Do they not, all stay, and the
    mixture is told.
    """
    variants: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.status in ENDED:
            variants.setdefault(_variant_of(run), []).append(run)
    current: dict[tuple[str, str], Origin] = {}
    for variant, ended in variants.items():
        newest = asked.get(variant[0]) or origin_of(max(ended, key=lambda run: run.started_ms))
        units = plan.baseline_units if variant[0] == baseline else plan.units
        seeds = {run.seed for run in ended if origin_of(run) == newest}
        if plan.looks and seeds.issuperset(units(plan.looks[0])):
            current[variant] = newest
    kept = [run for run in runs if current.get(_variant_of(run), origin_of(run)) == origin_of(run)]
    former = len(runs) - len(kept)
    return kept, [f"{counted(former, 'run')} of former code or data, left out"] if former else []


def _variant_of(run: Run) -> tuple[str, str]:
    return run.tags.get("variant", ""), training_of(run.params)


def _groups(runs: Sequence[Run], metric: str, order: Sequence[str]) -> tuple[list[Group], dict[str, str], list[str]]:
    """The groups in their order, what all have in common, and what was left out, in words.

    Raises:
        ValueError: if no run has the metric.
    """
    diverged = [run for run in runs if run.diverged and run.status in ENDED]
    measured = [run for run in runs if run.status == "FINISHED" and metric in run.metrics and not run.diverged]
    if not (measured or diverged) or not (measured or metric in DEFAULT_METRICS):
        known = sorted({name for run in runs for name in run.metrics})
        raise ValueError(
            f"none of {len(runs)} runs is finished and has {metric}; metrics there: {', '.join(known) or 'none'}"
        )
    found, common = group([*measured, *diverged])
    found.sort(key=lambda each: order.index(each.label) if each.label in order else len(order))
    notes = []
    if left_out := len(runs) - len(measured) - len(diverged):
        notes.append(f"{left_out} of {len(runs)} runs are not finished or lack {metric}, and are left out")
    if repeated := len(measured) + len(diverged) - sum(len(each.everyone) for each in found):
        notes.append(f"{counted(repeated, 'run', 'repeat')} a seed of their group; the newest of each counts")
    return found, common, notes


def _looked_at(group: Group, baseline: str, found: Sequence[Contrast], plan: Plan | None) -> Group:
    """The group with the runs that its look took; all that the plan has where no look was reached."""
    if plan is None:
        return group
    is_baseline = group.label == baseline
    looks = [each.look for each in found if is_baseline or each.label == group.label]
    size = max(looks, default=0) or len(plan.seeds)
    return group.only(plan.baseline_units(size) if is_baseline else plan.units(size))


def _of_the_plan(groups: Sequence[Group], kept: Sequence[Group], plan: Plan | None) -> Iterator[str]:
    """Runs that no look took."""
    if plan is None:
        return
    for whole, looked_at in zip(groups, kept, strict=True):
        planned = {*plan.seeds, *plan.baseline_seeds}
        if waiting := sum(run.seed in planned for run in whole.everyone) - len(looked_at.everyone):
            yield f"of {whole.label} {counted(waiting, 'more run', 'wait')} for the next look"
        if others := sum(run.seed not in planned for run in whole.everyone):
            yield f"of {whole.label} {counted(others, 'run', 'are')} left out, for want of a planned seed"


def _notes(groups: Sequence[Group], metric: str) -> Iterator[str]:
    finished = [run for each in groups for run in each.everyone]
    for each in groups:
        if each.diverged:
            numbers = ", ".join(sorted((run.seed for run in each.diverged), key=lambda seed: (len(seed), seed)))
            kept = f"; the values shown are of the other {len(each.runs)} and judge nothing" if each.runs else ""
            yield f"{each.label} {each.fate} (seed {numbers}){kept}"
    known = {"data": {run.data for run in finished}}
    for tag, what in {"code": "code", "device": "devices", "threads": "numbers of threads"}.items():
        known[what] = {run.tags[tag] for run in finished if tag in run.tags}
    for what, values in known.items():
        if len(values) > 1:
            yield f"runs on different {what} are compared with each other: {', '.join(sorted(values))}"
    if metric.startswith("val_") and any(run.params.get("validation_size") == "0" for run in finished):
        yield f"{metric} of runs with validation_size 0 is that of the test images: nothing may be selected by it"
