"""The multilayer perceptron of the Keras sample, in plain torch."""

from itertools import pairwise

from torch import Tensor, nn

from pipeline.networks.dropout import Dropout


class MLP(nn.Module):
    """Dense layers with ReLU and dropout between them, as in Keras' `mnist_mlp.py`.

    Kernels are Glorot-uniform (Glorot and Bengio, 2010, eq. 16: limit sqrt(6 / (fan_in + fan_out))) and biases zero,
    as Keras' `Dense` draws them; torch's own `Linear` would draw both from U(+-1/sqrt(fan_in)).

    Shapes: (B, inputs) float32 in 0..1 -> (B, classes) logits.
    """

    def __init__(
        self,
        hidden_units: int = 512,
        hidden_layers: int = 2,
        dropout: float = 0.2,
        inputs: int = 784,
        classes: int = 10,
    ) -> None:
        """Build the layers and draw their weights from torch's global generator."""
        super().__init__()
        widths = [inputs, *[hidden_units] * hidden_layers]
        hidden: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            hidden += [nn.Linear(fan_in, fan_out), nn.ReLU(), Dropout(dropout)]
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], classes))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, inputs) -> (B, classes) logits."""
        logits: Tensor = self.layers(pixels)
        return logits


class DigitProbabilities(nn.Module):
    """What is served: raw pixels in, probabilities out; scaling is the model's own job.

    Shapes: (B, 28, 28) float32 in 0..255 -> (B, 10) float32, rows summing to 1.
    """

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network that takes (B, 784) in 0..1 and gives logits."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 28, 28) -> (B, 10)."""
        logits: Tensor = self.network(images.flatten(1) / 255)
        return logits.softmax(dim=1)
