"""Files that are written whole or not at all, and told from damaged ones; checkpoints, by their names."""

import contextlib
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

KEPT, BEST = 2, "best.ckpt"  # so many checkpoints of epochs stay; that of the best one
_OURS = re.compile(rf"(epoch-\d+\.ckpt|{re.escape(BEST)})(\.partial)?")


@contextlib.contextmanager
def replaced_whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a neighbour to write to, which takes the file's place when the block ends well.

    Args:
        path: the file; until then it stays as it is.
        durable: wait for the disk, so that a power loss leaves the old file or the new one.
    """
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    if durable:
        sync_to_disk(partial)
    partial.replace(path)
    if durable:
        sync_to_disk(path.parent)


def is_whole_archive(path: Path) -> bool:
    """Whether it is a zip archive, as checkpoints are, each member of which has the checksum that it was given."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # what a damaged file makes zipfile raise is not its to promise
        return False


def sync_to_disk(path: Path) -> None:
    """Wait until the file's content, or the folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoints_in_order(checkpoints: Path) -> list[Path]:
    """The checkpoints of epochs below a run's folder of them, the oldest first."""
    found = (path for path in checkpoints.glob("epoch-*.ckpt") if re.fullmatch(r"epoch-\d+", path.stem))
    return sorted(found, key=epoch_of)


def our_checkpoints(checkpoints: Path) -> list[Path]:
    """Every file that the checkpoints of epochs and of the best one leave there, half written ones as well."""
    return [path for path in checkpoints.glob("*") if _OURS.fullmatch(path.name)]


def epoch_of(checkpoint: Path) -> int:
    """The number of epochs that the checkpoint has behind it."""
    return int(checkpoint.stem.removeprefix("epoch-"))
