"""Lightning's Trainer as a config asks for it, the processes that it starts, and its words."""

import contextlib
import functools
import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning_fabric.utilities import registry
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import MPSAccelerator
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import Logger

from pipeline.config import RunConfig
from pipeline.launchers import has_partners, needs_launcher

# Each Trainer looks through all installed packages for callbacks; one look is enough for a process, and 0.02 s.
registry.entry_points = functools.cache(registry.entry_points)  # type: ignore[attr-defined,assignment]


def make_trainer(config: RunConfig, logger: Logger | bool, callbacks: Sequence[Callback], **options: Any) -> Trainer:
    """Lightning's Trainer as the config asks for it; what it refuses ends in a ValueError that names what was given."""
    own = [*callbacks]
    if config.early_stopping:
        own.append(EarlyStopping("val_loss", patience=config.early_stopping, check_finite=False))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    try:
        return Trainer(
            max_epochs=config.epochs,
            accelerator=_accelerator(config.accelerator),
            devices=int(config.devices) if config.devices.isdigit() else config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=config.precision,
            logger=logger,
            callbacks=own,
            **{**quiet, "deterministic": True, "gradient_clip_val": config.gradient_clip or None, **options},
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
        given = ", ".join(f"{name} {getattr(config, name)}" for name in names)
        raise ValueError(f"Lightning cannot train with {given} here: {error}") from error


def _accelerator(asked: str) -> str:
    """What to ask Lightning for: its own choice, but not MPS, on which no training of ours can sum its means."""
    if asked != "auto" or not MPSAccelerator.is_available():
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_hardware(config: RunConfig) -> int:
    """Make sure that Lightning takes the accelerator, devices, strategy and precision, before a run begins.

    Returns:
        How many processes will train together.

    Raises:
        ValueError: saying what Lightning has against them; if it takes MPS; if several nodes are wanted and nobody has
            started them.
    """
    if config.num_nodes > 1 and not has_partners():
        raise ValueError(needs_launcher(config.num_nodes))
    with only_useful_words():
        trainer = make_trainer(config, False, [])
    if isinstance(trainer.accelerator, MPSAccelerator):
        lacks = "has no float64, in which means are summed"
        raise ValueError(f"accelerator {config.accelerator} is MPS here, which {lacks}; take cpu")
    return trainer.world_size


def tell_partners(job: dict[str, Any] | None) -> dict[str, Any]:
    """Bring the processes that torchrun has started together, and the first one's word to all of them.

    Args:
        job: what the first has to say; None on the others.
    """
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    words = [job]
    torch.distributed.broadcast_object_list(words, src=0)
    assert words[0] is not None
    return words[0]


def leave_the_group() -> None:
    """All ranks together; left to the exit, the group's threads can abort the process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def other_ranks_ended(trainer: Trainer) -> Iterator[None]:
    """After an error end the other ranks, which wait for this one.

    Lightning's observer of them is to leave this one alive, which has its record to end.
    """
    try:
        yield
    except BaseException:
        if (launcher := trainer.strategy.launcher) is not None:
            launcher.kill(signal.SIGTERM)
            getattr(launcher, "procs", []).clear()
        raise


@contextlib.contextmanager
def only_useful_words() -> Iterator[None]:
    """Keep back Lightning's banners and the warnings that a user of this pipeline cannot act on."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*Checkpoint directory.*",
            ".*GPU available but not used.*",
            ".*LeafSpec.*",
            ".*logging interval.*",
            ".*sync_dist=True.*",  # the means are summed over all ranks before they are logged
            ".*recommended to use `Trainer\\(devices=1.*",  # no image is evaluated twice, see datamodule.InOrder
        ):
            warnings.filterwarnings("ignore", message)
        yield
