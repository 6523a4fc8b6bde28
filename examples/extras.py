"""An own metric, schedule and augmentation.

python -m pipeline train --metric examples.extras:f1 --schedule examples.extras:warm_cosine \\
    --augment examples.extras:noise
"""

import math

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_f1_score


def f1(logits: Tensor, labels: Tensor) -> float:
    """The F1 score, averaged over the classes."""
    return multiclass_f1_score(logits, labels, num_classes=logits.shape[1], average="macro").item()


def warm_cosine(epoch: int, epochs: int) -> float:
    """The factor of the learning rate: a third in the first epoch, then half a cosine from one to zero."""
    return 1 / 3 if epoch == 0 else (1 + math.cos(math.pi * (epoch - 1) / max(1, epochs - 1))) / 2


def noise(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Inputs (B, ...) with a little noise; whatever is random comes from the generator, which is the CPU's."""
    return inputs + 0.05 * torch.randn(inputs.shape, generator=generator).to(inputs.device)
