"""Each group against the baseline: the runs that a look takes, the interval that it allows, and the verdict from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.comparing import statistics
from pipeline.comparing.groups import Group
from pipeline.comparing.looks import ERROR, MOST_SEEDS, Plan, share, sizes
from pipeline.comparing.quantities import bounds_of
from pipeline.comparing.statistics import Difference, floored, in_pairs, variance

BETTER, WORSE, SAME, UNDECIDED, NONE = "better", "worse", "same", "undecided", "none"
EVERY = ""  # no variant's label: an objection against the whole plan
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
        """The error of its whole question at which it would just be shown, were it alone; nan without a test."""
        if self.found is None:
            return math.nan
        return min(1.0, self.found.p / share(self.look)) if self.look else self.found.p


@dataclass(frozen=True)
class _Pair:
    """A group and the baseline, as far as the look goes, with their values in the metric."""

    look: int
    group: Group
    base: Group
    values: Values
    base_values: Values

    @property
    def fate(self) -> str:
        if self.group.fate:
            return self.group.fate
        return f"not judged: {self.base.label} {self.base.fate}" if self.base.fate else ""

    @property
    def is_whole(self) -> bool:
        """Whether there is something to compare, and nothing diverged."""
        return bool(self.values and self.base_values) and not self.fate

    @property
    def has_pairs(self) -> bool:
        """Whether all seeds are common."""
        return self.values.keys() == self.base_values.keys()


def contrasts(
    groups: Sequence[Group],
    baseline: str,
    metric: str,
    smallest: float,
    plan: Plan | None,
    objections: Mapping[str, str] = {},
    *,
    higher_better: bool = True,
) -> list[Contrast]:
    """Each group but the baseline against it; see `comparison.compare`."""
    base = next(each for each in groups if each.label == baseline)
    others = [each for each in groups if each is not base]
    looks = {each.label: look_of(each, base, plan) if plan else 0 for each in others}
    pairs: dict[str, _Pair] = {}
    found: dict[str, Difference] = {}
    for size in sorted(set(looks.values())):  # a later look replaces what those that reached it had before
        at_look = _pairs([each for each in others if looks[each.label] >= size], base, metric, size, plan)
        whole = [each for each in at_look if each.is_whole]
        pairs |= {each.group.label: each for each in at_look}
        found |= zip([each.group.label for each in whole], _differences(whole, metric), strict=True)
    whole = [each for each in pairs.values() if each.is_whole]
    needed = _needed(whole, smallest, plan)
    judged = []
    for label, pair in ((each.label, pairs[each.label]) for each in others):
        reason = objections.get(EVERY) or objections.get(label) or (_mixture(pair) if plan else "no plan")
        if not pair.is_whole:
            open_or_none = NONE if reason else UNDECIDED
            judged.append(Contrast(label, verdict=pair.fate or open_or_none, reason=reason, look=pair.look))
            continue
        level = plan.level(pair.look) if plan and pair.look else ERROR / len(whole)
        low, high = found[label].interval(level) if pair.look or not plan else (math.nan, math.nan)
        verdict = NONE if reason else verdict_of(low, high, smallest, higher_better=higher_better)
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
    reached = [
        size
        for size in plan.looks
        if group.seeds.issuperset(plan.units(size)) and base.seeds.issuperset(plan.baseline_units(size))
    ]
    return max(reached, default=0)


def _pairs(groups: Sequence[Group], base: Group, metric: str, look: int, plan: Plan | None) -> list[_Pair]:
    """The groups and the baseline with the runs that the look takes; with all that are planned where there is none."""
    if plan:
        units, base_units = plan.units(look or len(plan.seeds)), plan.baseline_units(look or len(plan.seeds))
        groups, base = [each.only(units) for each in groups], base.only(base_units)
    values = base.values(metric)
    return [_Pair(look, each, base, each.values(metric), values) for each in groups]


def _differences(pairs: Sequence[_Pair], metric: str) -> list[Difference]:
    """The differences at one look, no spread that is small by luck among the several taken at its word."""
    if not pairs:
        return []
    spreads = [pairs[0].base_values, *(each.values for each in pairs)]
    of_base, *of_groups = floored([variance([*each.values()]) for each in spreads], 3)
    in_common = [each for each in pairs if each.has_pairs]
    of_pairs = iter(floored([variance(in_pairs(each.values, each.base_values)) for each in in_common], 2))
    found, bounds = [], bounds_of(metric)
    for each, own in zip(pairs, of_groups, strict=True):
        paired = next(of_pairs) if each.has_pairs else None
        found.append(statistics.difference(each.values, each.base_values, bounds, (own, of_base), paired))
    return found


def _mixture(pair: _Pair) -> str:
    """Why the runs of the two say nothing together, or nothing."""
    runs = [*pair.group.everyone, *pair.base.everyone]
    if len({run.tags.get("code") for run in runs}) > 1:
        for each in (pair.group, pair.base):
            if len({run.tags.get("code") for run in each.everyone}) > 1:
                return f"runs of different code in {each.label}"
        if len({run.tags.get("code") for run in runs if run.is_of_this_code_alone}) > 1:
            return "runs of different code"
    return "runs on different data" if len({run.data for run in runs}) > 1 else ""


def _needed(pairs: Sequence[_Pair], smallest: float, plan: Plan | None) -> tuple[int, int] | None:
    """Seeds of a variant at whose look a difference of `smallest` is shown in 80 %, by the spread of all groups."""
    if plan is None or not pairs or not smallest:  # no number of seeds shows every difference
        return None
    base = max((each.base_values for each in pairs), key=len)
    values = [[*each.values()] for each in (base, *(pair.values for pair in pairs))]
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
