"""An image file is the same pixels wherever it is read."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.pixels import as_pixels


def reopened(image, kind="PNG", **options):
    """As it comes out of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("size", [None, (5, 8)])
def test_grey_and_colour_of_the_right_size_are_taken_byte_for_byte(size):
    grey, colour = noise(5, 8), noise(5, 8, 3)
    for pixels, channels in ((grey, 1), (colour, 3)):
        found = as_pixels(reopened(Image.fromarray(pixels)), size, channels)
        assert (found.dtype, found.flags.writeable) == (np.uint8, True)
        assert np.array_equal(found, pixels)


def test_grey_becomes_colour_and_colour_becomes_grey_as_the_eye_weighs_it():
    grey = noise(4, 4)
    assert np.array_equal(as_pixels(Image.fromarray(grey), None, 3), np.stack([grey] * 3, axis=2))
    red = Image.new("RGB", (2, 3), (255, 0, 0))
    assert as_pixels(red, None, 1).tolist() == [[76, 76]] * 3


def test_another_size_is_resized_height_first_and_smoothed_after_the_mode_is_converted():
    colour = Image.fromarray(noise(40, 60, 3))
    grey = colour.convert("L").resize((20, 10), Image.Resampling.BILINEAR)
    assert np.array_equal(as_pixels(colour, (10, 20), 1), np.asarray(grey))
    stripes = Image.fromarray(np.tile(np.uint8([0, 255]), (64, 32)))
    assert np.ptp(as_pixels(stripes, (8, 8), 1)) <= 32  # antialiased: near the mean of both, never one of them


def test_a_photo_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = noise(4, 6)
    turned = as_pixels(reopened(Image.fromarray(pixels), "PNG", exif=exif), None, 1)
    assert np.array_equal(turned, np.rot90(pixels, -1))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_parts_are_white_and_half_transparent_ones_half(mode, channels):
    image = Image.new(mode, (3, 1), (0,) * len(mode))
    for column, alpha in enumerate((0, 255, 51)):
        image.putpixel((column, 0), (0,) * (len(mode) - 1) + (alpha,))
    found = as_pixels(reopened(image), None, channels).reshape(3, -1)
    assert found.tolist() == [[level] * channels for level in (255, 0, 204)]


def test_a_colour_of_a_palette_and_a_level_of_16_bits_may_be_transparent():
    palette = Image.fromarray(np.uint8([[0, 1]])).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert as_pixels(reopened(palette, transparency=1), None, 3).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    deep = Image.fromarray(np.uint16([[0, 257, 258, 65535]]))
    assert as_pixels(reopened(deep), None, 1).tolist() == [[0, 1, 1, 255]]
    assert as_pixels(reopened(deep, transparency=257), None, 1).tolist() == [[0, 255, 1, 255]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "I"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_has_a_shape_that_a_network_takes(mode, channels):
    found = as_pixels(Image.new(mode, (3, 2)), (4, 5), channels)
    assert (found.dtype, found.shape) == (np.uint8, (4, 5) if channels == 1 else (4, 5, 3))


@pytest.mark.parametrize("highest", [1.0, 255.0, 65535.0])
def test_floating_point_numbers_are_refused_as_nobody_says_what_white_is(highest):
    image = reopened(Image.fromarray(np.float32([[0, highest]])), "TIFF")
    assert image.mode == "F"
    with pytest.raises(
        ValueError, match=r"^pixels that are floating-point numbers have no known range; save 8 or 16 bits$"
    ):
        as_pixels(image, None, 1)
