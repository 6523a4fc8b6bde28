"""What a finished training leaves: the network, its predictions; in a full record what is drawn of them as well."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline import divergence
from pipeline.config import RunConfig, own_code
from pipeline.recording import drawing, export_trial, predictions
from pipeline.recording.description import what_differs
from pipeline.recording.predictions import Predictions
from pipeline.registry.tags import version_tags
from pipeline.tracking.run import Run
from pipeline.training import onnx_export
from pipeline.values import counted

if TYPE_CHECKING:
    from pipeline.data.dataset import Dataset
    from pipeline.training.fit import Result

EXAMPLES = 2
MODEL = "model"  # in the run's folder


def record_results(config: RunConfig, run: Run, result: "Result", *, draw: bool = True) -> None:
    """Write everything into the run's folder and record it.

    A network that diverged gives no probabilities: of it only learning curves are left.

    The predictions are those of the exported network, so they are what a client of the served model will get.

    Raises:
        RuntimeError: if the exported network does not answer as the trained one does.
    """
    source = result.data.source
    assert source is not None
    found = None
    if _gives_numbers(result):
        found = _record_network(config, run, result, source)
    else:
        print("warning: the network's answers are not finite: no model, no predictions", file=sys.stderr)
    if draw and config.record == "full":
        problems = drawing.draw_curves(run.folder)
        problems += drawing.draw_predictions(run.folder, found, lambda: source) if found else []
        for problem in problems:
            print(f"warning: {problem}", file=sys.stderr)
        for path in drawing.drawn(run.folder):
            run.artifact(path)


def _gives_numbers(result: "Result") -> bool:
    weights = result.classifier.network.parameters()
    return divergence.is_finite(result.test["test_loss"]) and all(bool(each.isfinite().all()) for each in weights)


def _record_network(config: RunConfig, run: Run, result: "Result", source: "Dataset") -> Predictions | None:
    """Export and try the network; record its predictions, and itself unless a light record is to go without."""
    with tempfile.TemporaryDirectory() as scratch:
        is_kept = bool(config.model_name) or config.record == "full"
        model = run.folder.path / MODEL if is_kept else Path(scratch)
        model.mkdir(exist_ok=True)
        if (found := _exported(config, result, source, model / "network.onnx")) is None:
            return None
        found.save(run.folder.artifacts / predictions.FILE)
        run.artifact(run.folder.artifacts / predictions.FILE)
        accuracy, spec = result.test["test_accuracy"], source.spec
        what = f"{len(found.labels):,} test {'images' if spec.kind == 'image' else 'rows'}"
        description = describe(config, accuracy, what, max(result.history, default=config.epochs))
        if is_kept:
            np.save(model / "example.npy", source.test.inputs[:EXAMPLES])
            parent = (run.folder.started() or {}).get("parent", "")
            tags = version_tags(accuracy, source.name, source.digest, config.data_knobs(), config.as_dict(), parent)
            files = model / "network.onnx", model / "example.npy"
            run.model(*files, config.registered_as, tags, description, spec.as_json())
        run.describe(description)
    return found


def _exported(config: RunConfig, result: "Result", source: "Dataset", path: Path) -> Predictions | None:
    """Write the network to the path; what it gives for the test examples, or None if it cannot be exported."""
    network, spec = result.classifier.network, source.spec
    try:
        probabilities = onnx_export.export_onnx(network, spec, path, source.test.inputs)
    except Exception as error:
        if not own_code.is_own(config.network) or isinstance(error, OSError):
            raise
        reason = export_trial.in_words(error, config.network)
        if config.registered_as:  # the training was over before the trial beside it
            raise export_trial.refusal(config.network, reason) from error
        print(f"warning: the network cannot be exported ({reason}): no model, no predictions", file=sys.stderr)
        return None
    return Predictions(spec, source.test.labels.astype(np.int64), probabilities)


def describe(config: RunConfig, accuracy: float, what: str, epochs: int) -> str:
    """The result in a line: `98.47 % on 10,000 test images; sample, 20 epochs`.

    Args:
        config: the knobs; those that are not the sample's are named.
        accuracy: share of the test examples that were recognised.
        what: of what: `10,000 test images`.
        epochs: how many epochs were trained.
    """
    return f"{100 * accuracy:.2f} % on {what}; {what_differs(config)}, {counted(epochs, 'epoch')}"
