"""A comparison as text: for a terminal, as Markdown, CSV and JSON, and as one sentence."""

import csv
import io
import json
import math
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import divergence
from pipeline.analysis.comparison import Comparison, Contrast, Group, higher_is_better
from pipeline.analysis.statistics import Estimate

SECONDS = "seconds_per_epoch"


def metrics_of(comparison: Comparison) -> list[str]:
    """The metrics that a table shows: the deciding one first, then the other of loss and accuracy, then the time."""
    wanted = [comparison.metric, "val_accuracy", "val_loss", SECONDS]
    return [
        metric
        for metric in dict.fromkeys(wanted)
        if any(each.estimate(metric) is not None for each in comparison.groups)
    ]


def header(comparison: Comparison) -> list[str]:
    """The table's columns: the groups, then what sets each against the baseline."""
    return [*group_header(comparison), *contrast_header(comparison)]


def rows(comparison: Comparison) -> list[list[str]]:
    """The table's cells, a row a group."""
    return [[*group_row(comparison, group), *contrast_row(comparison, group)] for group in comparison.groups]


def group_header(comparison: Comparison) -> list[str]:
    """The columns that describe a group."""
    return ["variant", *_knobs(comparison), "n", *map(_short, metrics_of(comparison))]


def group_row(comparison: Comparison, group: Group) -> list[str]:
    """A group's knobs, number of runs and `mean ± sd, low to high` of each metric."""
    values = [_value_text(metric, group.estimate(metric)) for metric in metrics_of(comparison)]
    n = f"{len(group.runs)} (+{len(group.diverged)} diverged)" if group.diverged else str(len(group.runs))
    return [group.label, *[group.knobs[name] for name in _knobs(comparison)], n, *values]


def contrast_header(comparison: Comparison) -> list[str]:
    """The columns that set a group against the baseline; none if it stands alone."""
    metric = comparison.metric
    unit = ", points" if "accuracy" in metric else ""
    name = f"{metric.replace('_', ' ')} against {comparison.baseline}{unit}"
    return [name, "p", "verdict"] if comparison.contrasts else []


def contrast_row(comparison: Comparison, group: Group) -> list[str]:
    """The difference with its interval, the corrected p value, the verdict."""
    contrast = comparison.contrast(group.label)
    if contrast is None:
        return ["baseline", "", group.fate] if comparison.contrasts else []
    return [difference_text(comparison.metric, contrast), _p_text(contrast.p), contrast.verdict]


def _knobs(comparison: Comparison) -> list[str]:
    """The knobs that differ and that the groups' labels do not tell already."""
    told = [each.label.replace("=", " ").split() for each in comparison.groups]
    return [
        knob
        for knob in comparison.groups[0].knobs
        if any(each.knobs[knob] not in words for each, words in zip(comparison.groups, told, strict=True))
    ]


def difference_text(metric: str, contrast: Contrast) -> str:
    """`+0.12 [0.05, 0.19]`, accuracies in percentage points."""
    scale, digits = _scale(metric)
    if math.isnan(contrast.difference):
        return ""
    text = f"{contrast.difference * scale:+.{digits}f}"
    if math.isnan(contrast.low):
        return text
    return f"{text} [{contrast.low * scale:+.{digits}f}, {contrast.high * scale:+.{digits}f}]"


def _short(metric: str) -> str:
    name = "s/epoch" if metric == SECONDS else metric.replace("_", " ")
    return f"{name}, %" if "accuracy" in metric else name


def _scale(metric: str) -> tuple[float, int]:
    return (100.0, 2) if "accuracy" in metric else (1.0, 2 if "seconds" in metric else 4)


def _value_text(metric: str, value: Estimate | None) -> str:
    """`98.21 ± 0.05, 98.15 to 98.27`; of times only mean and spread."""
    if value is None:
        return ""
    scale, digits = _scale(metric)
    text = f"{value.mean * scale:.{digits}f}"
    if math.isnan(value.sd):
        return text
    interval = "" if metric == SECONDS else f", {_interval_text(metric, value)}"
    return f"{text} ± {value.sd * scale:.{digits}f}{interval}"


def _interval_text(metric: str, value: Estimate) -> str:
    scale, digits = _scale(metric)
    return f"{value.low * scale:.{digits}f} to {value.high * scale:.{digits}f}"


def _p_text(p: float) -> str:
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def print_comparison(comparison: Comparison) -> None:
    """Print the table, as wide as the terminal, with what is common to all and what to know before believing it."""
    console = Console(file=sys.stdout, highlight=False)
    if comparison.title:
        console.print(comparison.title, style="bold")
    console.print(_table(group_header(comparison), [group_row(comparison, each) for each in comparison.groups]))
    if comparison.contrasts:
        others = [each for each in comparison.groups if each.label != comparison.baseline]
        lines = [[each.label, *contrast_row(comparison, each)] for each in others]
        console.print(_table(["", *contrast_header(comparison)], lines))
    for line in ("mean ± standard deviation, 95 % interval of the mean", *facts(comparison)):
        console.print(Text(line), style="dim")


