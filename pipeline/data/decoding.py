"""Image files decoded on all cores into one array.

Threads, as Pillow decodes and resizes without Python's lock: 2,062 JPEGs of 100x100 on 2 cores take 1.9 s, in one
thread 2.6 s, in processes 2.9 s with their start.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.dataset import DataError
from pipeline.machine import cores_here, in_gigabytes, memory_here
from pipeline.pixels import as_pixels, check_range

Pixels = NDArray[np.uint8]
GREY = ("1", "L", "LA", "La", "I", "F")
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF
DRAFT = 4  # times the size asked for: what a JPEG is decoded at least at, so that pixels change by 2 in 255 at most
COPIES = 2  # the array and, of colours, the tensor in another order
SUGGESTED = 64

Result = TypeVar("Result")


@dataclass(frozen=True)
class Header:
    """What a file tells before it is decoded."""

    height: int
    width: int
    grey: bool


@dataclass(frozen=True)
class Decoded:
    """Images of one shape.

    Attributes:
        pixels: (N, height, width) or (N, height, width, 3).
        kept: which of the files they are, true or false for each.
        unreadable: the others, each with the reason.
    """

    pixels: Pixels
    kept: NDArray[np.bool_]
    unreadable: list[str]


def decode(folder: Path, names: Sequence[str], image_size: int) -> Decoded:
    """Decode the folder's files, grey if all of them are, else in colour; those that cannot be read are left out.

    Args:
        folder: where they lie.
        names: of the files below it.
        image_size: the side to which they are resized, 0: as they are.

    Raises:
        DataError: if they differ in size and are not resized, do not fit into memory, or if none can be read.
    """
    Image.init()  # all formats; threads that find them missing at the same time do not all see them come
    with warnings.catch_warnings():  # of Pillow about what it reads all the same; what it does not read is told here
        warnings.simplefilter("ignore")
        return _decode_all(folder, names, image_size)


def _decode_all(folder: Path, names: Sequence[str], image_size: int) -> Decoded:
    headers = _on_all_cores(lambda name: _header(folder / name), names)
    readable = {name: header for name, header in zip(names, headers, strict=True) if isinstance(header, Header)}
    reasons = {name: header for name, header in zip(names, headers, strict=True) if isinstance(header, str)}
    shape = _common_shape(folder, readable, image_size) if readable else (0, 0)
    _check_memory(folder, len(readable), shape, image_size)
    pixels = np.empty((len(readable), *shape), np.uint8)

    def into_place(row: int, name: str) -> str:
        """Fill in the image's pixels; why that could not be, or nothing."""
        found = _pixels(folder / name, image_size, channels=1 if pixels.ndim == 3 else 3)
        if isinstance(found, str):
            return found
        if found.shape != shape:
            raise _differing(folder, (next(iter(readable)), shape), (name, found.shape))
        pixels[row] = found
        return ""

    problems = _on_all_cores(into_place, range(len(readable)), readable)
    reasons |= {name: problem for name, problem in zip(readable, problems, strict=True) if problem}
    if len(reasons) == len(names):
        raise DataError(
            f"{folder}: found {len(names):,} image files of which none can be read ({names[0]}: {reasons[names[0]]})"
        )
    kept = np.array([name not in reasons for name in names], np.bool_)
    good = np.array([not problem for problem in problems], np.bool_)
    return Decoded(
        pixels if good.all() else pixels[good], kept, [f"{name}: {reasons[name]}" for name in sorted(reasons)]
    )


def _on_all_cores(call: Callable[..., Result], *items: Iterable[Any]) -> list[Result]:
    with ThreadPoolExecutor(cores_here()) as pool:
        return list(pool.map(call, *items))


def _common_shape(folder: Path, headers: Mapping[str, Header], image_size: int) -> tuple[int, ...]:
    """(height, width) if all images are grey, else (height, width, 3)."""
    if image_size:
        size = (image_size, image_size)
    else:
        first, *others = ((name, (header.height, header.width)) for name, header in headers.items())
        size = first[1]
        if other := next((each for each in others if each[1] != size), None):
            raise _differing(folder, first, other)
    return size if all(header.grey for header in headers.values()) else (*size, 3)


def _differing(folder: Path, one: tuple[str, tuple[int, ...]], other: tuple[str, tuple[int, ...]]) -> DataError:
    both = " and ".join(f"{name} of {shape[0]}x{shape[1]}" for name, shape in (one, other))
    return DataError(
        f"{folder}: images differ in size (height x width): found {both}; resize all of them with "
        f"--image_size {SUGGESTED}"
    )


def _check_memory(folder: Path, count: int, shape: tuple[int, ...], image_size: int) -> None:
    """Make sure that the images fit into memory before that is tried."""
    needed, here = COPIES * count * math.prod(shape), memory_here()
    if needed <= here:
        return
    advice = (
        f"give a smaller --image_size than {image_size}" if image_size else f"resize them: --image_size {SUGGESTED}"
    )
    raise DataError(
        f"{folder}: {count:,} images of {'x'.join(map(str, shape))} need {in_gigabytes(needed)} of memory, here are "
        f"{in_gigabytes(here)}; {advice}"
    )


def _header(path: Path) -> Header | str:
    """The file's header, or why it cannot be read."""
    try:
        with Image.open(path) as image:
            check_range(image)  # else what will be left out would say how large the others have to be
            height, width = image.height, image.width
            if height != width and _tells_its_orientation(image):
                turned = image.getexif().get(ORIENTATION) in SIDEWAYS
                height, width = (width, height) if turned else (height, width)
            return Header(height, width, image.mode.partition(";")[0] in GREY)
    except Exception as error:  # each of Pillow's formats raises its own of a damaged file
        return _in_words(error)


def _tells_its_orientation(image: Image.Image) -> bool:
    """Whether the header does, and the size is not yet that of the upright image."""
    return image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)


def _shrink(image: Image.Image, image_size: int) -> None:
    """Let a JPEG be decoded to an eighth, quarter or half of its size, where that is enough and divides it."""
    for scale in (8, 4, 2):
        fine = min(image.size) >= scale * DRAFT * image_size
        if fine and image.width % scale == image.height % scale == 0:  # else pixels at the edge would count for more
            image.draft(None, (image.width // scale, image.height // scale))
            return


def _pixels(path: Path, image_size: int, channels: int) -> Pixels | str:
    """The image's pixels, or why it cannot be read."""
    size = (image_size, image_size) if image_size else None
    try:
        with Image.open(path) as image:
            if size:
                _shrink(image, image_size)
            return as_pixels(image, size, channels)
    except Exception as error:
        return _in_words(error)


def _in_words(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:80] or type(error).__name__
