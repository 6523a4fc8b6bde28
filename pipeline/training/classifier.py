"""The LightningModule: loss, accuracy and what else is measured; optimizer and schedule."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from pipeline.training.augmentation import Augmentation
from pipeline.training.metrics import EpochMeasure, ExampleMean, Measure

Batch = tuple[Tensor, Tensor]
STAGES = ("train", "val", "test")
MEANS = [f"{stage}_{value}" for stage in STAGES for value in ("loss", "accuracy")]


class Classifier(LightningModule):
    """A network that gives (B, classes) logits, trained by cross-entropy.

    Logs `{train,val,test}_loss` and `_accuracy` once an epoch: means over examples, not over batches, of which the last
    is smaller; and each further measure, over all examples of the epoch. Training values are those of the epoch's own
    steps, with dropout, as Keras reports them. Evaluation is in float32 whatever the training precision, as the served
    model computes.
    """

    def __init__(
        self,
        network: nn.Module,
        make_optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
        factor: Callable[[int], float] | None = None,
        augment: Augmentation | None = None,
        measures: Sequence[Measure] = (),
    ) -> None:
        """Take the parts of a training.

        Args:
            network: (B, ...) -> (B, classes).
            make_optimizer: gets the network's parameters.
            factor: of the learning rate, by the epoch (from 0); None: it stays.
            augment: changes the batches of the training.
            measures: what is measured beside loss and accuracy.
        """
        super().__init__()
        self.network, self.make_optimizer, self.factor = network, make_optimizer, factor
        self.augment, self.measures = augment, measures
        self.means = nn.ModuleDict({name: ExampleMean() for name in MEANS})
        self.measured = nn.ModuleDict(
            {f"{stage}_{each.name}": EpochMeasure(each) for stage in STAGES for each in measures}
        )

    def configure_optimizers(self) -> Any:
        """The optimizer over all parameters, and its schedule if there is one."""
        optimizer = self.make_optimizer(self.network.parameters())
        return ([optimizer], [LambdaLR(optimizer, self.factor)]) if self.factor else optimizer

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) -> (B, classes) logits."""
        logits: Tensor = self.network(inputs)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss () of a batch: inputs (B, ...) and labels (B,)."""
        inputs, labels = batch
        return self._step((self.augment(inputs), labels) if self.augment else batch, "train")

    def validation_step(self, batch: Batch) -> None:
        """Count a batch."""
        with torch.autocast(self.device.type, enabled=False):
            self._step(batch, "val")

    def test_step(self, batch: Batch) -> None:
        """Count a batch."""
        with torch.autocast(self.device.type, enabled=False):
            self._step(batch, "test")

    def _step(self, batch: Batch, stage: str) -> Tensor:
        inputs, labels = batch
        logits = self(inputs)
        loss = F.cross_entropy(logits, labels)
        for name, value in {f"{stage}_loss": loss, f"{stage}_accuracy": logits.argmax(dim=1) == labels}.items():
            mean = self._mean(name)
            mean.update(value, len(labels))
            self.log(name, mean, on_step=False, on_epoch=True, prog_bar=True, logger=False)
        for each in self.measures:
            name = f"{stage}_{each.name}"
            measured = self.measured[name]
            assert isinstance(measured, EpochMeasure)
            measured.update(logits, labels)
            self.log(name, measured, on_step=False, on_epoch=True, logger=False)
        return loss

    def _mean(self, name: str) -> ExampleMean:
        mean = self.means[name]
        assert isinstance(mean, ExampleMean)
        return mean

    def progress(self) -> tuple[int, int, dict[str, float]]:
        """Steps done in the epoch, all its steps, and the means so far; of this process alone, which waits for none."""
        means = {name: self._mean(f"train_{name}") for name in ("loss", "accuracy")}
        so_far = {name: (mean.total / mean.examples).item() for name, mean in means.items() if mean.examples}
        return self.trainer.fit_loop.batch_idx + 1, int(self.trainer.num_training_batches), so_far
