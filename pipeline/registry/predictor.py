"""The served model: what a client may send, what it gets back.

MLflow stores this file beside the network (models from code) and runs it where the model is served, without the rest of
this package, torch or pickle: it may import only what `REQUIREMENTS` names.
"""

from typing import Any

import mlflow
import numpy as np
import onnxruntime
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

REQUIREMENTS = ("mlflow", "numpy", "onnxruntime")
NETWORK = "network"
SEND = "send raw pixels: float32 of shape (N, 28, 28), each in 0..255, 0 the background, 255 the stroke"


def check_images(images: Any) -> NDArray[np.float32]:
    """The images as float32 (N, 28, 28) in 0..255, if that is what they are.

    Raises:
        ValueError: for another shape, NaN, values outside 0..255, or images that were scaled to 0..1 already.
    """
    try:
        found = np.asarray(images)
        if found.dtype.kind not in "uif":
            raise ValueError(f"they are {found.dtype.name}")
        with np.errstate(over="ignore"):  # too large a number becomes infinite, which is told below
            pixels = found.astype(np.float32, copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the images are not numbers of one shape ({error}); {SEND}") from None
    if pixels.ndim != 3 or pixels.shape[1:] != (28, 28):
        raise ValueError(f"found shape {pixels.shape}; {SEND}")
    if np.isnan(pixels).any():
        raise ValueError(f"found NaN; {SEND}")
    if pixels.size and (pixels.min() < 0 or pixels.max() > 255):
        raise ValueError(f"found values from {pixels.min():g} to {pixels.max():g}; {SEND}")
    brightest = pixels.max(axis=(1, 2), initial=0)
    if ((brightest > 0) & (brightest <= 1)).any():
        found = brightest[brightest > 0].min()
        raise ValueError(f"found an image whose brightest pixel is {found:g}, so scaled to 0..1 already; {SEND}")
    return pixels


class DigitPredictor(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """Ten probabilities for each image."""

    def load_context(self, context: Any) -> None:
        """Open the ONNX network that lies beside this file."""
        self.session = onnxruntime.InferenceSession(context.artifacts[NETWORK], providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> NDArray[np.float32]:
        """(N, 28, 28) raw pixels -> (N, 10) float32 probabilities, one for each class.

        Raises:
            MlflowException: saying what to send, if something else was sent (a server passes on no other error).
        """
        try:
            images = check_images(model_input)
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        probabilities: NDArray[np.float32] = self.session.run(None, {self.input: images})[0]
        return probabilities


mlflow.models.set_model(DigitPredictor())
