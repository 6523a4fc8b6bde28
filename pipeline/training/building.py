"""Data, network and classifier of a config; the network first on paper, where it costs nothing: does it fit?"""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.config import RunConfig
from pipeline.data.datamodule import MNISTDataModule
from pipeline.networks.mlp import MLP
from pipeline.optim.optimizers import make_optimizer
from pipeline.seeding import derive_seed
from pipeline.training.classifier import DigitClassifier

# Weights, gradients and, as an ONNX file is written and tried, three more copies; beside them the optimizer's own.
COPIES, OWN_COPIES = 5, {"rmsprop": 1, "sgd": 1, "adagrad": 1, "adadelta": 2, "adam": 2}
BYTES = 4  # of a float32
LARGEST_ONNX = 2**31 - 2**20  # bytes that one protobuf message, and so an ONNX file, holds
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def make_network(config: RunConfig) -> nn.Module:
    """The network: (B, 784) -> (B, 10) logits, its weights drawn from torch's global generator."""
    return MLP(config.hidden_units, config.hidden_layers, config.dropout)


def make_classifier(config: RunConfig) -> DigitClassifier:
    """The classifier of the config, its weights drawn from the seed."""

    def optimizer(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return make_optimizer(
            config.optimizer,
            parameters,
            learning_rate=config.learning_rate,
            rho=config.rho,
            epsilon=config.epsilon,
            momentum=config.momentum,
        )

    torch.manual_seed(derive_seed(config.seed, "weights"))
    return DigitClassifier(make_network(config), optimizer)


def make_data(config: RunConfig) -> MNISTDataModule:
    """The data module of the config."""
    return MNISTDataModule(
        config.dataset, config.data_dir, config.batch_size, config.validation_size, config.seed, config.data_name
    )


def check_shares(data: MNISTDataModule, processes: int) -> None:
    """Make sure that every process gets an image: one without any would wait for ever, or be waited for.

    Raises:
        ValueError: naming the images that are too few.
    """
    parts = {"training": data.train_images, "validation": data.val_images, "test": data.test_images}
    for name, images in parts.items():
        if len(images) < processes:
            raise ValueError(
                f"{processes} processes cannot share {len(images)} {name} image{'s' * (len(images) != 1)}; "
                "take fewer devices, or another validation_size"
            )


def settled(config: RunConfig) -> RunConfig:
    """The config with the names that depend on the network: `auto` becomes `mnist-mlp`, of a class CNN `mnist-cnn`."""
    return config.named_after(type(_on_paper(config)).__name__)


def check_size(config: RunConfig, images: int) -> None:
    """Make sure that the network can be trained here on so many images, and written as ONNX, before anything is made.

    Raises:
        ValueError: saying how much it needs and how much is here.
    """
    given = f"hidden_units {config.hidden_units}, hidden_layers {config.hidden_layers}"
    try:
        network = _on_paper(config)
    except (RuntimeError, OverflowError, TypeError) as error:
        if "overflow" not in str(error).lower() and "too large" not in str(error).lower():
            raise
        raise ValueError(f"{given}: more weights than can be counted; take fewer") from None
    weights = sum(each.numel() for each in network.parameters())
    widths = sum(layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear))
    batch = min(config.batch_size, images)
    needed = BYTES * (weights * (COPIES + OWN_COPIES[config.optimizer]) + 3 * batch * widths)
    here = memory_here()
    if needed > here:
        raise ValueError(
            f"{given}, batch_size {config.batch_size}: training {weights:,} weights in batches of {batch:,} "
            f"needs about {_gigabytes(needed)} of memory, here are {_gigabytes(here)}; take fewer"
        )
    if weights * BYTES > LARGEST_ONNX:
        raise ValueError(f"{given}: {weights:,} weights take {_gigabytes(weights * BYTES)}, an ONNX file holds 2 GB")


def _on_paper(config: RunConfig) -> nn.Module:
    """The network without memory for its weights; a network that cannot be had so is built."""
    try:
        with torch.device("meta"):
            return make_network(config)
    except NotImplementedError:
        return make_network(config)


def memory_here() -> int:
    """Bytes of memory that this machine has, or that its container may use, if that is less."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**63
    for path in LIMITS:
        try:
            memory = min(memory, int(Path(path).read_text()))
        except (OSError, ValueError):  # not there, or `max`
            continue
    return memory


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size < 1e11 else f"{size / 1e9:,.0f} GB"
