"""An own network with two knobs, for images of any size, grey or colour.

python -m pipeline train --network examples.small_cnn:SmallCNN --channels 32 --blocks 2 --epochs 3
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from pipeline.data import DataSpec


class SmallCNN(nn.Module):
    """Blocks of a convolution, ReLU and pooling, each with twice the filters of the one before; then their means."""

    def __init__(
        self,
        spec: DataSpec,
        channels: Annotated[int, Field(ge=1, description="filters of the first block")] = 16,
        blocks: Annotated[int, Field(ge=1, le=6, description="blocks, each halves the image")] = 3,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = spec.shape[0]
        for block in range(blocks):
            outputs = channels * 2**block
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
            inputs = outputs
        self.layers = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, len(spec.classes))
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, height, width) -> (B, classes) logits."""
        return self.layers(images)
