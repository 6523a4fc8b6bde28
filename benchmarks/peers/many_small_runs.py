"""Many small runs as people record them today: one process, a Lightning Trainer and an MLFlowLogger for each.

`many_small_runs.py STORE FIRST PAST`: the trainings FIRST to PAST - 1 of benchmarks/trials.py's 24.
"""

import json
import sys

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import MLFlowLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

STORE, FIRST, PAST = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
DROPOUTS, SEEDS = (0.0, 0.2, 0.5), range(1, 9)


class Classifier(pl.LightningModule):
    def __init__(self, dropout, learning_rate):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 512), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(512, 512), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(512, 10),
        )  # fmt: skip

    def _step(self, batch, stage):
        x, y = batch
        logits = self.net(x)
        loss = F.cross_entropy(logits, y)
        accuracy = (logits.argmax(1) == y).float().mean()
        self.log_dict({f"{stage}_loss": loss, f"{stage}_accuracy": accuracy}, on_epoch=True, on_step=False)
        return loss

    def training_step(self, batch, _):
        return self._step(batch, "train")

    def validation_step(self, batch, _):
        self._step(batch, "val")

    def test_step(self, batch, _):  # noqa: PT019
        self._step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.RMSprop(self.parameters(), lr=self.hparams.learning_rate, alpha=0.9)


def digits():
    """The digits as this pipeline's `digits` dataset has them: 28x28, 1,437 to train on, 360 to test."""
    bunch = load_digits()
    images = [Image.fromarray((image * 255 / 16).round().astype(np.uint8)) for image in bunch.images]
    large = np.stack([np.asarray(image.resize((28, 28), Image.Resampling.BILINEAR)) for image in images])
    x, y = torch.from_numpy(large).float().div_(255).unsqueeze(1), torch.from_numpy(bunch.target)
    return TensorDataset(x[:1437], y[:1437]), TensorDataset(x[1437:], y[1437:])


everything, test = digits()
train, val = random_split(everything, [1137, 300], torch.Generator().manual_seed(0))
accuracies = []
for dropout, seed in [(dropout, seed) for seed in SEEDS for dropout in DROPOUTS][FIRST:PAST]:
    pl.seed_everything(seed, verbose=False)
    logger = MLFlowLogger("trials", run_name=f"{dropout} seed={seed}", tracking_uri=STORE, log_model=True)
    logger.log_hyperparams({"seed": seed, "batch_size": 128, "epochs": 1})
    trainer = pl.Trainer(
        max_epochs=1, logger=logger, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False
    )
    model = Classifier(dropout, 1e-3)
    trainer.fit(model, DataLoader(train, batch_size=128, shuffle=True), DataLoader(val, batch_size=300))
    accuracies.append(trainer.test(model, DataLoader(test, batch_size=360), verbose=False)[0]["test_accuracy"])
print(json.dumps({"test_accuracies": accuracies}))
