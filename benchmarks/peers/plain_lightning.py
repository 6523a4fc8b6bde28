"""The script that people write today: Lightning, torchvision transforms, DataLoader, MLFlowLogger as documented."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

EPOCHS = int(sys.argv[1])


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(512, 10),
        )  # fmt: skip
        self.seconds = []

    def training_step(self, batch, _):
        x, y = batch
        logits = self.net(x)
        loss = F.cross_entropy(logits, y)
        self.log("train_loss", loss)
        self.log("train_accuracy", (logits.argmax(1) == y).float().mean(), on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch, _):
        x, y = batch
        logits = self.net(x)
        self.log("val_loss", F.cross_entropy(logits, y))
        self.log("val_accuracy", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.RMSprop(self.parameters(), lr=1e-3, alpha=0.9)

    def on_train_epoch_start(self):
        self.began = time.perf_counter()

    def on_train_epoch_end(self):
        self.seconds.append(time.perf_counter() - self.began)


with tempfile.TemporaryDirectory() as folder:
    raw = Path(folder) / "MNIST/raw"
    raw.mkdir(parents=True)
    for path in Path(os.environ["MNIST_DIR"]).glob("*.gz"):
        (raw / path.name).symlink_to(path)
    train = datasets.MNIST(folder, train=True, download=True, transform=transforms.ToTensor())
    test = datasets.MNIST(folder, train=False, download=True, transform=transforms.ToTensor())
    model = Classifier()
    logger = MLFlowLogger(experiment_name="plain", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    trainer = pl.Trainer(max_epochs=EPOCHS, logger=logger, accelerator="cpu", enable_progress_bar=False)
    trainer.fit(model, DataLoader(train, batch_size=128, shuffle=True), DataLoader(test, batch_size=128))
print(json.dumps({"epoch_seconds": model.seconds}))
