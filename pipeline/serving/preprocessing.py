"""An image file as the network wants it.

Drawings go the way by which MNIST's authors made their images from NIST's. Y. LeCun, C. Cortes, C. Burges, "The MNIST
database": digits "size normalized to fit in a 20x20 pixel box while preserving their aspect ratio", grey levels from
the anti-aliasing, "centered in a 28x28 image by computing the center of mass". All other images are what they were in
training.
"""

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data_spec import MNIST, DataSpec
from pipeline.pixels import as_bytes, as_pixels, on_paper, upright

SIDE, BOX = MNIST.shape[1], 20
MAX_PIXELS, MAX_SIDE = 16_000_000, 8_000
FORMATS = ("PNG", "JPEG")
INK = 0.2  # of the strongest stroke; what is weaker is paper, shade or noise
WORK_SIDE = 1_000
CONTRAST = 32  # in grey levels: less is a blank image
JPEG, SCAN, END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # FF before another byte is data, or a mark within them
FIRST_SEGMENT = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcf\xda-\xef\xfe]")  # up to the first scan: what Pillow takes for one
MAX_SCANS = 100  # a progressive JPEG has ten; thousands take minutes to decode
MAX_SEGMENTS = 10_000  # a photo has fifty; Pillow takes a second for a million
MAX_JUNK = 64 * 1024  # bytes; a photo has none; Pillow goes through them one by one, seconds for 16 MB
PNG, PROFILE = b"\x89PNG\r\n\x1a\n", b"iCCP"
MAX_CHUNKS = 10_000  # 16 MB in the usual 8 KB have 2,000; Pillow takes seconds for a million
# The size is checked below, for one file: Pillow's own check warns, and warnings are the process's, not a thread's.
Image.MAX_IMAGE_PIXELS = None
SEND = "send a PNG or JPEG file, at most 16 megapixels"
SEND_DRAWING = "send a PNG or JPEG file of one digit, dark on light or light on dark, at most 16 megapixels"


class ImageError(ValueError):
    """A file that is no image for the network."""


def read_image(content: bytes, spec: DataSpec) -> NDArray[np.float32]:
    """An image file as (*spec.sent_shape) float32 in 0..255.

    Raises:
        ImageError: if it is no PNG or JPEG, is damaged, too large or, of a drawing, blank.
    """
    is_drawing = spec.drawing == MNIST.drawing and spec.shape == MNIST.shape
    channels, *size = spec.shape
    try:
        if is_drawing:
            return mnist(_decode(content, _grey_levels))
        return _decode(content, lambda image: as_pixels(image, (size[0], size[1]), channels)).astype(np.float32)
    except ImageError as error:
        raise ImageError(f"{error}; {SEND_DRAWING if is_drawing else SEND}") from None


