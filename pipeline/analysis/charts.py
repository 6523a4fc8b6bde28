"""A comparison in pictures: learning curves with a band, and intervals side by side."""

import io
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.analysis.comparison import Comparison, Group, bounds_of
from pipeline.analysis.statistics import Estimate, estimate
from pipeline.analysis.tables import difference_text

COLOURS = ("#3b6fb6", "#d1702a", "#3f8f4f", "#b03a48", "#7a5ca8", "#7c5a3c", "#c2629e", "#6f6f6f", "#9a9a2b", "#2d9aa8")


def curves(comparison: Comparison) -> bytes:
    """Each group's mean per epoch with its 95 % interval as a band, for loss and accuracy, as PNG."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = (("val_loss", "validation loss"), ("val_accuracy", "validation accuracy"))
    for axes, (metric, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for index, group in enumerate(comparison.groups):
            means, colour = _means_per_epoch(group, metric), COLOURS[index % len(COLOURS)]
            found = means.values()
            axes.plot(list(means), [each.mean for each in found], color=colour, label=_legend(group), linewidth=1.5)
            if len(group.runs) > 1:
                low, high = [each.low for each in found], [each.high for each in found]
                axes.fill_between(list(means), low, high, color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return _png(figure)


def _means_per_epoch(group: Group, metric: str) -> dict[int, Estimate]:
    """Epoch -> mean over the group's runs that have it."""
    histories = [run.curves[metric] for run in group.runs if metric in run.curves]
    epochs = sorted({epoch for history in histories for epoch in history})
    return {
        epoch: estimate([history[epoch] for history in histories if epoch in history], bounds_of(metric))
        for epoch in epochs
    }


def _legend(group: Group) -> str:
    diverged = f", {len(group.diverged)} more diverged" if group.diverged else ""
    return f"{group.label} (n = {len(group.runs)}{diverged})"


def intervals(comparison: Comparison) -> bytes:
    """Each group's final values: the runs as dots, mean, 95 % interval, and the difference to the baseline, as PNG."""
    figure = Figure(figsize=(9, 1.2 + 0.55 * len(comparison.groups)), layout="constrained")
    axes = figure.subplots()
    scale = 100 if "accuracy" in comparison.metric else 1
    low, high = (bound * scale for bound in bounds_of(comparison.metric))
    for place, group in enumerate(comparison.groups):
        values = [value * scale for value in group.values(comparison.metric).values()]
        if not values:  # all diverged: its line is there, its name says why nothing is on it
            continue
        found = estimate(values, (low, high))
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.35, markersize=5)
        error = [[found.mean - found.low], [found.high - found.mean]] if found.n > 1 else None
        axes.errorbar([found.mean], [place], xerr=error, fmt="D", color=colour, capsize=4, markersize=6)
    axes.set_yticks(range(len(comparison.groups)), _names(comparison))
    axes.set_ylim(len(comparison.groups) - 0.5, -0.5)
    unit = ", %" if scale == 100 else ""
    axes.set_xlabel(f"{comparison.metric.replace('_', ' ')}{unit}: runs, mean, 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    return _png(figure)


def _names(comparison: Comparison) -> Sequence[str]:
    names = []
    for group in comparison.groups:
        contrast = comparison.contrast(group.label)
        beside = group.fate or (difference_text(comparison.metric, contrast) if contrast else "")
        names.append(f"{group.label}\n{beside}" if beside else group.label)
    return names


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
