"""Training steps by blocks of batches, with the gradients by hand: what Lightning and autograd cost is spared."""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pipeline.fast_cpu import gradients

# Lightning spends 0.3 ms of hooks on whatever a loader yields, a quarter of a training step: a block is about so many
# examples, in whole batches.
BLOCK = 1_024
WATCHING = (
    *("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"),
    *("on_train_batch_start", "on_train_batch_end"),
)


def by_hand(trainer: Trainer, network: nn.Module, batch_size: int) -> gradients.Backprop | None:
    """The gradients by hand, where one process trains on a CPU and nobody asks for autograd's; else None.

    Clipping, accumulation and a callback that looks at single batches or at the backward pass ask for them. A callback
    with the attribute `takes_blocks` does not mind.

    Args:
        trainer: before it fits.
        network: what it is to train.
        batch_size: of the largest batch.
    """
    alone = isinstance(trainer.strategy, SingleDeviceStrategy) and trainer.strategy.root_device.type == "cpu"
    whole = trainer.accumulate_grad_batches == 1 and trainer.gradient_clip_val is None
    if not alone or not whole or any(_watches(callback) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return None
    return gradients.derive(network, batch_size, trainer.precision)


def _watches(callback: Callback) -> bool:
    own = [hook for hook in WATCHING if getattr(type(callback), hook) is not getattr(Callback, hook)]
    return bool(own) and not getattr(callback, "takes_blocks", False)


def in_blocks(loader: DataLoader[Any], batch_size: int) -> DataLoader[Any]:
    """The same batches in the same order, a block of them at a time."""
    block = max(1, BLOCK // batch_size) * batch_size
    return DataLoader(loader.dataset, batch_size=block, sampler=loader.sampler, collate_fn=loader.collate_fn)


class BlockSteps(LightningModule):
    """Put before a LightningModule with a `network`: its training, to the last bit, by blocks and without autograd."""

    network: nn.Module

    def __init__(self, *parts: Any, derive: gradients.Backprop, batch_size: int) -> None:
        """Take the parts of the other class, the gradients of its network and the size of a batch."""
        super().__init__(*parts)
        self.automatic_optimization = False
        self.derive, self.batch_size = derive, batch_size
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_train_epoch_start(self) -> None:
        """Forget the epoch before, also one that was broken off."""
        self._kept.clear()

    def training_step(self, block: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """One optimizer step for each batch of the block."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        inputs, labels = (torch.split(part, self.batch_size) for part in block)
        for batch in zip(inputs, labels, strict=True):
            self._kept.append((*self.derive(*batch), batch[1]))
            optimizer.step()

    def on_train_epoch_end(self) -> None:
        """Log the means over the examples of the epoch."""
        # As float64 tensors: Lightning would round Python floats to float32.
        self.log_dict({f"train_{name}": mean for name, mean in self._means().items()}, prog_bar=True, logger=False)

    def _means(self) -> dict[str, Tensor]:
        """By operations over all batches, once, where each step would need three."""
        losses, logits, labels = zip(*self._kept, strict=True)
        sizes = torch.tensor([len(part) for part in labels], dtype=torch.float64)
        correct = (torch.cat(logits).argmax(dim=1) == torch.cat(labels)).sum().double()
        return {
            "loss": (torch.stack(losses).double() * sizes).sum() / sizes.sum(),
            "accuracy": correct / sizes.sum(),
        }

    def progress(self) -> tuple[int, int, dict[str, float]]:
        """Steps done in the epoch, all its steps, and the means so far."""
        loader: Any = self.trainer.train_dataloader
        so_far = {name: mean.item() for name, mean in self._means().items()} if self._kept else {}
        return len(self._kept), math.ceil(len(loader.sampler) / self.batch_size), so_far
