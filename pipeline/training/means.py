"""Means over the images of an epoch, as Lightning logs metrics."""

import torch
from torch import Tensor
from torchmetrics import Metric


class ExampleMean(Metric):
    """A mean over images, not over batches, of which the last is smaller; over those of all ranks.

    In float64, in which the sums of an epoch's float32 losses are exact. `torchmetrics.MeanMetric` would drop NaN,
    which says here that a training diverged, or, told to keep it, the weights; and it takes the training's precision.
    """

    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, value: Tensor, images: int) -> None:
        """Count a batch by its mean () over so many images, or by each image's value (B,)."""
        total = value.detach().double().sum() if value.ndim else value.detach().double() * images
        self.total = self.total.double() + total
        self.images += images

    def compute(self) -> Tensor:
        """The mean (), float64."""
        return self.total.double() / self.images
