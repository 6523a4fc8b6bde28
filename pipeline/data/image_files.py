"""Image files in MNIST's own format: found under every name they go by, and read. Knows NumPy only."""

import errno
import hashlib
import math
import re
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import DataError

Bytes = NDArray[np.uint8]

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
GZIP = b"\x1f\x8b"
HIGHEST_RATIO = 1_100  # no gzip stream becomes so many times longer
IDX_TYPES = {
    0x09: "signed bytes",
    0x0B: "2-byte integers",
    0x0C: "4-byte integers",
    0x0D: "4-byte floats",
    0x0E: "8-byte floats",
}


@dataclass(frozen=True)
class Part:
    """One of the four parts of a dataset as it was found.

    Attributes:
        where: the file, or the key in an archive.
        values: images (N, height, width) or labels (N,), uint8.
        md5: of the file as it lies, where it is gzipped; known data are known by it.
    """

    where: str
    values: Bytes
    md5: str = ""


def find(places: list[Path]) -> list[Path | None]:
    """Where each of the four files lies, None for those that are missing.

    Also found: `train-images.idx3-ubyte` and other spellings, upper case, `test` for `t10k`, and a file inside a folder
    of its own name, as archives unpack. Nearer places come first, then the right spelling, then the gzipped file.

    Raises:
        DataError: for a folder that cannot be read.
    """
    found: dict[str, tuple[tuple[int, bool, bool, str], Path]] = {}
    for nearness, place in enumerate(places):
        for name in listing(place):
            stem = stem_of(name)
            if stem in FILES:
                rank = (nearness, name.removesuffix(".gz") != stem, not name.lower().endswith(".gz"), name)
                if stem not in found or rank < found[stem][0]:
                    found[stem] = rank, place / name
    return [_inside(found[name][1], name) if name in found else None for name in FILES]


def listing(folder: Path) -> list[str]:
    """The names in a folder; none if there is no such folder.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder}: found a folder that cannot be read ({error.strerror}), expected data") from None


def stem_of(name: str) -> str:
    """The published name of a file as people have it, without `.gz`."""
    return re.sub(r"^test-", "t10k-", re.sub(r"[._ ]", "-", name.lower().removesuffix(".gz")))


def _inside(path: Path, stem: str) -> Path:
    """The file itself, where a folder of that name holds it."""
    if path.is_dir():
        return next((path / name for name in listing(path) if stem_of(name) == stem), path)
    return path


def content_of(path: Path) -> bytes:
    """The bytes of a regular file, read at once.

    Raises:
        DataError: if it is something else or cannot be read; never waits for a pipe.
    """
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            raise DataError(f"{path}: found {_kind_in_words(kind)}, expected a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: found a link that leads nowhere, expected a file") from None
    except MemoryError:
        raise DataError(f"{path}: found a file that does not fit into memory, expected a data set that does") from None
    except OSError as error:
        advice = "; make it readable for you" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise DataError(f"{path}: found a file that cannot be read ({error.strerror}), expected data{advice}") from None


def _kind_in_words(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((words for is_one, words in kinds.items() if is_one(mode)), "a device")


def read_idx(path: Path, dimensions: int) -> Part:
    """Read an IDX file of unsigned bytes (format: two zeros, 0x08, number of dimensions, big-endian sizes, data).

    Gzipped or not is told by the content: browsers unpack what keeps the name `.gz`.

    Raises:
        DataError: naming the file, what was found and what was expected.
    """
    stored = content_of(path)
    zipped = stored[:2] == GZIP
    if not zipped and path.suffix.lower() == ".gz" and stored[:2] != b"\0\0":
        found = f"Not a gzipped file ({stored[:2]!r})"
        raise DataError(f"{path}: {_damaged(found)}")
    try:
        head = zlib.decompressobj(wbits=31).decompress(stored, 16) if zipped else stored[:16]
        shape = _shape(path, head, dimensions)
        header, expected = 4 + 4 * dimensions, math.prod(shape)
        content = bytearray(_gunzip(stored, header + expected) if zipped else stored)  # torch takes it as it lies
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: {_damaged(error)}") from None
    except MemoryError:
        raise DataError(f"{path}: found data that do not fit into memory, expected a data set that does") from None
    if len(content) != header + expected:
        more = "more than " if zipped and len(content) > header + expected else ""
        found_bytes = expected if more else len(content) - header
        raise DataError(
            f"{path}: found {more}{found_bytes:,} data bytes, expected {expected:,} for shape {shape}; fetch it again"
        )
    values = np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    return Part(str(path), values, hashlib.md5(stored, usedforsecurity=False).hexdigest() if zipped else "")


def _damaged(reason: object) -> str:
    return f"found a truncated or corrupted file ({reason}), expected a whole gzip file; fetch it again"


def _shape(path: Path, head: bytes, dimensions: int) -> tuple[int, ...]:
    """The sizes that an IDX header tells."""
    magic = bytes([0, 0, 8, dimensions])
    if head[:4] == magic and len(head) >= 4 + 4 * dimensions:
        return tuple(int(size) for size in np.frombuffer(head, ">u4", dimensions, offset=4))
    found = f"{len(head)} bytes" if len(head) < 4 or head[:4] == magic else f"0x{head[:4].hex()}"
    kind = IDX_TYPES.get(head[2]) if len(head) >= 4 and head[:2] == b"\0\0" else None
    words = f" ({kind} in {head[3]} dimensions)" if kind else ""
    raise DataError(f"{path}: found {found} at the start{words}, expected the IDX header 0x{magic.hex()}")


def _gunzip(stored: bytes, size: int) -> bytes:
    """The content of a gzip file, or one byte more than the size if it is longer.

    Raises:
        EOFError, zlib.error: if it is damaged or other bytes follow.
    """
    if size > HIGHEST_RATIO * len(stored):
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")
    content, rest = b"", stored
    while rest and len(content) <= size:
        if rest[:2] != GZIP:
            raise zlib.error(f"{len(rest):,} other bytes follow the gzip stream")
        stream = zlib.decompressobj(wbits=31)
        part = stream.decompress(rest, size + 1 - len(content))
        content = content + part if content else part
        if len(content) <= size and not stream.eof:
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        rest = stream.unused_data.lstrip(b"\0")
    return content