def _decode(content: bytes, pixels_of: Callable[[Image.Image], NDArray[Any]]) -> NDArray[Any]:
    """The pixels of an image file; its size is looked at before it is unpacked."""
    try:
        if content.startswith(JPEG):
            _check_segments(content)
        elif content.startswith(PNG):
            _check_chunks(content)
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
            raise ImageError(f"the image has {width} x {height} pixels")
        image.load()
        return pixels_of(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("this is neither PNG nor JPEG") from None
    except Exception as error:  # Pillow raises many kinds for damaged files; each means the same to the sender
        raise ImageError(f"the image cannot be read ({type(error).__name__}: {str(error)[:80]})") from None


def _check_segments(jpeg: bytes) -> None:
    """Make sure that its decoding comes to an end: the segments up to the image's end are gone through as they will be.

    Pillow reads those up to the first scan, libjpeg all. What is no marker's is passed over at once, so that neither
    data nor what follows the image is taken for scans.
    """
    place, scans, junk = 2, 0, 0
    for _ in range(MAX_SEGMENTS):
        marker = (SEGMENT if scans else FIRST_SEGMENT).search(jpeg, place)
        if not scans:
            junk += (marker.start() if marker else len(jpeg)) - place
        if junk > MAX_JUNK:
            raise ImageError(f"the JPEG has more than {MAX_JUNK // 1024} KiB of junk before its first scan")
        if marker is None or marker[0] == END:
            return
        scans += marker[0] == SCAN
        if scans > MAX_SCANS:
            raise ImageError(f"the JPEG has more than {MAX_SCANS} scans")
        place = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
    raise ImageError(f"the JPEG has more than {MAX_SEGMENTS:,} segments")


def _check_chunks(png: bytes) -> None:
    """Make sure of the same: each chunk is a step in Python, and each colour profile may unpack to a megabyte."""
    place, profiles = len(PNG), 0
    for _ in range(MAX_CHUNKS):
        kind = png[place + 4 : place + 8]
        if not kind or kind == b"IEND":
            return
        profiles += kind == PROFILE
        if profiles > 1:
            raise ImageError("the PNG has more than one colour profile")
        place += 12 + int.from_bytes(png[place : place + 4], "big")  # its length, kind and checksum beside its bytes
    raise ImageError(f"the PNG has more than {MAX_CHUNKS:,} chunks")


def _grey_levels(image: Image.Image) -> NDArray[np.float32]:
    """(H, W) in 0..255, transparent parts white; or black, where a light digit would vanish on white."""
    image = as_bytes(upright(image))
    for paper in ("white", "black"):
        flat = on_paper(image, paper).convert("L")
        darkest, lightest = flat.getextrema()
        if lightest - darkest >= CONTRAST:  # type: ignore[operator]
            break
    if max(flat.size) > WORK_SIDE:
        flat.thumbnail((WORK_SIDE, WORK_SIDE), Image.Resampling.BOX)
    return np.asarray(flat, dtype=np.float32)


def mnist(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """A drawing (H, W) as MNIST's images are, light on dark; one of their size on black is taken as it is."""
    return grey if grey.shape == (SIDE, SIDE) and _paper(grey) < 128 else fit(grey)


def _paper(grey: NDArray[np.float32]) -> float:
    """The grey level of the background: the median along the edges."""
    edges = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return float(np.median(edges))


def fit(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """A digit on any even background, (H, W) in 0..255, as MNIST's authors would have stored it.

    Raises:
        ImageError: if nothing stands out from the background.
    """
    paper = _paper(grey)
    ink = np.maximum(0, paper - grey if paper >= 128 else grey - paper)
    strongest = float(ink.max())
    if strongest < CONTRAST:
        raise ImageError("the image is blank: nothing stands out from its background")
    ink = np.clip((ink / strongest - INK) / (1 - INK), 0, 1) * 255
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _centred(_into_box(digit))


def _into_box(digit: NDArray[np.float32]) -> NDArray[np.float32]:
    """The longer side as 20 pixels, the other in proportion."""
    height, width = digit.shape
    scale = BOX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(digit.astype(np.float32)).resize(size, Image.Resampling.BOX if scale < 1 else 2)
    levels: NDArray[np.float32] = np.asarray(small, dtype=np.float32)
    return levels * (255 / max(1.0, float(levels.max())))


def _centred(digit: NDArray[np.float32]) -> NDArray[np.float32]:
    """In the middle of 28x28 by its centre of mass, as near as it fits."""
    height, width = digit.shape
    mass = digit.sum()
    centre_y = float((digit.sum(axis=1) * (np.arange(height) + 0.5)).sum() / mass)
    centre_x = float((digit.sum(axis=0) * (np.arange(width) + 0.5)).sum() / mass)
    top = min(max(round(SIDE / 2 - centre_y), 0), SIDE - height)
    left = min(max(round(SIDE / 2 - centre_x), 0), SIDE - width)
    canvas = np.zeros((SIDE, SIDE), np.float32)
    canvas[top : top + height, left : left + width] = digit
    return canvas.round()


def as_png(pixels: NDArray[np.float32]) -> bytes:
    """(H, W) or (H, W, 3) in 0..255 as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
