"""What is derived of a run's record: learning curves, confusion matrix, gallery of mistakes, a table of predictions."""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data import datasets
from pipeline.recording import predictions
from pipeline.recording.predictions import Predictions
from pipeline.recording.resuming import recorded_config
from pipeline.tracking.folders import data_digest
from pipeline.tracking.journal import Journal, RunFolder
from pipeline.tracking.lines import Event

if TYPE_CHECKING:
    from pipeline.data.dataset import Dataset

TABLE, PICTURES = "test_predictions.csv", "pictures"  # below the run's artifacts
CURVES, MATRIX, GALLERY = (f"{PICTURES}/{name}.png" for name in ("learning_curves", "confusion_matrix", "mistakes"))


def record(folder: RunFolder, data: "Callable[[], Dataset]") -> list[str]:
    """Draw all of a run that is over, and record it; see `draw`.

    Raises:
        RunIsAliveError: if another process holds the run.
        OSError: if the folder cannot be written.
    """
    journal = Journal(folder)
    try:
        problems = draw(folder, data)
        for path in drawn(folder):
            journal.artifact(path)
    finally:
        journal.close()
    return problems


def draw(folder: RunFolder, data: "Callable[[], Dataset]") -> list[str]:
    """Write all of it below the run's artifacts, byte for byte as a full record has it.

    Args:
        folder: the run's.
        data: gives the data that the run was trained on; asked only for a gallery.

    Returns:
        A line for each file that was not written, with the reason.
    """
    problems = draw_curves(folder)
    try:
        found = Predictions.load(folder.artifacts / predictions.FILE)
    except ValueError as error:
        names = ", ".join(Path(each).name for each in (TABLE, MATRIX, GALLERY))
        return [*problems, f"not drawn: {names}: {error}"]
    return problems + draw_predictions(folder, found, data)


def draw_curves(folder: RunFolder) -> list[str]:
    """The learning curves alone; a line if they cannot be drawn, which costs nothing but themselves."""
    from pipeline.recording import figures  # only now: it brings matplotlib

    history, evaluated = _history(folder.events())
    if not history:
        return [f"not drawn: {Path(CURVES).name}: the run has no epoch yet"]
    return _tried(folder.artifacts / CURVES, lambda path: figures.learning_curves(history, evaluated, path))


def draw_predictions(folder: RunFolder, found: Predictions, data: "Callable[[], Dataset]") -> list[str]:
    """Table, confusion matrix and, of images, the gallery; a line for each that cannot be written."""
    from pipeline.recording import figures

    spec, labels, artifacts = found.spec, found.labels, folder.artifacts
    problems = _tried(artifacts / TABLE, lambda path: _write_table(found, path))
    problems += _tried(artifacts / MATRIX, lambda path: figures.confusion_matrix(spec, labels, found.predicted, path))
    if spec.kind == "image":
        problems += _tried(
            artifacts / GALLERY,
            lambda path: figures.mistakes_gallery(spec, data().test.inputs, labels, found.probabilities, path),
        )
    return problems


def drawn(folder: RunFolder) -> list[Path]:
    """What lies below the run's artifacts of all this."""
    return [path for name in (TABLE, PICTURES) if (path := folder.artifacts / name).exists()]


def data_of(folder: RunFolder, data_dir: str | None = None) -> "Dataset":
    """The data that the run was trained on, as they lie now.

    Raises:
        ValueError: if they are not to be read, or are others.
    """
    config = recorded_config(folder)
    config = config.replace(data_dir=data_dir) if data_dir else config
    found, recorded = datasets.load(**config.data_knobs()), data_digest(folder.events())
    if found.digest != recorded:
        raise ValueError(f"the data in {config.data_dir} are others: digest {found.digest}, the run's was {recorded}")
    return found


def _tried(path: Path, draw: Callable[[Path], None]) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        draw(path)
    except Exception as error:  # whatever a user's data make NumPy or matplotlib raise
        words = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return [f"not drawn: {path.name}: {words}"]
    return []


def _history(events: Iterable[Event]) -> tuple[dict[int, dict[str, float]], str]:
    """Epoch -> metrics as they were recorded, and what the evaluation was on: `test images`."""
    history: dict[int, dict[str, float]] = {}
    profile: dict[str, Any] = {}
    for event in events:
        if event["kind"] == "metrics":
            history.setdefault(event["step"], {}).update(event["values"])
        elif event["kind"] == "dataset":
            profile = json.loads(event["inputs"][0]["dataset"]["profile"])
    examples = "images" if len(profile.get("features_shape", ())) > 2 else "rows"
    return history, f"{'held-out' if profile.get('held_out_for_validation') else 'test'} {examples}"


def _write_table(found: Predictions, path: Path) -> None:
    """One line an example: index, label, predicted, a probability for each class, exact to float32's last bit."""
    classes = found.spec.classes
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label", "predicted", *(f"p{name}" for name in classes)])
        rows = zip(found.labels.tolist(), found.predicted.tolist(), found.probabilities.tolist(), strict=True)
        for index, (label, predicted, row) in enumerate(rows):
            writer.writerow([index, classes[label], classes[predicted], *(f"{share:.9g}" for share in row)])
