"""Each group against the baseline: the runs that a look takes, the interval that it allows, and the verdict from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.comparing import statistics
from pipeline.comparing.groups import Group
from pipeline.comparing.looks import ERROR, MOST_SEEDS, Plan, sizes
from pipeline.comparing.quantities import bounds_of, higher_is_better
from pipeline.comparing.statistics import Difference, floored, in_pairs, variance

BETTER, WORSE, SAME, UNDECIDED, NONE = "better", "worse", "same", "undecided", "none"
Values = dict[str, float]


@dataclass(frozen=True)
class Contrast:
    """A group against the baseline, in one metric.

    Attributes:
        difference: group minus baseline; nan where runs of either diverged: the others judge nothing.
        low, high: the intervals of all contrasts at all looks hold together with 95 %; nan before the first look.
        verdict: better, worse, same (within the smallest difference of interest), undecided, none; or what became of
            runs that diverged.
        reason: why there is none.
        look: seeds of the variant that were looked at; 0: no look was reached, or none is planned.
        found: what the interval is made of.
        needed: seeds of the variant that would show the smallest difference of interest in 80 %, from and to.
    """

    label: str
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    verdict: str = ""
    reason: str = ""
    look: int = 0
    found: Difference | None = None
    needed: tuple[int, int] | None = None

    @property
    def test(self) -> str:
        """What the interval was made by, in words."""
        return self.found.test if self.found else ""

    @property
    def p(self) -> float:
        """The error at which this contrast alone, at its look, would just be shown; nan where there is no test."""
        return self.found.p if self.found else math.nan


@dataclass(frozen=True)
class _Pair:
    """A group and the baseline, as far as the look goes."""

    look: int
    group: Group
    base: Group

    @property
    def fate(self) -> str:
        if self.group.fate:
            return self.group.fate
        return f"not judged: {self.base.label} {self.base.fate}" if self.base.fate else ""


def contrasts(
    groups: Sequence[Group], baseline: str, metric: str, smallest: float, plan: Plan | None, objection: str = ""
) -> list[Contrast]:
    """Each group but the baseline against it; see `comparison.compare`."""
    base = next(each for each in groups if each.label == baseline)
    pairs = [_pair(each, base, plan) for each in groups if each is not base]
    whole = [each for each in pairs if not each.fate and each.group.values(metric) and each.base.values(metric)]
    found = dict(zip((each.group.label for each in whole), _differences(whole, metric), strict=True))
    needed = _needed(whole, metric, smallest, plan)
    judged = []
    for pair in pairs:
        label = pair.group.label
        if label not in found:
            judged.append(Contrast(label, verdict=pair.fate or UNDECIDED, look=pair.look))
            continue
        reason = objection or _mixture(pair) if plan else "no plan"
        level = plan.level(pair.look) if plan and pair.look else ERROR / len(whole)
        low, high = found[label].interval(level) if pair.look or not plan else (math.nan, math.nan)
        verdict = NONE if reason else verdict_of(low, high, smallest, higher_better=higher_is_better(metric))
        numbers = (found[label].difference, low, high)
        judged.append(Contrast(label, *numbers, verdict, reason, pair.look, found[label], needed))
    return judged


def verdict_of(low: float, high: float, smallest: float, *, higher_better: bool) -> str:
    """What the interval says, and nothing else does."""
    if low > 0 or high < 0:
        return BETTER if (low > 0) == higher_better else WORSE
    return SAME if -smallest <= low and high <= smallest else UNDECIDED


def look_of(group: Group, base: Group, plan: Plan) -> int:
    """The largest look whose runs have all ended, of the group and of the baseline; 0: none."""
    seeds, base_seeds = ({run.seed for run in each.everyone} for each in (group, base))
    reached = [
        size
        for size in plan.looks
        if seeds.issuperset(plan.units(size)) and base_seeds.issuperset(plan.baseline_units(size))
    ]
    return max(reached, default=0)


def _pair(group: Group, base: Group, plan: Plan | None) -> _Pair:
    if plan is None:
        return _Pair(0, group, base)
    look = look_of(group, base, plan)
    if not look:
        return _Pair(0, group.only(plan.units(len(plan.seeds))), base.only(plan.baseline_units(len(plan.seeds))))
    return _Pair(look, group.only(plan.units(look)), base.only(plan.baseline_units(look)))


def _differences(pairs: Sequence[_Pair], metric: str) -> list[Difference]:
    """The differences, no spread that is small by luck among the several taken at its word."""
    values = [(each.group.values(metric), each.base.values(metric)) for each in pairs]
    others = [variance([*group.values()]) for group, _ in values]
    of_pairs = floored([variance(in_pairs(group, base)) for group, base in values if group.keys() == base.keys()], 2)
    found, raised = [], iter(of_pairs)
    for (group, base), index in zip(values, range(len(values)), strict=True):
        variances = floored([variance([*base.values()]), *others], 3)
        paired = next(raised) if group.keys() == base.keys() else None
        found.append(
            statistics.difference(group, base, bounds_of(metric), (variances[index + 1], variances[0]), paired)
        )
    return found


def _mixture(pair: _Pair) -> str:
    """Why the runs of the two say nothing together, or nothing."""
    runs = [*pair.group.everyone, *pair.base.everyone]
    for each in (pair.group, pair.base):
        if len({run.tags.get("code") for run in each.everyone}) > 1:
            return f"runs of different code in {each.label}"
    if len({run.tags.get("code") for run in runs if run.is_of_this_code_alone}) > 1:
        return "runs of different code"
    return "runs on different data" if len({run.data for run in runs}) > 1 else ""


def _needed(pairs: Sequence[_Pair], metric: str, smallest: float, plan: Plan | None) -> tuple[int, int] | None:
    """Seeds of a variant at whose look a difference of `smallest` is shown in 80 %, by the spread of all groups."""
    if plan is None or not pairs:
        return None
    everyone: Mapping[str, Group] = {each.label: each for pair in pairs for each in (pair.group, pair.base)}
    values = [[*each.values(metric).values()] for each in everyone.values()]
    spreads = statistics.spread_range([variance(each) for each in values], [len(each) for each in values])
    if any(math.isnan(each) or each <= 0 for each in spreads):
        return None
    low, high = (_first_look(smallest / spread, plan) for spread in spreads)
    return low, high


def _first_look(effect: float, plan: Plan) -> int:
    for size in sizes(MOST_SEEDS):
        if statistics.shown_with(effect, size, plan.baseline_size(size), plan.level(size)) >= statistics.POWER:
            return size
    return 2 * MOST_SEEDS
