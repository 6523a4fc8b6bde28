"""What a finished training leaves for people and for the server: predictions, pictures, checkpoint, model."""

import csv
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import divergence
from pipeline.config import RunConfig, own_code
from pipeline.recording import export_trial, figures
from pipeline.recording.description import what_differs
from pipeline.registry.tags import version_tags
from pipeline.tracking.run import Run
from pipeline.training import checkpoints, onnx_export

if TYPE_CHECKING:
    from pipeline.data.dataset import Dataset
    from pipeline.training.fit import Result

EXAMPLES = 2


def record_results(config: RunConfig, run: Run, result: "Result") -> None:
    """Write everything into the run's folder and record it.

    A network that diverged gives no probabilities: of it only learning curves and checkpoint are left.

    The predictions are those of the exported network, so they are what a client of the served model will get.

    Raises:
        RuntimeError: if the exported network does not answer as the trained one does.
    """
    source = result.data.source
    assert source is not None
    artifacts = run.folder.artifacts
    examples = "images" if source.spec.kind == "image" else "rows"
    evaluated = f"{'held-out' if config.validation_size else 'test'} {examples}"
    _draw(figures.learning_curves, result.history, evaluated, artifacts / "pictures/learning_curves.png")
    if _gives_numbers(result):
        _write_predictions_and_model(config, run, result, source)
    else:
        print("warning: the network's answers are not finite: no model, no predictions", file=sys.stderr)
    final, _ = checkpoints.latest(run.folder.checkpoints)
    if final:
        (artifacts / "checkpoint").mkdir(exist_ok=True)
        shutil.copyfile(final, artifacts / "checkpoint" / "last.ckpt")
    for path in sorted(artifacts.iterdir()):
        if path.name in ("test_predictions.csv", "pictures", "checkpoint"):
            run.artifact(path)


def _gives_numbers(result: "Result") -> bool:
    weights = result.classifier.network.parameters()
    return divergence.is_finite(result.test["test_loss"]) and all(bool(each.isfinite().all()) for each in weights)


def _write_predictions_and_model(config: RunConfig, run: Run, result: "Result", source: "Dataset") -> None:
    inputs, labels, spec = source.test.inputs, source.test.labels.astype(np.int64), source.spec
    model = run.folder.path / "model"
    model.mkdir(exist_ok=True)
    network, example = model / "network.onnx", model / "example.npy"
    try:
        onnx_export.export_onnx(result.classifier.network, spec, network)
        probabilities = onnx_export.check_same(network, result.classifier.network, spec, inputs)
    except Exception as error:
        if config.model_name or not own_code.is_own(config.network):
            raise
        reason = export_trial.in_words(error, config.network)
        print(f"warning: the network cannot be exported ({reason}): no model, no predictions", file=sys.stderr)
        return
    np.save(example, inputs[:EXAMPLES])
    accuracy, parent = result.test["test_accuracy"], (run.folder.started() or {}).get("parent", "")
    tags = version_tags(accuracy, source.name, source.digest, config.data_knobs(), config.as_dict(), parent)
    what = f"{len(inputs):,} test {'images' if spec.kind == 'image' else 'rows'}"
    description = describe(config, accuracy, what, max(result.history, default=config.epochs))
    run.model(network, example, config.model_name, tags, description, spec.as_json())
    run.describe(description)

    artifacts = run.folder.artifacts
    _write_predictions(artifacts / "test_predictions.csv", spec.classes, labels, probabilities)
    predicted, pictures = probabilities.argmax(axis=1), artifacts / "pictures"
    _draw(figures.confusion_matrix, spec, labels, predicted, pictures / "confusion_matrix.png")
    if spec.kind == "image":
        _draw(figures.mistakes_gallery, spec, inputs, labels, probabilities, pictures / "mistakes.png")


def _draw(draw: Callable[..., None], *arguments: Any) -> None:
    """Draw a picture; one that cannot be drawn costs itself, not the run."""
    try:
        draw(*arguments)
    except Exception as error:
        print(f"warning: {arguments[-1].name} is not drawn ({type(error).__name__}: {error})", file=sys.stderr)


def describe(config: RunConfig, accuracy: float, what: str, epochs: int) -> str:
    """The result in a line: `98.47 % on 10,000 test images; sample, 20 epochs`.

    Args:
        config: the knobs; those that are not the sample's are named.
        accuracy: share of the test examples that were recognised.
        what: of what: `10,000 test images`.
        epochs: how many epochs were trained.
    """
    trained = f"{epochs} epoch{'s' * (epochs != 1)}"
    return f"{100 * accuracy:.2f} % on {what}; {what_differs(config)}, {trained}"


def _write_predictions(
    path: Path, classes: Sequence[str], labels: NDArray[np.int64], probabilities: NDArray[np.float32]
) -> None:
    """One line an example: index, label, predicted, a probability for each class, exact to float32's last bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label", "predicted", *(f"p{name}" for name in classes)])
        rows = zip(labels.tolist(), probabilities.argmax(axis=1).tolist(), probabilities.tolist(), strict=True)
        for index, (label, predicted, row) in enumerate(rows):
            writer.writerow([index, classes[label], classes[predicted], *(f"{share:.9g}" for share in row)])
