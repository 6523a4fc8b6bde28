"""What is measured over the examples of an epoch, as Lightning logs metrics: means, and the user's own functions."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_f1_score

from pipeline.config import own_code
from pipeline.config.own_code import OwnCodeError, as_number


class ExampleMean(Metric):
    """A mean over examples, not over batches, of which the last is smaller; over those of all ranks.

    In float64, in which the sums of an epoch's float32 losses are exact. `torchmetrics.MeanMetric` would drop NaN,
    which says here that a training diverged, or, told to keep it, the weights; and it takes the training's precision.
    """

    total: Tensor
    examples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("examples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, value: Tensor, examples: int) -> None:
        """Count a batch by its mean () over so many examples, or by each example's value (B,)."""
        total = value.detach().double().sum() if value.ndim else value.detach().double() * examples
        self.total = self.total.double() + total
        self.examples += examples

    def compute(self) -> Tensor:
        """The mean (), float64."""
        return self.total.double() / self.examples


def macro_f1(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over the classes of F1, the harmonic mean of precision and recall; classes that never occur left out.

    Shapes: (N, classes) and (N,) -> ().
    """
    return multiclass_f1_score(logits, labels, num_classes=logits.shape[1], average="macro")


SHIPPED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"macro_f1": macro_f1}


class Measure:
    """A function `(logits (N, classes), labels (N,)) -> number` by its name or import path.

    Attributes:
        name: what the function is called.
    """

    def __init__(self, path: str) -> None:
        """Find the function.

        Raises:
            OwnCodeError: if there is none.
        """
        self.path, self.name = path, path.rpartition(":")[2]
        self.function = own_code.load(path, ("logits", "labels")) if own_code.is_own(path) else SHIPPED[path]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The number () float64; NaN is one.

        Raises:
            OwnCodeError: if the function gives none, or infinity.
        """
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            given = self.function(logits.float(), labels)
        found = as_number(given)
        if found is None or math.isinf(found):
            raise OwnCodeError(
                f"{self.path} gave {given!r} for {len(labels):,} examples, expected a finite number, or nan"
            )
        return torch.tensor(found, dtype=torch.float64, device=logits.device)


class EpochMeasure(Metric):
    """A measure over all examples of an epoch, those of all ranks."""

    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self, measure: Measure) -> None:
        super().__init__()
        self.measure = measure
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Keep a batch: (B, classes) and (B,)."""
        self.logits.append(logits.detach())
        self.labels.append(labels)

    def compute(self) -> Tensor:
        """The number (), float64."""
        return self.measure(*(_whole(parts) for parts in (self.logits, self.labels)))


def _whole(parts: list[Tensor] | Tensor) -> Tensor:
    """As torchmetrics has a state: a list of batches, or one tensor of those of all ranks."""
    return torch.cat(parts) if isinstance(parts, list) else parts


def make_measures(paths: str) -> list[Measure]:
    """The measures of these names or import paths, with commas between.

    Raises:
        OwnCodeError: if one cannot be had.
    """
    return [Measure(path) for path in paths.split(",") if path]
