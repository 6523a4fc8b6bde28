"""Learning curves, confusion matrix, gallery of mistakes: what people look at before they read numbers."""

import io
import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.data_spec import DataSpec

PANELS = 3  # of the learning curves, side by side
GALLERY_ROWS, GALLERY_COLUMNS = 4, 8
MOST_COUNTED = 25  # classes whose counts are written into the matrix


def learning_curves(history: Mapping[int, Mapping[str, float]], evaluated: str, path: Path) -> None:
    """Draw loss, accuracy and each further measure of each epoch (from 1), in training and in evaluation, as PNG.

    Args:
        history: epoch -> metrics.
        evaluated: on what the evaluation was: `test images`.
        path: the file.
    """
    quantities = _quantities(history)
    columns = min(len(quantities), PANELS)
    rows = math.ceil(len(quantities) / columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    for place, quantity in enumerate(quantities, start=1):
        axes = figure.add_subplot(rows, columns, place)
        for stage, label in (("train", "training, with dropout"), ("val", evaluated)):
            name = f"{stage}_{quantity}"
            epochs = [epoch for epoch in sorted(history) if name in history[epoch]]
            axes.plot(epochs, [history[epoch][name] for epoch in epochs], marker=".", label=label)
        axes.set_xlabel("epoch")
        axes.set_title(quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def _quantities(history: Mapping[int, Mapping[str, float]]) -> list[str]:
    """What was measured in training or evaluation: loss, accuracy, the rest as it was logged."""
    parts = [name.partition("_") for metrics in history.values() for name in metrics]
    return list(dict.fromkeys(["loss", "accuracy", *(name for stage, _, name in parts if stage in ("train", "val"))]))


def confusion_matrix(spec: DataSpec, labels: NDArray[np.int64], predicted: NDArray[np.int64], path: Path) -> None:
    """Draw how often each true class (row) was taken for each class (column); the right ones are on the diagonal."""
    classes = len(spec.classes)
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    mistakes = counts - np.diag(np.diag(counts))
    side = min(6 + 0.15 * max(0, classes - 10), 16)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mistakes, cmap="Reds")
    if classes <= MOST_COUNTED:
        for true, guess in np.ndindex(counts.shape):
            colour = "white" if mistakes[true, guess] > mistakes.max() / 2 > 0 else "0.55" if true == guess else "black"
            if counts[true, guess]:
                axes.text(guess, true, str(counts[true, guess]), ha="center", va="center", color=colour, fontsize=8)
    names = [_short(name) for name in spec.classes]
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_xticks(range(classes), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(classes), names)
    if classes > MOST_COUNTED:
        axes.tick_params(labelsize=5)
    what = "images" if spec.kind == "image" else "rows"
    axes.set_title(f"{mistakes.sum():,} mistakes in {len(labels):,} test {what}")
    _save(figure, path)


def mistakes_gallery(
    spec: DataSpec, images: NDArray[np.uint8], labels: NDArray[np.int64], probabilities: NDArray[np.float32], path: Path
) -> None:
    """Draw the images (N, *spec.sent_shape) that the network got wrong with the least probability for the truth."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(probabilities[wrong, labels[wrong]])][: GALLERY_ROWS * GALLERY_COLUMNS]
    # One picture and one set of axes: thirty-two of them take a second to lay out.
    high, wide, *channels = spec.sent_shape
    height, width = high + max(14, high // 2), wide + max(6, wide // 5)
    sheet = np.full((GALLERY_ROWS * height, GALLERY_COLUMNS * width, *channels), 255, np.uint8)
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots()
    for place, index in enumerate(worst):
        top, left = (place // GALLERY_COLUMNS + 1) * height - high - 2, place % GALLERY_COLUMNS * width + 3
        sheet[top : top + high, left : left + wide] = 255 - images[index] if spec.drawing else images[index]
        truth, guess = (_short(spec.classes[number]) for number in (labels[index], predicted[index]))
        text = f"{truth}, taken for {guess}\n{probabilities[index].max():.0%} sure, no. {index}"
        axes.text(left + wide / 2, top - 1, text, ha="center", va="bottom", fontsize=7)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    axes.axis("off")
    axes.set_title(f"the worst of {len(wrong)} mistakes" if len(wrong) else "no mistakes")
    _save(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"


def as_png(figure: Figure) -> bytes:
    """The picture, names in it as they are: two dollars are no formula, and a letter that no font has is a box."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_png(figure))
