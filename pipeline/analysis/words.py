"""What a comparison says, in words: numbers with their intervals, verdicts, what comes next, the answer."""

import math
from collections import Counter
from collections.abc import Sequence

from pipeline.comparing.comparison import Comparison
from pipeline.comparing.looks import ALL, MOST_SEEDS
from pipeline.comparing.statistics import Estimate
from pipeline.comparing.verdicts import NONE, SAME, UNDECIDED, Contrast
from pipeline.values import counted, duration

SECONDS = "seconds_per_epoch"
NO_VERDICT = "without a verdict"
FEW, MOST_TOLD = 6, 12  # contrasts that an answer names


def verdict_text(comparison: Comparison, contrast: Contrast) -> str:
    """`better`, `same within ±0.1`, `undecided (takes 20 to 40 seeds)`, `none: no plan`."""
    if contrast.verdict == SAME:
        return f"same within ±{_smallest_text(comparison)}"
    if contrast.verdict == NONE:
        return f"none: {contrast.reason}"
    if contrast.verdict != UNDECIDED or contrast.needed is None:
        return contrast.verdict
    low, high = contrast.needed
    if low > MOST_SEEDS:
        return f"{UNDECIDED} (takes over {MOST_SEEDS} seeds)"
    most = f"over {MOST_SEEDS}" if high > MOST_SEEDS else str(high)
    return f"{UNDECIDED} (takes {low if low == high else f'{low} to {most}'} seeds)"


def short_verdict(comparison: Comparison, contrast: Contrast) -> str:
    """The verdict without the reason why there is none."""
    return NO_VERDICT if contrast.verdict == NONE else verdict_text(comparison, contrast)


def _smallest_text(comparison: Comparison) -> str:
    return f"{comparison.smallest * scale_of(comparison.metric)[0]:g}"


def difference_text(metric: str, contrast: Contrast) -> str:
    """`+0.12 [0.05, 0.19]`, accuracies in percentage points."""
    scale, digits = scale_of(metric)
    if math.isnan(contrast.difference):
        return ""
    text = f"{contrast.difference * scale:+.{digits}f}"
    if math.isnan(contrast.low):
        return text
    return f"{text} [{contrast.low * scale:+.{digits}f}, {contrast.high * scale:+.{digits}f}]"


def scale_of(metric: str) -> tuple[float, int]:
    """By what a value is multiplied to be told, and with how many decimals."""
    return (100.0, 2) if "accuracy" in metric else (1.0, 2 if "seconds" in metric else 4)


def value_text(metric: str, value: Estimate | None, *, alone: bool) -> str:
    """`98.21 ± 0.05`; of a group alone, `98.21 ± 0.05, 98.15 to 98.27`, but of times."""
    if value is None:
        return ""
    scale, digits = scale_of(metric)
    text = f"{value.mean * scale:.{digits}f}"
    if math.isnan(value.sd):
        return text
    interval = "" if metric == SECONDS or not alone else f", {_interval_text(metric, value)}"
    return f"{text} ± {value.sd * scale:.{digits}f}{interval}"


def _interval_text(metric: str, value: Estimate) -> str:
    scale, digits = scale_of(metric)
    return f"{value.low * scale:.{digits}f} to {value.high * scale:.{digits}f}"


def facts(comparison: Comparison) -> list[str]:
    """The lines under a table: what its numbers are, tests, what comes next, notes, what all runs have in common."""
    what = "mean ± standard deviation" + (", 95 % interval of the mean" if len(comparison.groups) == 1 else "")
    return [what, *how_tested(comparison), *notes(comparison), in_common(comparison)]


def how_tested(comparison: Comparison) -> list[str]:
    """What made the intervals and what they speak of, and what comes next; nothing where there are none."""
    if not comparison.contrasts:
        return []
    shown = [each for each in comparison.contrasts if not math.isnan(each.low)]
    tests = ", ".join(dict.fromkeys(each.test for each in shown))
    lines = [f"intervals: {tests}; {_which_hold(comparison, shown)} with 95 %, for {_what_new_ones(comparison)}"]
    if comparison.plan is None:
        lines.append(
            "no verdict: no plan made these runs, and who looks until the answer pleases is wrong too often; "
            "a question with its seeds in an experiment file gets one"
        )
    return [*(lines if tests else lines[1:]), *_next_look(comparison)]


def _which_hold(comparison: Comparison, shown: Sequence[Contrast]) -> str:
    """Which intervals hold together: of a plan, those that it allows a verdict."""
    if comparison.plan is None:
        return "all intervals hold" if len(comparison.contrasts) > 1 else "the interval holds"
    planned = [each for each in shown if each.verdict != NONE]
    if not planned:
        return "each interval by itself holds"
    others = " but those without a verdict," if len(planned) < len(shown) else ""
    return f"all intervals, of all looks,{others} hold"


