"""The multilayer perceptron of the Keras sample, in plain torch."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from pipeline.data_spec import DataSpec
from pipeline.networks.dropout import Dropout


class MLP(nn.Module):
    """Dense layers with ReLU and dropout between them, as in Keras' `mnist_mlp.py`.

    Kernels are Glorot-uniform (Glorot and Bengio, 2010, eq. 16: limit sqrt(6 / (fan_in + fan_out))) and biases zero,
    as Keras' `Dense` draws them; torch's own `Linear` would draw both from U(+-1/sqrt(fan_in)).

    Shapes: (B, ...) float32, whatever an example's shape -> (B, classes) logits.
    """

    def __init__(
        self,
        spec: DataSpec,
        hidden_units: Annotated[int, Field(ge=1, le=2**53, description="units per hidden layer")] = 512,
        hidden_layers: Annotated[int, Field(ge=0, le=1000, description="number of hidden layers")] = 2,
        dropout: Annotated[
            float, Field(ge=0, lt=1, description="share of hidden units dropped at each training step")
        ] = 0.2,
    ) -> None:
        """Build the layers and draw their weights from torch's global generator."""
        super().__init__()
        widths = [spec.size, *[hidden_units] * hidden_layers]
        hidden: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            hidden += [nn.Linear(fan_in, fan_out), nn.ReLU(), Dropout(dropout)]
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], len(spec.classes)))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) -> (B, classes) logits."""
        logits: Tensor = self.layers(inputs.flatten(1))
        return logits
