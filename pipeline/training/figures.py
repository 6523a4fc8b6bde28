"""Learning curves, confusion matrix, gallery of mistakes: what people look at before they read numbers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

GALLERY_ROWS, GALLERY_COLUMNS = 4, 8


def learning_curves(history: Mapping[int, Mapping[str, float]], path: Path, validation_is_test: bool) -> None:
    """Draw loss and accuracy of each epoch (from 1), in training and in evaluation, to a PNG file."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    epochs = sorted(history)
    evaluated = "test images" if validation_is_test else "held-out images"
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for stage, label in (("train", "training, with dropout"), ("val", evaluated)):
            values = [history[epoch][f"{stage}_{quantity}"] for epoch in epochs]
            axes.plot(epochs, values, marker=".", label=label)
        axes.set_xlabel("epoch")
        axes.set_title(quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def confusion_matrix(labels: NDArray[np.int64], predicted: NDArray[np.int64], path: Path) -> None:
    """Draw how often each true class (row) was taken for each class (column); the right ones are on the diagonal."""
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    mistakes = counts - np.diag(np.diag(counts))
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mistakes, cmap="Reds")
    for true, guess in np.ndindex(counts.shape):
        colour = "white" if mistakes[true, guess] > mistakes.max() / 2 > 0 else "0.55" if true == guess else "black"
        if counts[true, guess]:
            axes.text(guess, true, str(counts[true, guess]), ha="center", va="center", color=colour, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true", xticks=range(10), yticks=range(10))
    axes.set_title(f"{mistakes.sum():,} mistakes in {len(labels):,} test images")
    _save(figure, path)


def mistakes_gallery(
    images: NDArray[np.uint8], labels: NDArray[np.int64], probabilities: NDArray[np.float32], path: Path
) -> None:
    """Draw the images (N, 28, 28) that the network got wrong with the least probability for the truth."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(probabilities[wrong, labels[wrong]])][: GALLERY_ROWS * GALLERY_COLUMNS]
    # One picture and one set of axes: thirty-two of them take a second to lay out.
    height, width = 28 + 14, 28 + 6
    sheet = np.full((GALLERY_ROWS * height, GALLERY_COLUMNS * width), 255, np.uint8)
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots()
    for place, index in enumerate(worst):
        top, left = place // GALLERY_COLUMNS * height + 12, place % GALLERY_COLUMNS * width + 3
        sheet[top : top + 28, left : left + 28] = 255 - images[index]
        guess = predicted[index]
        text = f"{labels[index]}, taken for {guess}\n{probabilities[index, guess]:.0%} sure, no. {index}"
        axes.text(left + 14, top - 1, text, ha="center", va="bottom", fontsize=7)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    axes.axis("off")
    axes.set_title(f"the worst of {len(wrong)} mistakes" if len(wrong) else "no mistakes")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))  # type: ignore[no-untyped-call]