def _what_new_ones(comparison: Comparison) -> str:
    """What the intervals speak of; of other splits only if no two seeds share one: splits differ as seeds do."""
    look = max(each.look for each in comparison.contrasts)
    splits = comparison.plan.splits(look) if comparison.plan else 1
    if splits <= 1:
        return "new seeds on the same split"
    return "new seeds on new splits" if splits == look else f"new seeds on the same {splits} splits"


def _next_look(comparison: Comparison) -> list[str]:
    """`look 1 of 5, 10, 20; next: 10 seeds, about 4 min`, where something is undecided."""
    plan, undecided = comparison.plan, comparison.undecided
    if plan is None or not undecided:
        return []
    look = min(each.look for each in undecided)
    coming = next((size for size in ALL if size > look), None)
    where = f"look {ALL.index(look) + 1 if look else 0} of {', '.join(map(str, plan.looks)) or 'none'}"
    if coming is None:
        return [f"{where}; there is none after it"]
    wanted = {**{each.label: coming for each in undecided}, comparison.baseline: plan.baseline_size(coming)}
    runs = sum(max(0, wanted.get(each.label, 0) - len(each.everyone)) for each in comparison.groups)
    more = "" if coming <= len(plan.seeds) else f"; the file's seeds end at {len(plan.seeds)}"
    took = duration(runs * _run_s(comparison))
    return [f"{where}; next: {coming} seeds, {counted(runs, 'run')} more, about {took} of training{more}"]


def _run_s(comparison: Comparison) -> float:
    """Seconds that a run trains, in the mean."""
    trained = [
        run.metrics[SECONDS] * float(run.params.get("epochs") or 1)
        for each in comparison.groups
        for run in each.runs
        if SECONDS in run.metrics
    ]
    return sum(trained) / len(trained) if trained else 0.0


def notes(comparison: Comparison) -> list[str]:
    """What to mind: runs left out, other data, other code."""
    return [f"note: {note}" for note in comparison.notes]


def in_common(comparison: Comparison) -> str:
    """The knobs that no group has to itself."""
    return "common to all: " + ", ".join(f"{name}={value}" for name, value in comparison.common.items() if value != "")


def sentence(comparison: Comparison) -> str:
    """The answer in one sentence: the verdicts that are one, best first, and how many are none."""
    metric, base = comparison.metric, next(each for each in comparison.groups if each.label == comparison.baseline)
    found, (scale, digits) = base.estimate(metric), scale_of(metric)
    unit, points = (" %", " points") if "accuracy" in metric else ("", "")
    start = f"{_plain(metric)} of {base.label} is {found.mean * scale:.{digits}f}{unit}" if found else ""
    if base.diverged:
        start = f"{base.label} {base.fate}"
    elif found and not math.isnan(found.sd):
        interval = f", 95 % interval {_interval_text(metric, found)}" if not comparison.contrasts else ""
        start += f" (sd {found.sd * scale:.{digits}f}{interval}, n = {found.n})"
    if not comparison.contrasts:
        return f"{start}."
    sign = -1 if comparison.higher_better else 1
    ranked = sorted(comparison.contrasts, key=lambda one: (math.isnan(one.difference), sign * one.difference))
    told = [each for each in ranked if each.verdict not in (UNDECIDED, NONE)]
    open_ones = [each for each in ranked if each not in told]
    if len(open_ones) <= FEW:
        told, open_ones = ranked, []
    parts = [
        f"{each.label} {short_verdict(comparison, each)}"
        + ("" if math.isnan(each.difference) else f" ({each.difference * scale:+.{digits}f}{points})")
        for each in told[:MOST_TOLD]
    ]
    verdicts = Counter(each.verdict for each in [*told[MOST_TOLD:], *open_ones])
    named = {each.verdict for each in told}
    parts += [
        f"{count} {'more ' if word in named else ''}{NO_VERDICT if word == NONE else word}"
        for word, count in verdicts.items()
    ]
    return f"{start}; against it: {', '.join(parts)}."


def claim_text(label: str, metric: str, claimed: float, source: str, found: Estimate | None) -> str:
    """`cnn: a test accuracy of 98 % is claimed (its page); here it is 92.50 % (95 % interval ..., n = 10): less.`"""
    scale, digits = scale_of(metric)
    unit = " %" if "accuracy" in metric else ""
    start = f"{label}: a {_plain(metric)} of {claimed * scale:g}{unit} is claimed ({source}); here"
    if found is None:
        return f"{start} no run has one."
    here = f"{start} it is {found.mean * scale:.{digits}f}{unit}"
    if math.isnan(found.sd):
        return f"{here} (n = {found.n})."
    verdict = "less" if found.high < claimed else "more" if found.low > claimed else "which agrees"
    return f"{here} (95 % interval {_interval_text(metric, found)}, n = {found.n}): {verdict}."


def _plain(metric: str) -> str:
    stage, _, rest = metric.partition("_")
    words = {"val": "validation", "train": "training", "test": "test"}.get(stage)
    return f"{words} {rest}" if words else metric
