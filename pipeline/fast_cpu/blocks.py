"""Training steps by blocks of batches, with the gradients by hand: what Lightning and autograd cost is spared."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler, LearningRateFinder, StochasticWeightAveraging
from pytorch_lightning.core.optimizer import (
    LightningOptimizer,
    _configure_optimizers,
    _configure_schedulers_automatic_opt,
)
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from pipeline.fast_cpu import gradients

# Lightning spends 0.3 ms of hooks on whatever a loader yields, a quarter of a training step: a block is about so many
# examples, in whole batches.
BLOCK = 1_024
WATCHING = (
    *("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"),
    *("on_train_batch_start", "on_train_batch_end"),
)
STEERING = (GradientAccumulationScheduler, LearningRateFinder, StochasticWeightAveraging)  # Lightning's own loop
STEPPED = ("torch.optim.", "pipeline.optim.")  # where optimizers lie that take the gradients as they find them


def by_hand(trainer: Trainer, module: LightningModule, batch_size: int) -> gradients.Backprop | None:
    """The gradients by hand, where one process trains on a CPU and nobody asks for autograd's; else None.

    Clipping, accumulation, a callback that looks at single batches or at the backward pass, an optimizer that may want
    to call the step itself, and a schedule by steps or by a metric ask for them. A callback with the attribute
    `takes_blocks` does not mind.

    Args:
        trainer: before it fits.
        module: what it is to train, with a `network`.
        batch_size: of the largest batch.
    """
    alone = isinstance(trainer.strategy, SingleDeviceStrategy) and trainer.strategy.root_device.type == "cpu"
    whole = trainer.accumulate_grad_batches == 1 and trainer.gradient_clip_val is None
    if not alone or not whole or any(_watches(callback) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return None
    if not _steps_plainly(module):
        return None
    network: nn.Module = module.network  # type: ignore[assignment]
    return gradients.derive(network, batch_size, trainer.precision)


def _watches(callback: Callback) -> bool:
    # Of the instance, where LambdaCallback has its hooks.
    own = [
        hook for hook in WATCHING if getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)
    ]
    return isinstance(callback, STEERING) or (bool(own) and not getattr(callback, "takes_blocks", False))


def _steps_plainly(module: LightningModule) -> bool:
    """Whether the module has one optimizer that needs no closure, and schedules that go on once an epoch."""
    optimizers, schedulers, monitor = _configure_optimizers(module.configure_optimizers())  # type: ignore[arg-type]
    configs = _configure_schedulers_automatic_opt(schedulers, monitor)
    if len(optimizers) != 1 or isinstance(optimizers[0], torch.optim.LBFGS):
        return False
    each_epoch = [one.interval == "epoch" and one.frequency == 1 and not one.reduce_on_plateau for one in configs]
    return type(optimizers[0]).__module__.startswith(STEPPED) and all(each_epoch)


def in_blocks(loader: DataLoader[Any], batch_size: int) -> DataLoader[Any]:
    """The same batches in the same order, a block of them at a time."""
    block = max(1, BLOCK // batch_size) * batch_size
    same = {"sampler": loader.sampler, "collate_fn": loader.collate_fn, "generator": loader.generator}
    return DataLoader(loader.dataset, batch_size=block, **same)


class BlockSteps(LightningModule):
    """Put before a LightningModule with a `network`: its training, to the last bit, by blocks and without autograd.

    Attributes:
        network: what is trained.
        augment: changes the inputs of a batch (B, ...), if it is there.
        measures: each measures the logits (N, classes) and labels (N,) of an epoch, under its `name`.
    """

    network: nn.Module
    augment: Callable[[Tensor], Tensor] | None
    measures: Sequence[Any]

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
        """One optimizer step for each batch of the block, and after the last one the epoch's means are logged."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        derive = self.derive if self._is_left_alone() else self._derive_by_autograd
        inputs, labels = (torch.split(part, self.batch_size) for part in block)
        for examples, truth in zip(inputs, labels, strict=True):
            given = self.augment(examples) if self.augment else examples
            self._kept.append((*derive(given, truth), truth))
            optimizer.step()
        if self.trainer.is_last_batch:
            self._go_on_in_schedule()
            self._log_means()

    def _is_left_alone(self) -> bool:
        """Whether no callback has done to the network, since it was looked at, what the gradients by hand pass over."""
        return self.derive.network is self.network and self.derive.holds() and not gradients.is_hooked(self)

    def _derive_by_autograd(self, examples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss () and the logits (B, classes), as `derive` gives them, by the plain way's operations."""
        logits = self(examples)
        loss = F.cross_entropy(logits, labels)
        self.optimizers().zero_grad()  # type: ignore[union-attr]
        with torch.autocast("cpu", enabled=False):
            self.manual_backward(loss)
        torch.clear_autocast_cache()  # of the weights with fewer bits, which the step is about to change
        return loss.detach(), logits.detach()

    def _go_on_in_schedule(self) -> None:
        """Step what schedules there are, where Lightning's own optimization does: before validation and checkpoint."""
        schedulers: Any = self.lr_schedulers() or []
        for each in schedulers if isinstance(schedulers, list) else [schedulers]:
            self.lr_scheduler_step(each, None)

    def on_train_epoch_end(self) -> None:
        """Log what there is of an epoch that somebody has broken off."""
        if not self.trainer.is_last_batch:
            self._log_means()

    def _log_means(self) -> None:
        """Log the means over the examples of the epoch, and what else is measured; callbacks find them at its end."""
        # As float64 tensors: Lightning would round Python floats to float32. Counted once, or a mean could be rounded.
        how: dict[str, Any] = {"on_step": False, "on_epoch": True, "logger": False, "batch_size": 1}
        self.log_dict({f"train_{name}": mean for name, mean in self._means().items()}, prog_bar=True, **how)
        if self.measures:
            logits, labels = (torch.cat(parts) for parts in list(zip(*self._kept, strict=True))[1:])
            self.log_dict({f"train_{each.name}": each(logits, labels) for each in self.measures}, **how)

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
