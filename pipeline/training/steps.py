"""What a training tells while an epoch goes on, seldom: steps done, means so far."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from pipeline.training.classifier import DigitClassifier

# (epoch from 1, steps done, steps of the epoch, name -> mean so far)
OnSteps = Callable[[int, int, int, dict[str, float]], None]


class StepNews(Callback):
    """Calls `on_steps` as an epoch begins, every so many seconds, and after its last step.

    A step is one batch, though Lightning sees blocks of them (`data.BLOCK`). The means are taken from what the module
    keeps anyway, only when they are shown, so that no step waits for the device and no number changes.
    """

    def __init__(self, on_steps: OnSteps, every_s: float) -> None:
        self.on_steps, self.every_s = on_steps, every_s
        self._told_at = 0.0
        self._counted = self._images = 0
        self._loss = self._correct = 0.0
        self._steps = 1

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DigitClassifier)
        loader: Any = trainer.train_dataloader
        self._steps = math.ceil(len(loader.sampler) / pl_module.batch_size)
        self._counted = self._images = 0
        self._loss = self._correct = 0.0
        self._told_at = time.perf_counter()
        if trainer.is_global_zero:
            self.on_steps(trainer.current_epoch + 1, 0, self._steps, {})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DigitClassifier)
        done = len(pl_module.means["train"].losses)
        now = time.perf_counter()
        if not trainer.is_global_zero or (now - self._told_at < self.every_s and done < self._steps):
            return
        self._told_at = now
        self._count(pl_module)
        means = {"loss": self._loss / self._images, "accuracy": self._correct / self._images}
        self.on_steps(trainer.current_epoch + 1, done, self._steps, means)

    @torch.no_grad()
    def _count(self, module: DigitClassifier) -> None:
        means = module.means["train"]
        losses, labels = means.losses[self._counted :], means.labels[self._counted :]
        sizes = torch.tensor([len(part) for part in labels], dtype=torch.float64)
        logits = torch.cat(means.logits[self._counted :])
        self._correct += (logits.argmax(dim=1) == torch.cat(labels)).sum().item()
        self._loss += (torch.stack(losses).cpu().double() * sizes).sum().item()
        self._images += int(sizes.sum())
        self._counted = len(means.losses)
