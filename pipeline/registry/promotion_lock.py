"""One promotion at a time, as far as one machine can see to it."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import mlflow
from filelock import FileLock

from pipeline.mlflow_client.tracking_uri import sqlite_path
from pipeline.terminal.account import own_folder


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Two at once would each judge a champion that the other is about to replace.

    The lock spares one user that work; what guards the alias, from other users and machines too, is the look at the
    registry before it is moved. So a lock that cannot be had (another user's file, a read-only disk) is done without.
    """
    with ExitStack() as stack:
        path = _lock_path(name)
        if path is not None:
            with suppress(OSError):
                stack.enter_context(FileLock(path))
        yield


def _lock_path(name: str) -> Path | None:
    """Beside the registry's file; for a server in a folder that is this user's alone."""
    uri = mlflow.get_registry_uri()
    if path := sqlite_path(uri):
        return path.with_name(f"{path.name}.promote.lock")
    folder = own_folder(Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), f"pipeline-{os.getuid()}"))
    return folder and folder / f"promote-{hashlib.sha256(f'{uri} {name}'.encode()).hexdigest()[:16]}.lock"
