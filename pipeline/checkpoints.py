"""Checkpoints on disk: written whole or not at all, the last two kept, a damaged one passed over."""

import zipfile
import zlib
from pathlib import Path

from pytorch_lightning import Trainer

from pipeline.record import sync_to_disk

KEPT = 2


def save(trainer: Trainer, folder: Path, epoch: int) -> Path:
    """Write `epoch-NNNN.ckpt` (every rank must call) and remove all but the last two; returns its path."""
    path = folder / f"epoch-{epoch:04d}.ckpt"
    write_whole(trainer, path)
    if trainer.is_global_zero:
        for old in _by_age(folder)[:-KEPT]:
            old.unlink()
    return path


def write_whole(trainer: Trainer, path: Path) -> None:
    """Save to a neighbour, sync it to the disk and rename it: after a power loss the old or the new file is there."""
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(partial)
    if trainer.is_global_zero:
        sync_to_disk(partial)
        partial.replace(path)
        sync_to_disk(path.parent)


def latest(folder: Path) -> tuple[Path | None, list[Path]]:
    """The newest checkpoint that is whole, or None; and the damaged ones that are newer."""
    damaged: list[Path] = []
    for path in reversed(_by_age(folder)):
        if _is_whole(path):
            return path, damaged
        damaged.append(path)
    return None, damaged


def epoch_of(path: Path) -> int:
    """The number of epochs that the checkpoint has behind it."""
    return int(path.stem.removeprefix("epoch-"))


def _by_age(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*.ckpt"), key=epoch_of)


def _is_whole(path: Path) -> bool:
    """Whether every member of the archive (torch.save writes a zip file) has the checksum that it was given."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        return False
