"""What an image file is to a network: the same pixels in training and in the service."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

OF_TWO_BYTES = 257  # 65535 becomes 255


def as_pixels(image: Image.Image, size: tuple[int, int] | None, channels: int) -> NDArray[np.uint8]:
    """An image as it was taken, its transparent parts white, as (height, width) of grey or (height, width, 3).

    Args:
        image: of any mode that Pillow reads.
        size: (height, width) to which it is resized; None: as it is.
        channels: 1 or 3.

    Raises:
        ValueError: if its pixels are floating-point numbers.
    """
    image = on_paper(as_bytes(upright(image)), "white").convert("L" if channels == 1 else "RGB")
    if size is not None and size != (image.height, image.width):
        height, width = size
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image)


def upright(image: Image.Image) -> Image.Image:
    """Turned as its camera says."""
    transparency = image.info.get("transparency")  # not all of Pillow's ways to turn an image keep it
    image = ImageOps.exif_transpose(image)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def check_range(image: Image.Image) -> None:
    """Make sure that the image, which need not be decoded for it, has levels of a known range.

    Raises:
        ValueError: if its pixels are floating-point numbers.
    """
    if image.mode.startswith("F"):
        raise ValueError("pixels that are floating-point numbers have no known range; save 8 or 16 bits")


def as_bytes(image: Image.Image) -> Image.Image:
    """Of 8 bits a channel, greys of 16 bits with all of their range; with transparent parts as RGBA."""
    check_range(image)
    if image.mode.startswith("I"):
        image = _of_sixteen_bits(image)
    return image.convert("RGBA") if "A" in image.getbands() or "transparency" in image.info else image


def _of_sixteen_bits(image: Image.Image) -> Image.Image:
    levels: NDArray[Any] = np.asarray(image)
    grey = Image.fromarray((levels.astype(np.float64) / OF_TWO_BYTES).clip(0, 255).round().astype(np.uint8))
    if "transparency" in image.info:  # a level of 16 bits, so compared before they are eight
        grey.putalpha(Image.fromarray((levels != image.info["transparency"]).astype(np.uint8) * 255))
    return grey


def on_paper(image: Image.Image, paper: str) -> Image.Image:
    """Without transparency: what was transparent is of the paper's colour."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, paper), image)
