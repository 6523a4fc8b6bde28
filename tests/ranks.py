"""Several ranks of one training: as threads with a strategy of their own, as gloo processes, and worked out by hand."""

import copy
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch.nn import functional as F

from pipeline.config import RunConfig
from pipeline.data.datamodule import DataModule
from pipeline.data_spec import MNIST
from pipeline.networks.dropout import Dropout
from pipeline.seeding import derive_seed
from pipeline.training import building, fit
from pipeline.training.callbacks import EpochSeeds
from tests.conftest import DELIVERED_WITHIN_S, free_port
from tests.small_data import digits_of

CONFIG = RunConfig(
    epochs=2,
    batch_size=4,
    hidden_units=16,
    dropout=0.4,
    optimizer="sgd",
    learning_rate=0.3,
    momentum=0.5,
    validation_size=9,
    seed=11,
    accelerator="cpu",
)

SHARE = "tests.own_training_code:share"  # accuracy, by another way


def small_data(config=CONFIG, train=30, test=5):
    """A data module with random images: 30 - 9 to train on and 9 to validate, neither of which two ranks can halve."""
    random = np.random.RandomState(5)
    splits = [
        (random.randint(0, 256, (n, 28, 28)).astype(np.uint8), (np.arange(n) % 10).astype(np.uint8))
        for n in (train, test)
    ]
    data = DataModule(batch_size=config.batch_size, validation_size=config.validation_size, seed=config.seed)
    data.source = digits_of(*splits, "small", "made")
    return data


class Strategy:
    """What a strategy does for the classifier, among threads."""

    def __init__(self, ranks, rank):
        self.ranks, self.rank = ranks, rank
        self.root_device = torch.device("cpu")

    def optimizer_step(self, optimizer, closure, **_):
        return optimizer.step(closure)


class Ranks:
    """Ranks as threads that meet where the real ones would wait for each other."""

    def __init__(self, count):
        self.count, self.given = count, [None] * count
        self.barrier = threading.Barrier(count, timeout=DELIVERED_WITHIN_S)

    def meet(self, rank, what, value=None):
        """The value of every rank, in their order; fails where one of them comes for something else."""
        self.given[rank] = what, value
        self.barrier.wait()
        found = list(self.given)
        self.barrier.wait()
        assert {each for each, _ in found} == {what}, "the ranks wait for each other in different places"
        return [each for _, each in found]

    def average(self, rank, parameters):
        """What DDP does after a backward pass."""
        shares = self.meet(rank, "backward", [each.grad for each in parameters])
        for each, *gradients in zip(parameters, *shares, strict=True):
            each.grad = torch.stack(gradients).sum(0) / self.count

    def train(self, config=CONFIG, **images):
        """Train as every rank; returns (weights, epoch -> metrics) of each."""
        with ThreadPoolExecutor(self.count) as pool:
            # One after the other: the weights come from torch's only generator.
            pairs = [(building.make_classifier(config, MNIST), small_data(config, **images)) for _ in range(self.count)]
            return list(pool.map(self._whole, range(self.count), *zip(*pairs, strict=True), [config] * self.count))

    def _whole(self, rank, classifier, data, config):
        try:
            return self._train(rank, classifier, data, config)
        except BaseException:
            self.barrier.abort()  # the others would wait for this one
            raise

    def _train(self, rank, classifier, data, config):
        """What Lightning's loops do, with automatic optimization."""
        trainer = SimpleNamespace(
            world_size=self.count, global_rank=rank, precision=config.precision, strategy=Strategy(self, rank)
        )
        classifier._trainer = data.trainer = trainer
        data.setup()
        optimizer, seeds, history = classifier.configure_optimizers(), EpochSeeds(config.seed), {}
        parameters = list(classifier.parameters())
        classifier.log = lambda *_, **__: None
        for epoch in range(config.epochs):
            trainer.current_epoch = epoch
            loader = data.train_dataloader()
            loader.sampler.set_epoch(epoch)
            classifier.train()
            self.meet(rank, "begin")  # torch's seed belongs to all threads
            seeds.on_train_epoch_start(trainer, classifier)
            for index, batch in enumerate(loader):
                loss = classifier.training_step(batch, index)
                optimizer.zero_grad()
                loss.backward()
                self.average(rank, parameters)
                optimizer.step()
            classifier.eval()
            with torch.no_grad():
                for batch in data.val_dataloader():
                    classifier.validation_step(batch)
            history[epoch + 1] = {name: self._mean(rank, mean) for name, mean in classifier.means.items()}
        self.meet(rank, "end")
        return weights_of(classifier), history

    def _mean(self, rank, mean):
        """Over all ranks, as torchmetrics adds its states; then it begins anew."""
        found = [sum(self.meet(rank, "mean", each)) for each in (mean.total, mean.examples)]
        mean.reset()
        return (found[0] / found[1]).item()


