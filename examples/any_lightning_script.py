"""Any Lightning script, here a CNN on scikit-learn's digits, with its record: only the logger is this project's.

python examples/any_lightning_script.py            # again with --resume last: goes on in the same record
mlflow ui --backend-store-uri sqlite:///mlflow.db
"""

import argparse

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from pipeline.tracking import RunLogger


class CNN(LightningModule):
    """One convolution and one linear layer."""

    def __init__(self, channels: int = 16, learning_rate: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(
            *(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),  # (B, 1, 8, 8) -> (B, channels, 4, 4)
            *(nn.Flatten(), nn.Linear(channels * 16, 10)),
        )

    def _evaluate(self, batch: list[torch.Tensor], name: str) -> torch.Tensor:
        images, labels = batch
        logits = self.network(images)
        loss = nn.functional.cross_entropy(logits, labels)
        self.log_dict({f"{name}_loss": loss, f"{name}_accuracy": (logits.argmax(1) == labels).float().mean()})
        return loss

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return self._evaluate(batch, "train")

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        self._evaluate(batch, "val")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.hparams["learning_rate"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--resume", default="")
    given = parser.parse_args()
    data = load_digits()
    digits = TensorDataset(torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target))
    train, val = random_split(digits, [0.8, 0.2], torch.Generator().manual_seed(1))
    logger = RunLogger("digits-cnn", "cnn", tags={"team": "botany"}, resume=given.resume, checkpoints="best")
    best = ModelCheckpoint(monitor="val_loss", save_last=True)
    trainer = Trainer(max_epochs=given.epochs, logger=logger, callbacks=[best], log_every_n_steps=10)
    last = "last" if given.resume else None
    trainer.fit(CNN(), DataLoader(train, 64, shuffle=True), DataLoader(val, 64), ckpt_path=last)