def _table(names: list[str], lines: list[list[str]]) -> Table:
    """A table for the terminal; a cell with an interval takes two lines."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*[Text(cell.replace(", ", "\n", 1) if " ± " in cell else cell) for cell in line])
    return table


def facts(comparison: Comparison) -> list[str]:
    """The lines under a table: tests, notes, what all runs have in common."""
    return [*how_tested(comparison), *notes(comparison), in_common(comparison)]


def how_tested(comparison: Comparison) -> list[str]:
    """Which test gave the p values, and how they were corrected; nothing where there are none."""
    tests = ", ".join(dict.fromkeys(each.test for each in comparison.contrasts if each.test))
    count = sum(bool(each.test) for each in comparison.contrasts)
    correction = f"; Holm's correction for {count} comparisons" if count > 1 else ""
    return [f"p: {tests}{correction}"] if tests else []


def notes(comparison: Comparison) -> list[str]:
    """What to mind: runs left out, other data, other code."""
    return [f"note: {note}" for note in comparison.notes]


def in_common(comparison: Comparison) -> str:
    """The knobs that no group has to itself."""
    return "common to all: " + ", ".join(f"{name}={value}" for name, value in comparison.common.items() if value != "")


def markdown(comparison: Comparison) -> str:
    """The table in Markdown."""
    lines = [header(comparison), ["---"] * len(header(comparison)), *rows(comparison)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_csv(comparison: Comparison) -> str:
    """A row a run, for machines: its group, its id, its knobs that differ, its final values in full."""
    knobs = list(comparison.groups[0].knobs)
    metrics = sorted({name for group in comparison.groups for run in group.runs for name in run.metrics})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "run_id", "seed", *knobs, *metrics, divergence.TAG])
    for group in comparison.groups:
        for run in group.everyone:
            own = [group.label, run.run_id, run.seed, *(group.knobs[name] for name in knobs)]
            writer.writerow([*own, *(run.metrics.get(name, "") for name in metrics), run.tags.get(divergence.TAG, "")])
    return text.getvalue()


def as_json(comparison: Comparison) -> str:
    """Everything that the comparison found, for machines; a number that is not there is null."""

    def plain(found: Estimate | Contrast) -> dict[str, Any]:
        lacks = {name for name, value in vars(found).items() if isinstance(value, float) and not math.isfinite(value)}
        return vars(found) | dict.fromkeys(lacks)

    metrics = [*metrics_of(comparison), "test_accuracy", "test_loss"]
    groups = [
        {
            "label": group.label,
            "knobs": dict(group.knobs),
            "runs": [run.run_id for run in group.runs],
            "diverged": [run.run_id for run in group.diverged],
            **{metric: plain(found) for metric in metrics if (found := group.estimate(metric))},
        }
        for group in comparison.groups
    ]
    content = {
        "title": comparison.title,
        "metric": comparison.metric,
        "baseline": comparison.baseline,
        "groups": groups,
        "contrasts": [plain(each) for each in comparison.contrasts],
        "common": dict(comparison.common),
        "notes": list(comparison.notes),
    }
    return json.dumps(content, indent=1) + "\n"


def sentence(comparison: Comparison) -> str:
    """The answer in one sentence."""
    metric, base = comparison.metric, next(each for each in comparison.groups if each.label == comparison.baseline)
    found, (scale, digits) = base.estimate(metric), _scale(metric)
    unit, points = (" %", " points") if "accuracy" in metric else ("", "")
    start = f"{_plain(metric)} of {base.label} is {found.mean * scale:.{digits}f}{unit}" if found else ""
    if base.diverged:
        start = f"{base.label} {base.fate}"
    elif found and not math.isnan(found.sd):
        start += f" (sd {found.sd * scale:.{digits}f}, 95 % interval {_interval_text(metric, found)}, n = {found.n})"
    if not comparison.contrasts:
        return f"{start}."
    sign = -1 if higher_is_better(metric) else 1
    parts = [
        f"{each.label} {each.verdict}"
        + ("" if math.isnan(each.difference) else f" ({each.difference * scale:+.{digits}f}{points})")
        for each in sorted(comparison.contrasts, key=lambda one: (math.isnan(one.difference), sign * one.difference))
    ]
    return f"{start}; against it: {', '.join(parts)}."


def _plain(metric: str) -> str:
    stage, _, rest = metric.partition("_")
    words = {"val": "validation", "train": "training", "test": "test"}.get(stage)
    return f"{words} {rest}" if words else metric
