"""The served model: what a client may send, what it gets back.

MLflow stores this file beside the network (models from code) and runs it where the model is served, without the rest of
this package, torch or pickle: it may import only what `REQUIREMENTS` names.
"""

import json
from itertools import chain
from typing import Any, NamedTuple

import mlflow
import numpy as np
import onnxruntime
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

REQUIREMENTS = ("mlflow", "numpy", "onnxruntime")
NETWORK = "network"
MNISTS = (28, 28)  # what networks take that were exported before they carried a description
NO_NUMBERS = {str: "text", bytes: "text", dict: "objects", type(None): "null"}


class Expected(NamedTuple):
    """What a network takes.

    Attributes:
        shape: of one example: (height, width), (height, width, 3) or (features,).
        features: the names of a table's columns; of an image none.
        drawing: whether the images are drawings, light on dark.
    """

    shape: tuple[int, ...]
    features: tuple[str, ...] = ()
    drawing: bool = False

    @property
    def send(self) -> str:
        """What a client is told to send."""
        sizes = ", ".join(str(size) for size in self.shape)
        if self.features:
            names = ", ".join(self.features[:8]) + (", ..." if len(self.features) > 8 else "")
            return f"send rows of numbers: float32 of shape (N, {sizes}), the columns {names}"
        strokes = ", 0 the background, 255 the stroke" if self.drawing else ""
        return f"send raw pixels: float32 of shape (N, {sizes}), each in 0..255{strokes}"


def expected_by(session: onnxruntime.InferenceSession) -> Expected:
    """What the network takes, by the description that it carries."""
    text = session.get_modelmeta().custom_metadata_map.get("data_spec")
    if text is None:
        return Expected(MNISTS, drawing=True)
    spec = json.loads(text)
    if spec["kind"] == "table":
        return Expected(tuple(spec["shape"]), tuple(spec["features"]))
    channels, height, width = spec["shape"]
    return Expected((height, width) if channels == 1 else (height, width, channels), (), bool(spec["drawing"]))


def check_inputs(inputs: Any, expected: Expected) -> NDArray[np.float32]:
    """The examples as float32 (N, ...), if they are what the network takes.

    Raises:
        ValueError: for another shape, NaN, pixels outside 0..255, or images that were scaled to 0..1 already.
    """
    what, send = "rows" if expected.features else "images", expected.send
    try:
        _check_leaves(inputs)
        found = np.asarray(inputs)
        if found.dtype.kind not in "uif":
            raise ValueError(f"they are {found.dtype.name}")
        with np.errstate(over="ignore"):  # too large a number becomes infinite, which is told below
            values = found.astype(np.float32, copy=False)
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(f"the {what} are not numbers of one shape ({error}); {send}") from None
    if values.ndim != len(expected.shape) + 1 or values.shape[1:] != expected.shape:
        raise ValueError(f"found shape {values.shape}; {send}")
    if np.isnan(values).any():
        raise ValueError(f"found NaN; {send}")
    if expected.features:
        if np.isinf(values).any():
            raise ValueError(f"found an infinite number; {send}")
        return values
    if values.size and (values.min() < 0 or values.max() > 255):
        raise ValueError(f"found values from {values.min():g} to {values.max():g}; {send}")
    brightest = values.max(axis=tuple(range(1, values.ndim)), initial=0)
    if ((brightest > 0) & (brightest <= 1)).any():
        least = brightest[brightest > 0].min()
        raise ValueError(f"found an image whose brightest pixel is {least:g}, so scaled to 0..1 already; {send}")
    return values


def _check_leaves(inputs: Any) -> None:
    """Make sure that nested lists hold no text: NumPy would give each as much room as the longest of them takes.

    Raises:
        ValueError: saying what they hold.
    """
    lists: list[Any] = [[inputs]]
    while lists:
        kinds = set(map(type, chain.from_iterable(lists)))
        if found := {NO_NUMBERS[kind] for kind in kinds & NO_NUMBERS.keys()}:
            raise ValueError(f"they are {' and '.join(sorted(found))}")
        nested = kinds & {list, tuple}
        lists = [each for each in chain.from_iterable(lists) if type(each) in nested] if nested else []


class Predictor(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """Probabilities of every class for each example."""

    def load_context(self, context: Any) -> None:
        """Open the ONNX network that lies beside this file."""
        self.session = onnxruntime.InferenceSession(context.artifacts[NETWORK], providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.expected = expected_by(self.session)

    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> NDArray[np.float32]:
        """(N, ...) raw pixels or rows -> (N, classes) float32 probabilities.

        Raises:
            MlflowException: saying what to send, if something else was sent (a server passes on no other error).
        """
        try:
            inputs = check_inputs(model_input, self.expected)
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        probabilities: NDArray[np.float32] = self.session.run(None, {self.input: inputs})[0]
        return probabilities


mlflow.models.set_model(Predictor())