def lightning_optimizer(module, strategy):
    """The module's optimizer as Lightning hands it out."""
    optimizer = LightningOptimizer(module.configure_optimizers())
    optimizer._strategy, strategy._lightning_optimizers = strategy, [optimizer]
    return optimizer


def weights_of(module):
    """All of them in one row."""
    return torch.cat([each.detach().flatten() for each in module.parameters()])


def worked_out(ranks, config=CONFIG, **images):
    """What the ranks have to come to, in plain torch and one process; returns (weights, epoch -> metrics)."""
    data = small_data(config, **images)
    data.setup()
    network = building.make_classifier(config, MNIST).network
    optimizer = torch.optim.SGD(network.parameters(), lr=config.learning_rate, momentum=config.momentum)
    size, history = len(data.train_examples), {}
    for epoch in range(config.epochs):
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "order", epoch))
        order = torch.randperm(size, generator=generator).tolist()
        order += order[: -size % ranks]
        twins, sums = [_twin(network, config.seed, epoch, rank) for rank in range(ranks)], np.zeros(3)
        for first in range(0, len(order), ranks * config.batch_size):
            gradients = []
            for rank, twin in enumerate(twins):
                rows = order[first : first + ranks * config.batch_size][rank::ranks]
                twin.load_state_dict(network.state_dict())
                pixels, labels = data.train_examples.inputs[rows].float() / 255, data.train_examples.labels[rows]
                logits = twin(pixels)
                loss = F.cross_entropy(logits, labels)
                gradients.append(torch.autograd.grad(loss, list(twin.parameters())))
                sums += [loss.item() * len(rows), (logits.argmax(1) == labels).sum().item(), len(rows)]
            for each, *shares in zip(network.parameters(), *gradients, strict=True):
                each.grad = torch.stack(shares).sum(0) / ranks
            optimizer.step()
        logits = network.eval()(data.val_examples.inputs.float() / 255)
        labels = data.val_examples.labels
        history[epoch + 1] = {
            "train_loss": sums[0] / sums[2],
            "train_accuracy": sums[1] / sums[2],
            "val_loss": F.cross_entropy(logits, labels).item(),
            "val_accuracy": (logits.argmax(1) == labels).double().mean().item(),
        }
    return weights_of(network), history


def _twin(network, seed, epoch, rank):
    """The network as the rank has it, with its masks of the epoch."""
    twin = copy.deepcopy(network).train()
    for index, module in enumerate(twin.modules()):
        if isinstance(module, Dropout):
            module.reseed(derive_seed(seed, "dropout", epoch, rank, index))
    return twin


def main(folder):
    """Train as two gloo processes, each of which leaves what it has come to in the folder; returns the exit code."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    context = multiprocessing.get_context("fork")  # what was imported is imported once
    processes = [context.Process(target=_rank, args=(rank, address, Path(folder))) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return max(abs(process.exitcode) for process in processes)


def _rank(rank, address, folder):
    signal.alarm(DELIVERED_WITHIN_S)  # nobody is left waiting for one that has failed
    os.environ |= {**address, "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    config = RunConfig(**{**CONFIG.as_dict(), "devices": "2", "strategy": "ddp", "metric": SHARE})
    result = fit.fit(config, data=small_data(config))
    assert (result.trainer.global_rank, result.trainer.world_size) == (rank, 2)
    found = {"weights": weights_of(result.classifier), "history": result.history, "test": result.test}
    torch.save(found, folder / f"rank-{rank}.pt")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
