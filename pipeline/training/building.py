"""Data, network and classifier of a config; the network first on paper, where it costs nothing: does it fit?"""

import warnings
from collections.abc import Iterable

import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from pipeline.config import RunConfig, own_code
from pipeline.config.own_code import OwnCodeError
from pipeline.data.datamodule import DataModule
from pipeline.data_spec import DataSpec
from pipeline.machine import in_gigabytes, memory_here
from pipeline.networks.cnn import CNN
from pipeline.networks.mlp import MLP
from pipeline.optim.optimizers import make_optimizer
from pipeline.optim.schedules import factor_of
from pipeline.seeding import derive_seed
from pipeline.training.augmentation import make_augmentation
from pipeline.training.classifier import Classifier
from pipeline.training.metrics import make_measures
from pipeline.values import counted

NETWORKS = {"mlp": MLP, "cnn": CNN}
# Weights, gradients and, as an ONNX file is written and tried, three more copies; beside them the optimizer's own.
COPIES = 5
OWN_COPIES = {"rmsprop": 1, "sgd": 1, "nesterov": 1, "adagrad": 1, "adadelta": 2, "adam": 2, "adamw": 2}
COPIES_OF_UNKNOWN = 2  # as most optimizers of today
BYTES = 4  # of a float32
LARGEST_ONNX = 2**31 - 2**20  # bytes that one protobuf message, and so an ONNX file, holds


def make_network(config: RunConfig, spec: DataSpec) -> nn.Module:
    """The network: (B, ...) -> (B, classes) logits, its weights drawn from torch's global generator.

    Raises:
        OwnCodeError: if the user's own gives no module, or one without weights yet.
    """
    make = own_code.load(config.network) if own_code.is_own(config.network) else NETWORKS[config.network]
    network = make(spec, **config.own_knobs("network"))
    if not isinstance(network, nn.Module):
        raise OwnCodeError(f"{config.network} gave {type(network).__name__}, expected a torch.nn.Module")
    if any(isinstance(each, UninitializedParameter) for each in network.parameters()):
        raise OwnCodeError(f"{config.network} has lazy layers, whose weights are not there yet; size them by the spec")
    return network


def make_classifier(config: RunConfig, spec: DataSpec) -> Classifier:
    """The classifier of the config, its weights drawn from the seed."""
    torch.manual_seed(derive_seed(config.seed, "weights"))
    network = make_network(config, spec)
    return Classifier(
        network,
        lambda parameters: _optimizer(config, parameters),
        factor_of(config.schedule, config.epochs),
        make_augmentation(config.augment, spec),
        make_measures(config.metric),
    )


def _optimizer(config: RunConfig, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    return make_optimizer(
        config.optimizer,
        parameters,
        learning_rate=config.learning_rate,
        rho=config.rho,
        epsilon=config.epsilon,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


def make_callbacks(paths: str) -> list[Callback]:
    """What the import paths, with commas between, give without arguments.

    Raises:
        OwnCodeError: if it is no callback.
    """
    found = [(path, own_code.load(path, ())()) for path in paths.split(",") if path]
    for path, each in found:
        if not isinstance(each, Callback):
            raise OwnCodeError(f"{path} gave {type(each).__name__}, expected a pytorch_lightning.Callback")
    return [each for _, each in found]


def make_data(config: RunConfig) -> DataModule:
    """The data module of the config."""
    which = config.dataset, config.data_dir, config.batch_size, config.validation_size, config.seed, config.data_name
    return DataModule(*which, config.own_knobs("dataset"), config.validation_seed)


def check_shares(data: DataModule, processes: int) -> None:
    """Make sure that every process gets an example: one without any would wait for ever, or be waited for.

    Raises:
        ValueError: naming the examples that are too few.
    """
    parts = {"training": data.train_examples, "validation": data.val_examples, "test": data.test_examples}
    for name, examples in parts.items():
        if len(examples) < processes:
            raise ValueError(
                f"{processes} processes cannot share {counted(len(examples), f'{name} example')}; "
                "take fewer devices, or another validation_size"
            )


def check_size(config: RunConfig, spec: DataSpec, examples: int) -> None:
    """Make sure that the network can be trained here on so many examples, and written as ONNX, before anything is made.

    Torch's random state stays.

    Raises:
        ValueError: saying how much it needs and how much is here.
    """
    given = ", ".join(f"{name} {value}" for name, value in config.own_knobs("network").items()) or config.network
    try:
        with torch.random.fork_rng(devices=[]):
            network = _on_paper(config, spec)
    except (RuntimeError, OverflowError, TypeError) as error:
        if not _cannot_be_counted(error):
            raise
        raise ValueError(f"{given}: more weights than can be counted; take fewer") from None
    weights = sum(each.numel() for each in network.parameters())
    widths = sum(layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear))
    batch = min(config.batch_size, examples)
    needed = BYTES * (weights * (COPIES + OWN_COPIES.get(config.optimizer, COPIES_OF_UNKNOWN)) + 3 * batch * widths)
    here = memory_here()
    if needed > here:
        raise ValueError(
            f"{given}, batch_size {config.batch_size}: training {weights:,} weights in batches of {batch:,} "
            f"needs about {in_gigabytes(needed)} of memory, here are {in_gigabytes(here)}; take fewer"
        )
    if weights * BYTES > LARGEST_ONNX:
        raise ValueError(f"{given}: {weights:,} weights take {in_gigabytes(weights * BYTES)}, an ONNX file holds 2 GB")


def _on_paper(config: RunConfig, spec: DataSpec) -> nn.Module:
    """The network without memory for its weights; a network that cannot be had so is built."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make_network(config, spec)
    except Exception as error:  # whatever its code does that needs numbers, as `.item()`
        if _cannot_be_counted(error):
            raise
    return make_network(config, spec)


def _cannot_be_counted(error: Exception) -> bool:
    words = str(error).lower()
    return isinstance(error, RuntimeError | OverflowError | TypeError) and ("overflow" in words or "too large" in words)
