"""What a finished training leaves for people and for the server: predictions, pictures, checkpoint, model."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline import divergence
from pipeline.config import RunConfig
from pipeline.recording.description import what_differs
from pipeline.registry.tags import version_tags
from pipeline.tracking.run import Run
from pipeline.training import checkpoints, figures, onnx_export

if TYPE_CHECKING:
    from pipeline.data.datasets import ImageData
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
    figures.learning_curves(result.history, artifacts / "pictures/learning_curves.png", not config.validation_size)
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


def _write_predictions_and_model(config: RunConfig, run: Run, result: "Result", source: "ImageData") -> None:
    images, labels = source.test.images, source.test.labels.astype(np.int64)
    model = run.folder.path / "model"
    model.mkdir(exist_ok=True)
    network, example = model / "network.onnx", model / "example.npy"
    onnx_export.export_onnx(result.classifier.network, network)
    probabilities = onnx_export.check_same(network, result.classifier.network, images)
    np.save(example, images[:EXAMPLES])
    tags = version_tags(result.test["test_accuracy"], source.name, source.digest)
    description = describe(
        config, result.test["test_accuracy"], len(images), max(result.history, default=config.epochs)
    )
    run.model(network, example, config.model_name, tags, description)
    run.describe(description)

    artifacts = run.folder.artifacts
    _write_predictions(artifacts / "test_predictions.csv", labels, probabilities)
    figures.confusion_matrix(labels, probabilities.argmax(axis=1), artifacts / "pictures/confusion_matrix.png")
    figures.mistakes_gallery(images, labels, probabilities, artifacts / "pictures/mistakes.png")


def describe(config: RunConfig, accuracy: float, images: int, epochs: int) -> str:
    """The result in a line: `98.47 % on 10,000 test images; sample, 20 epochs`.

    Args:
        config: the knobs; those that are not the sample's are named.
        accuracy: share of the test images that were recognised.
        images: how many test images there were.
        epochs: how many epochs were trained.
    """
    trained = f"{epochs} epoch{'s' * (epochs != 1)}"
    return f"{100 * accuracy:.2f} % on {images:,} test images; {what_differs(config)}, {trained}"


def _write_predictions(path: Path, labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> None:
    """One line an image: index, label, predicted, and the ten probabilities, exact to the last bit of float32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.column_stack(
        [np.arange(len(labels)), labels, probabilities.argmax(axis=1), probabilities.astype(np.float64)]
    )
    header = ",".join(["index", "label", "predicted", *(f"p{digit}" for digit in range(10))])
    np.savetxt(path, columns, fmt=["%d"] * 3 + ["%.9g"] * 10, delimiter=",", header=header, comments="")
