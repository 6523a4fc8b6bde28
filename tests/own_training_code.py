"""What a user may bring to a training, and what they may get wrong, as import paths name it."""

import random
import warnings

import numpy as np
import torch
from pytorch_lightning import Callback
from torch import nn
from torchmetrics.functional import accuracy

NAN, INF = float("nan"), float("inf")
DRAWS = {"torch": lambda: torch.rand(()).item(), "python": random.random, "numpy": np.random.rand}


def nadam(parameters, learning_rate):
    return torch.optim.NAdam(parameters, lr=learning_rate)


def lbfgs(parameters, learning_rate):
    return torch.optim.LBFGS(parameters, lr=learning_rate, max_iter=2)


class Own(torch.optim.SGD):
    def __init__(self, parameters, learning_rate):
        super().__init__(parameters, lr=learning_rate)


def frozen(parameters, learning_rate):
    """All but the first layer learn."""
    first, *others = parameters
    first.requires_grad_(False)
    return torch.optim.SGD([first, *others], lr=learning_rate)


def no_optimizer(parameters, learning_rate):
    return list(parameters)


def warm_up(epoch, epochs):
    return (epoch + 1) / epochs


def listed(epoch, epochs):
    """One that has no factor beyond the last epoch."""
    return [1.0, 0.5, 0.25, 0.125][:epochs][epoch]


def negative(epoch, epochs):
    return -1.0


def late_words(epoch, epochs):
    return "much" if epoch == 1 else 1


def noise(inputs, generator):
    return inputs + 0.1 * torch.rand(inputs.shape, generator=generator)


def doubled(inputs, generator):
    return inputs.double()


def halved(inputs, generator):
    return inputs[: len(inputs) // 2]


def nothing(inputs, generator):
    pass


def share(logits, labels):
    """What accuracy is, by torchmetrics."""
    return accuracy(logits, labels, task="multiclass", num_classes=logits.shape[1])


def largest(logits, labels):
    return logits.max().item()


def unseeded(logits, labels):
    """Another number each time, whatever the seed."""
    return random.SystemRandom().random()


def nan(logits, labels):
    return NAN


def infinite(logits, labels):
    return INF


def words(logits, labels):
    return "good"


def broken(logits, labels):
    raise KeyError("a bug of the user's")


class Tells(Callback):
    """Logs by Lightning's own way: at an epoch's end, in one epoch alone, in validation and in the test."""

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("mine", 10.0 + trainer.current_epoch)
        if trainer.current_epoch == 0:
            pl_module.log("only_once", 1.0)

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("val_mine", 20.0 + trainer.current_epoch)

    def on_test_epoch_end(self, trainer, pl_module):
        pl_module.log("test_mine", 5.0)


class Enough(Callback):
    """Stops the training with its second epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.should_stop or trainer.current_epoch == 1


class TellsSteps(Callback):
    """Logs every batch, by steps and by epochs, and to the logger itself."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("step", float(batch_idx))
        pl_module.log("both", float(batch_idx), on_step=True, on_epoch=True)
        trainer.logger.log_metrics({"direct": 1.0}, step=trainer.global_step)


class Network(nn.Module):
    """Linear, no layer of which the fast way knows."""

    def __init__(self, spec):
        super().__init__()
        self.layer = nn.Linear(spec.size, len(spec.classes))

    def forward(self, inputs):
        return self.layer(inputs.flatten(1))


class Viewed(nn.Module):
    """A convolution, its maps as rows by `view`, as most tutorials have it."""

    def __init__(self, spec):
        super().__init__()
        channels, height, width = spec.shape
        self.maps, self.layer = nn.Conv2d(channels, 4, 3, padding=1), nn.Linear(4 * height * width, len(spec.classes))

    def forward(self, inputs):
        return self.layer(self.maps(inputs).relu().view(inputs.size(0), -1))


class Embedded(nn.Module):
    """A table's first column as the number of a category, which has a vector of its own."""

    def __init__(self, spec, categories: int = 8):
        super().__init__()
        self.mean, self.deviation = spec.mean[0], spec.deviation[0]
        self.vectors, self.layer = nn.Embedding(categories, 4), nn.Linear(4, len(spec.classes))

    def forward(self, rows):
        numbers = (rows[:, 0] * self.deviation + self.mean).round().long()
        return self.layer(self.vectors(numbers))


class Normalized(Network):
    """With batch normalization, for which some callbacks take an epoch more."""

    def __init__(self, spec):
        super().__init__(spec)
        self.layer = nn.Sequential(self.layer, nn.BatchNorm1d(len(spec.classes)))


class StochasticDepth(Network):
    """What each block leaves out is reckoned with torch, as many networks do."""

    def __init__(self, spec, depth: int = 3):
        super().__init__(spec)
        self.rates = [rate.item() for rate in torch.linspace(0, 0.5, depth)]
        if depth > 3:
            raise ValueError(f"{depth} blocks are too many")


class Warns(Network):
    def __init__(self, spec):
        super().__init__(spec)
        if self.layer.weight.is_meta:
            warnings.warn("initializing a weight that is none is a no-op", stacklevel=1)


class Draws(nn.Module):
    """Draws from a global generator as it is built, and with every batch, in training and in evaluation."""

    def __init__(self, spec, source: str = "torch"):
        super().__init__()
        self.draw = DRAWS[source]
        self.scale = 1 + self.draw()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(spec.size, len(spec.classes)))

    def forward(self, inputs):
        return self.layers(inputs) * (self.scale + self.draw())


class Plain:
    pass


def still(epoch, epochs):
    return 0.0


def lazy(spec):
    """A network whose weights wait for the first batch."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(len(spec.classes)))
