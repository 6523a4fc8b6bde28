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
from pipeline.analysis.words import SECONDS, difference_text, facts, value_text, verdict_text
from pipeline.comparing.comparison import Comparison
from pipeline.comparing.groups import Group

CONTRAST = ("label", "difference", "low", "high", "verdict", "reason", "look", "test", "needed", "p")


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
    """A group's knobs, number of runs and `mean ± sd` of each metric; alone, also the interval of the mean."""
    alone = len(comparison.groups) == 1
    values = [value_text(metric, group.estimate(metric), alone=alone) for metric in metrics_of(comparison)]
    n = f"{len(group.runs)} (+{len(group.diverged)} diverged)" if group.diverged else str(len(group.runs))
    return [group.label, *[group.knobs[name] for name in _knobs(comparison)], n, *values]


def contrast_header(comparison: Comparison) -> list[str]:
    """The columns that set a group against the baseline; none if it stands alone."""
    metric = comparison.metric
    unit = ", points" if "accuracy" in metric else ""
    name = f"{metric.replace('_', ' ')} against {comparison.baseline}{unit}"
    return [name, "verdict"] if comparison.contrasts else []


def contrast_row(comparison: Comparison, group: Group) -> list[str]:
    """The difference with its interval, and the verdict from it."""
    contrast = comparison.contrast(group.label)
    if contrast is None:
        return ["baseline", group.fate] if comparison.contrasts else []
    return [difference_text(comparison.metric, contrast), verdict_text(comparison, contrast)]


def _knobs(comparison: Comparison) -> list[str]:
    """The knobs that differ and that the groups' labels do not tell already."""
    told = [each.label.replace("=", " ").split() for each in comparison.groups]
    return [
        knob
        for knob in comparison.groups[0].knobs
        if any(each.knobs[knob] not in words for each, words in zip(comparison.groups, told, strict=True))
    ]


def _short(metric: str) -> str:
    name = "s/epoch" if metric == SECONDS else metric.replace("_", " ")
    return f"{name}, %" if "accuracy" in metric else name


def print_comparison(comparison: Comparison) -> None:
    """Print the table, as wide as the terminal, with what is common to all and what to know before believing it."""
    console = Console(file=sys.stdout, highlight=False)
    if comparison.title:
        console.print(Text(comparison.title), style="bold")
    console.print(_table(group_header(comparison), [group_row(comparison, each) for each in comparison.groups]))
    if comparison.contrasts:
        others = [each for each in comparison.groups if each.label != comparison.baseline]
        lines = [[each.label, *contrast_row(comparison, each)] for each in others]
        console.print(_table(["", *contrast_header(comparison)], lines))
    for line in facts(comparison):
        console.print(Text(line), style="dim")


def _table(names: list[str], lines: list[list[str]]) -> Table:
    """A table for the terminal; a cell with an interval takes two lines."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for line in lines:
        table.add_row(*[Text(cell.replace(", ", "\n", 1) if " ± " in cell else cell) for cell in line])
    return table


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
    metrics = [*metrics_of(comparison), "test_accuracy", "test_loss"]
    unsaid = {} if len(comparison.groups) == 1 else dict.fromkeys(("low", "high"))  # what is not judged is not told
    groups = [
        {
            "label": group.label,
            "knobs": dict(group.knobs),
            "runs": [run.run_id for run in group.runs],
            "diverged": [run.run_id for run in group.diverged],
            **{
                metric: _plain_numbers({**vars(found), **unsaid})
                for metric in metrics
                if (found := group.estimate(metric))
            },
        }
        for group in comparison.groups
    ]
    content = {
        "title": comparison.title,
        "metric": comparison.metric,
        "baseline": comparison.baseline,
        "groups": groups,
        "smallest": comparison.smallest,
        "looks": comparison.plan.looks if comparison.plan else None,
        "contrasts": [
            _plain_numbers({name: getattr(each, name) for name in CONTRAST}) for each in comparison.contrasts
        ],
        "common": dict(comparison.common),
        "notes": list(comparison.notes),
    }
    return json.dumps(content, indent=1) + "\n"


def _plain_numbers(found: dict[str, Any]) -> dict[str, Any]:
    lacks = {name for name, value in found.items() if isinstance(value, float) and not math.isfinite(value)}
    return found | dict.fromkeys(lacks)
