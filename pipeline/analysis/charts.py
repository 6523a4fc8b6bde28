"""A comparison in pictures: learning curves with a band, and intervals side by side."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.analysis.curves import means_per_epoch
from pipeline.analysis.words import difference_text, short_verdict
from pipeline.comparing.comparison import Comparison
from pipeline.comparing.groups import Group
from pipeline.comparing.quantities import bounds_of
from pipeline.comparing.statistics import estimate
from pipeline.comparing.verdicts import Contrast
from pipeline.recording.figures import as_png

COLOURS = ("#3b6fb6", "#d1702a", "#3f8f4f", "#b03a48", "#7a5ca8", "#7c5a3c", "#c2629e", "#6f6f6f", "#9a9a2b", "#2d9aa8")


def curves(comparison: Comparison) -> bytes:
    """Each group's mean per epoch with its pointwise 95 % interval as a band, for loss and accuracy, as PNG."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = (("val_loss", "validation loss"), ("val_accuracy", "validation accuracy"))
    for axes, (metric, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for index, group in enumerate(comparison.groups):
            means, colour = means_per_epoch(group, metric), COLOURS[index % len(COLOURS)]
            found = means.values()
            axes.plot(list(means), [each.mean for each in found], color=colour, label=_legend(group), linewidth=1.5)
            if len(group.runs) > 1:
                low, high = [each.low for each in found], [each.high for each in found]
                axes.fill_between(list(means), low, high, color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return as_png(figure)


def _legend(group: Group) -> str:
    diverged = f", {len(group.diverged)} more diverged" if group.diverged else ""
    return f"{group.label} (n = {len(group.runs)}{diverged})"


def intervals(comparison: Comparison) -> bytes:
    """Each group's final values, and beside them its difference to the baseline with the interval that is judged."""
    places, contrasts = range(len(comparison.groups)), bool(comparison.contrasts)
    figure = Figure(figsize=(11 if contrasts else 9, 1.4 + 0.5 * len(places)), layout="constrained")
    panels = figure.subplots(1, 2 if contrasts else 1, sharey=True, squeeze=False)[0]
    scale = 100 if "accuracy" in comparison.metric else 1
    for place, group in enumerate(comparison.groups):
        _draw_runs(panels[0], place, [value * scale for value in group.values(comparison.metric).values()], comparison)
        contrast = comparison.contrast(group.label)
        if contrast and contrast.difference == contrast.difference:
            _draw_contrast(panels[1], place, contrast, scale)
    name, unit = comparison.metric.replace("_", " "), ", %" if scale == 100 else ""
    panels[0].set_yticks(places, [_name(comparison, group) for group in comparison.groups])
    panels[0].set_ylim(len(places) - 0.5, -0.5)
    panels[0].set_xlabel(f"{name}{unit}: runs and mean" + ("" if contrasts else ", 95 % interval"))
    if contrasts:
        panels[1].axvspan(-comparison.smallest * scale, comparison.smallest * scale, color="#888888", alpha=0.15)
        panels[1].axvline(0, color="#888888", linewidth=1)
        unit = ", points" if scale == 100 else ""
        panels[1].set_xlabel(f"difference to {comparison.baseline}{unit}: the interval that is judged")
    for axes in panels:
        axes.grid(axis="x", alpha=0.3)
    return as_png(figure)


def _draw_runs(axes: Axes, place: int, values: list[float], comparison: Comparison) -> None:
    if not values:  # all diverged: its line is there, its name says why nothing is on it
        return
    scale, colour = (100 if "accuracy" in comparison.metric else 1), COLOURS[place % len(COLOURS)]
    low, high = (bound * scale for bound in bounds_of(comparison.metric))
    found = estimate(values, (low, high))
    axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.35, markersize=5)
    with_interval = found.n > 1 and len(comparison.groups) == 1
    error = [[found.mean - found.low], [found.high - found.mean]] if with_interval else None
    axes.errorbar([found.mean], [place], xerr=error, fmt="D", color=colour, capsize=4, markersize=6)


def _draw_contrast(axes: Axes, place: int, contrast: Contrast, scale: float) -> None:
    colour, centre = COLOURS[place % len(COLOURS)], contrast.difference * scale
    has_interval = contrast.low == contrast.low
    error = [[centre - contrast.low * scale], [contrast.high * scale - centre]] if has_interval else None
    axes.errorbar([centre], [place], xerr=error, fmt="D", color=colour, capsize=4, markersize=6)


def _name(comparison: Comparison, group: Group) -> str:
    contrast = comparison.contrast(group.label)
    if contrast is None or group.fate:
        return f"{group.label}\n{group.fate}" if group.fate else group.label
    beside = difference_text(comparison.metric, contrast)
    return f"{group.label}\n{beside} {short_verdict(comparison, contrast).partition(' (')[0]}"
