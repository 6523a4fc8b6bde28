"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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


def sync_to_disk(path: Path) -> None:
    """Wait until the file's content, or the folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
