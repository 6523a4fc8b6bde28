"""The LightningModule: loss, accuracy, optimizer."""

from collections.abc import Callable, Iterable

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.training.means import ExampleMean

Batch = tuple[Tensor, Tensor]
MEANS = [f"{stage}_{value}" for stage in ("train", "val", "test") for value in ("loss", "accuracy")]


class Classifier(LightningModule):
    """A network that gives (B, classes) logits, trained by cross-entropy.

    Logs `{train,val,test}_loss` and `_accuracy` once an epoch: means over examples, not over batches, of which the last
    is smaller. Training values are those of the epoch's own steps, with dropout, as Keras reports them. Evaluation is
    in float32 whatever the training precision, as the served model computes.
    """

    def __init__(self, network: nn.Module, make_optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer]) -> None:
        super().__init__()
        self.network, self.make_optimizer = network, make_optimizer
        self.means = nn.ModuleDict({name: ExampleMean() for name in MEANS})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer over all parameters."""
        return self.make_optimizer(self.network.parameters())

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) -> (B, classes) logits."""
        logits: Tensor = self.network(inputs)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss () of a batch: inputs (B, ...) and labels (B,)."""
        return self._step(batch, "train")

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
        return loss

    def _mean(self, name: str) -> ExampleMean:
        mean = self.means[name]
        assert isinstance(mean, ExampleMean)
        return mean

    def progress(self) -> tuple[int, int, dict[str, float]]:
        """Steps done in the epoch, all its steps, and the means so far; of this process alone, which waits for none."""
        means = {name: self._mean(f"train_{name}") for name in ("loss", "accuracy")}
        so_far = {name: (mean.total / mean.images).item() for name, mean in means.items() if mean.images}
        return self.trainer.fit_loop.batch_idx + 1, int(self.trainer.num_training_batches), so_far
