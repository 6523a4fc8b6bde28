"""A training that is nobody's but its own: a CNN on scikit-learn's digits, with the record that `RunLogger` gives it.

Its only argument is JSON, of what it is to do: see `DEFAULTS`.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pipeline.tracking import RunLogger

DEFAULTS = {
    "epochs": 4,
    "pause_s": 0.0,  # after each step
    "stays_in": None,  # step: until a file "go on" is there, so that nothing is over before it is killed
    "resume": "",
    "fails_in": None,  # epoch
    "after": "",  # the fit: "raise", "wait", "test"
    "devices": 1,
    "strategy": "auto",
    "save_dir": "runs",
    "on_exception": False,  # save a checkpoint then
}
STEPS = 6  # an epoch's


class CNN(LightningModule):
    def __init__(self, channels=4, fails_in=None, stays_in=None, pause_s=0.0):
        super().__init__()
        self.save_hyperparameters("channels")
        self.fails_in, self.stays_in, self.pause_s = fails_in, stays_in, pause_s
        self.network = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 64, 10)
        )

    def loss_of(self, batch):
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def training_step(self, batch, index):
        if self.current_epoch == self.fails_in:
            raise ValueError("no such digit")
        print(f"step {self.global_step} begins", flush=True)
        time.sleep(self.pause_s)
        while self.global_step == self.stays_in and not Path("go on").exists():
            time.sleep(0.02)
        loss = self.loss_of(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", self.loss_of(batch), sync_dist=True)

    def test_step(self, batch, index):
        self.log("test_loss", self.loss_of(batch), sync_dist=True)

    def on_train_epoch_end(self):
        print(f"epoch {self.current_epoch} is over", flush=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


def main(given):
    do = {**DEFAULTS, **given}
    seed_everything(1, verbose=False)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target))
    train, held_out = (DataLoader(torch.utils.data.Subset(data, range(*part)), 64) for part in ((384,), (384, 448)))
    logger = RunLogger(
        "digits", "a plain run", save_dir=do["save_dir"], resume=do["resume"], checkpoints=True, tags={"team": "botany"}
    )
    trainer = Trainer(
        max_epochs=do["epochs"],
        logger=logger,
        accelerator="cpu",
        devices=do["devices"],
        strategy=do["strategy"],
        callbacks=[ModelCheckpoint(monitor="val_loss", save_last=True, save_on_exception=do["on_exception"])],
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = CNN(fails_in=do["fails_in"], stays_in=do["stays_in"], pause_s=do["pause_s"])
    trainer.fit(model, train, held_out, ckpt_path="last" if do["resume"] else None)
    print(f"rank {trainer.global_rank} logs to {logger.log_dir} {os.getpid()}", flush=True)
    if do["after"] == "raise":
        raise LookupError("after the fit")
    if do["after"] == "test":
        trainer.test(model, held_out, verbose=False)
    if do["after"] == "wait":
        print("waiting", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
