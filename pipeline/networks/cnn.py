"""The convolutional network of Keras' second sample, `mnist_convnet`."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from pipeline.data_spec import DataSpec
from pipeline.networks.dropout import Dropout


class CNN(nn.Module):
    """Two 3x3 convolutions with ReLU and 2x2 max-pooling, then dropout and a dense layer, for images.

    As in keras.io/examples/vision/mnist_convnet by F. Chollet. Kernels are Glorot-uniform (of a convolution: fan_in and
    fan_out count its 3x3 field) and biases zero, as Keras draws them.

    Shapes: (B, channels, height, width) float32 in 0..1 -> (B, classes) logits.
    """

    def __init__(
        self,
        spec: DataSpec,
        channels: Annotated[
            int, Field(ge=1, description="filters of the first convolution; the second has twice")
        ] = 32,
        dropout: Annotated[float, Field(ge=0, lt=1, description="share of features dropped at each step")] = 0.5,
    ) -> None:
        """Build the layers and draw their weights from torch's global generator.

        Raises:
            ValueError: for a table, or images that are smaller than the convolutions.
        """
        super().__init__()
        if spec.kind != "image":
            raise ValueError("network cnn takes images; a table is for mlp")
        height, width = (((side - 2) // 2 - 2) // 2 for side in spec.shape[1:])
        if min(height, width) < 1:
            raise ValueError(f"network cnn takes images of at least 10x10, not {spec.shape[1]}x{spec.shape[2]}")
        self.layers = nn.Sequential(
            nn.Conv2d(spec.shape[0], channels, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            Dropout(dropout),
            nn.Linear(2 * channels * height * width, len(spec.classes)),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, height, width) -> (B, classes) logits."""
        logits: Tensor = self.layers(images)
        return logits
