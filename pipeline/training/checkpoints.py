"""Checkpoints on disk: written whole or not at all, the last two kept, a damaged one passed over."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch.serialization import add_safe_globals, get_unsafe_globals_in_checkpoint

from pipeline import files
from pipeline.config.own_code import OwnCodeError, begin_of
from pipeline.files import checkpoints_in_order, is_whole_archive, replaced_whole

KEPT, BEST = files.KEPT, files.BEST
NEEDED = {"state_dict", "optimizer_states", "callbacks", "loops", "epoch", "global_step"}
# NumPy's numbers and arrays hold no code, and a callback's `min(self.best, np.mean(...))` is one: they may be loaded.
add_safe_globals([np.ndarray, np.dtype, *(each for each in vars(np.dtypes).values() if isinstance(each, type))])
add_safe_globals([np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]])  # type: ignore[list-item]


class BestIsLostError(RuntimeError):
    """The weights of the best epoch are lost."""


def save(trainer: Trainer, folder: Path, epoch: int) -> Path:
    """Write `epoch-NNNN.ckpt` (every rank must call) and remove all but the last two; returns its path."""
    path = path_of(folder, epoch)
    write_whole(trainer, path)
    if trainer.is_global_zero:
        for old in checkpoints_in_order(folder)[:-KEPT]:
            old.unlink()
    return path


def write_whole(trainer: Trainer, path: Path) -> None:
    """Save to a neighbour, sync it to the disk and rename it: after a power loss the old or the new file is there.

    Raises:
        OSError: if the disk refuses; on the rank that writes alone, and when the others are past it.
        OwnCodeError: if it could not be loaded again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writes = (
        replaced_whole(path, durable=True)
        if trainer.is_global_zero
        else contextlib.nullcontext(path.with_name(f"{path.name}.partial"))
    )
    with writes as partial:
        try:
            trainer.save_checkpoint(partial)
        except OSError:
            trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other ranks wait for this one
            raise
        if trainer.is_global_zero and get_unsafe_globals_in_checkpoint(partial):
            raise OwnCodeError(f"this checkpoint could not be loaded again: {_unloadable(trainer, partial)}")


def _unloadable(trainer: Trainer, path: Path) -> str:
    """Which part of the checkpoint that was just written here is more than plain types and tensors, and whose."""
    content = torch.load(path, map_location="cpu", weights_only=False)
    states = content.pop("callbacks", {})
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if problem := problem_of(states.get(callback.state_key)):
            kind = type(callback)
            return f"callback {kind.__module__}:{kind.__qualname__} ({begin_of(kind.state_dict)}): its state {problem}"
    name, problem = next((name, found) for name, part in content.items() if (found := problem_of(part)))
    return f"its {name} {problem}"


def latest(folder: Path) -> tuple[Path | None, list[Path]]:
    """The newest checkpoint that is whole, or None; and the damaged ones that are newer."""
    damaged: list[Path] = []
    for path in reversed(checkpoints_in_order(folder)):
        if load(path) is not None:
            return path, damaged
        damaged.append(path)
    return None, damaged


def load(path: Path) -> dict[str, Any] | None:
    """The checkpoint's content; None if the file is missing or damaged.

    Whole means: every member of the archive has the checksum that it was given (torch looks at none), and torch has
    loaded it. What a damaged file makes either of them raise is not theirs to promise, so any error counts.
    """
    if not is_whole_archive(path):
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return content if content.keys() >= NEEDED else None
    except Exception:
        return None


def find_best(folder: Path, epoch: int) -> dict[str, Any] | None:
    """The weights of the best epoch: from `best.ckpt`, or from that epoch's own checkpoint while it is kept."""
    for path in (folder / BEST, path_of(folder, epoch)):
        content = load(path)
        if content is not None and content["epoch"] + 1 == epoch:
            weights: dict[str, Any] = content["state_dict"]
            return weights
    return None


def best_weights(folder: Path, epoch: int) -> dict[str, Any]:
    """The weights of the best epoch.

    Raises:
        BestIsLostError: if they are not to be had; no others are given out for them.
    """
    weights = find_best(folder, epoch)
    if weights is None:
        raise BestIsLostError(
            f"the weights of the best epoch, {epoch}, could not be kept or are damaged; "
            "resume the run: it trains again from the first epoch, to the same numbers"
        )
    return weights


def problem_of(state: Any) -> str:
    """Why a checkpoint that holds this state could not be loaded again; nothing, if it could."""
    content = io.BytesIO()
    try:
        torch.save(state, content)
    except Exception as error:  # whatever a user's own object raises as it is pickled
        return f"cannot be pickled ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
    content.seek(0)
    try:
        torch.load(content, weights_only=True)
    except Exception:
        content.seek(0)
        found = ", ".join(sorted(get_unsafe_globals_in_checkpoint(content))) or "what is neither"
        return f"holds {found}; expected tensors, NumPy arrays and plain types: numbers, text, lists, dicts"
    return ""


def path_of(folder: Path, epoch: int) -> Path:
    """Where the checkpoint of an epoch (from 1) lies."""
    return folder / f"epoch-{epoch:04d}.ckpt"
