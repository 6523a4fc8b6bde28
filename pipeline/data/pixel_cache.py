"""Decoded images kept on the disk, so that the next start does not decode them again.

It only saves time: what is damaged, or cannot be read or written, is decoded as if nothing were there.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock, Timeout

from pipeline import pixels
from pipeline.data import decoding
from pipeline.data.decoding import Decoded
from pipeline.files import replaced_whole
from pipeline.launchers import tell

MAKERS = (decoding, pixels)  # an entry is as good as the code that made it
PATIENCE_S = 3.0  # until it is said what is waited for
KEPT = 8  # entries, the last used ones


def cached(folder: Path, names: Sequence[str], image_size: int, decode: Callable[[], Decoded]) -> Decoded:
    """What `decode` gives for the folder's files, from the disk where it was decoded before.

    The files are known by their names, sizes and times; other processes wait until it is decoded, once for all of them.
    """
    place = cache_folder()
    if not place.is_absolute():  # a user without a home
        return decode()
    path = place / f"{_key(folder, names, image_size)}.npz"
    with _locked(place):
        found = _read(path, len(names))
        if found is None:
            found = decode()
            _write(path, found)
        return found


def cache_folder() -> Path:
    """Where the entries lie: in the user's folder for caches, as XDG has it."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~/.cache"))  # noqa: PTH111, PTH117
    return base / "mnist-mlp-pipeline" / "images"


def _key(folder: Path, names: Sequence[str], image_size: int) -> str:
    sha = hashlib.sha256(f"{PIL.__version__} {image_size}\0".encode() + os.fsencode(folder.resolve()))
    for module in MAKERS:
        sha.update(Path(str(module.__file__)).read_bytes())
    for name in names:
        stat = os.stat(f"{folder}/{name}")  # noqa: PTH116 (a Path costs more than the call)
        # The change time too: archives give all versions of a file one modification time.
        sha.update(b"\0" + os.fsencode(name) + f"\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}".encode())
    return sha.hexdigest()[:32]


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Alone in the cache, where it can be written."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):
            place.mkdir(parents=True, exist_ok=True)
            lock = FileLock(place / "lock")
            try:
                stack.enter_context(lock.acquire(timeout=PATIENCE_S))
            except Timeout:
                tell(f"waiting for another process, which decodes images into {place}")
                stack.enter_context(lock.acquire())
        yield


def _read(path: Path, count: int) -> Decoded | None:
    """The entry, or nothing if it is not there, or damaged: the archive has a checksum of each array."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = Decoded(archive["pixels"], archive["kept"], archive["unreadable"].tolist())
    except Exception:  # NumPy, zipfile, zlib and the parser of an array's header each raise their own
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the last used ones are kept
    return found if found.kept.shape == (count,) and found.kept.sum() == len(found.pixels) else None


def _write(path: Path, decoded: Decoded) -> None:
    """Keep the entry, and of all entries only the last used ones."""
    try:
        _prune(path.parent, KEPT - 1)
        with replaced_whole(path) as partial, partial.open("wb") as file:
            np.savez(file, pixels=decoded.pixels, kept=decoded.kept, unreadable=np.array(decoded.unreadable, np.str_))
    except OSError as error:
        with contextlib.suppress(OSError):
            path.with_name(f"{path.name}.partial").unlink(missing_ok=True)
        tell(f"the decoded images could not be kept in {path.parent} ({error.strerror}): each start decodes them anew")


def _prune(place: Path, kept: int) -> None:
    """Remove all but the last used entries, and what killed processes have left."""
    entries = sorted(place.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    for path in [*place.glob("*.partial"), *entries[: max(0, len(entries) - kept)]]:
        path.unlink(missing_ok=True)
