"""The LightningModule: loss, accuracy, optimizer."""

from collections.abc import Callable, Iterable

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.fast_cpu import gradients
from pipeline.networks.dropout import Dropout
from pipeline.seeding import derive_seed

Batch = tuple[Tensor, Tensor]


class ImageMeans:
    """Means over the images of an epoch, not over its batches: the last batch is smaller.

    Keeps each batch's logits until the epoch's end, where one operation does what would be three in every step.
    """

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: its mean loss (), logits (B, 10) and labels (B,). Does not wait for the device."""
        self.losses.append(loss.detach())
        self.logits.append(logits.detach())
        self.labels.append(labels)

    def sums(self) -> Tensor:
        """(3,) float64 on the CPU: summed loss, correct images, images."""
        sizes = torch.tensor([len(labels) for labels in self.labels], dtype=torch.float64)
        losses = torch.stack(self.losses).cpu().double()
        correct = (torch.cat(self.logits).argmax(dim=1) == torch.cat(self.labels)).sum().cpu()
        return torch.stack([(losses * sizes).sum(), correct.double(), sizes.sum()])


class DigitClassifier(LightningModule):
    """A network that gives (B, 10) logits, trained by cross-entropy.

    Logs `{train,val,test}_loss` and `_accuracy` once an epoch. Training values are those of the epoch's own steps,
    with dropout, as Keras reports them.
    """

    def __init__(
        self,
        network: nn.Module,
        make_optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
        batch_size: int = 128,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.network, self.make_optimizer = network, make_optimizer
        self.batch_size, self.seed = batch_size, seed
        self.automatic_optimization = False
        self.by_hand: gradients.Backprop | None = None
        self.means = {stage: ImageMeans() for stage in ("train", "val", "test")}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.make_optimizer(self.network.parameters())

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 784) -> (B, 10) logits."""
        logits: Tensor = self.network(pixels)
        return logits

    def _step(self, batch: Batch, stage: str) -> Tensor:
        pixels, labels = batch
        logits = self.network(pixels)
        loss = F.cross_entropy(logits, labels)
        self.means[stage].add(loss, logits, labels)
        return loss

    def on_fit_start(self) -> None:
        """Derive the gradients by hand where that gives autograd's own: in one process, on the CPU."""
        alone = self.trainer.world_size == 1 and self.device.type == "cpu"
        images = len(getattr(self.trainer.datamodule, "train_images", range(self.batch_size)))  # type: ignore[attr-defined]
        batch = min(self.batch_size, images)
        self.by_hand = gradients.derive(self.network, batch, self.trainer.precision) if alone else None

    def training_step(self, block: Batch) -> None:
        """One optimizer step for each batch of the block (see `data.BLOCK`)."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        pixels, labels = (torch.split(part, self.batch_size) for part in block)
        for batch in zip(pixels, labels, strict=True):
            if self.by_hand:
                loss, logits = self.by_hand(*batch)
                self.means["train"].add(loss, logits, batch[1])
            else:
                optimizer.zero_grad()
                self.manual_backward(self._step(batch, "train"))
            optimizer.step()

    def validation_step(self, batch: Batch) -> None:
        """Count a batch, in float32 whatever the training precision, as the served model computes."""
        with torch.autocast(self.device.type, enabled=False):
            self._step(batch, "val")

    def test_step(self, batch: Batch) -> None:
        """Count a batch, in float32."""
        with torch.autocast(self.device.type, enabled=False):
            self._step(batch, "test")

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(derive_seed(self.seed, "dropout", self.current_epoch, self.global_rank))
        for index, module in enumerate(self.network.modules()):
            if isinstance(module, Dropout):
                module.reseed(derive_seed(self.seed, "dropout", self.current_epoch, self.global_rank, index))
        self.means["train"] = ImageMeans()

    def on_validation_epoch_start(self) -> None:
        self.means["val"] = ImageMeans()

    def on_test_epoch_start(self) -> None:
        self.means["test"] = ImageMeans()

    def on_train_epoch_end(self) -> None:
        self._log_means("train")

    def on_validation_epoch_end(self) -> None:
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        self._log_means("test")

    def _log_means(self, stage: str) -> None:
        sums = self.means[stage].sums()
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum").cpu()
        loss, correct, images = sums
        # As float64 tensors: Lightning would round Python floats to float32.
        self.log_dict(
            {f"{stage}_loss": loss / images, f"{stage}_accuracy": correct / images},
            prog_bar=True,
            logger=False,
        )
