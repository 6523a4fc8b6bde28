"""Image files are brought to MNIST's form: light on dark, in a 20x20 box, centred by mass."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.data_spec import MNIST
from pipeline.serving import preprocessing
from pipeline.serving.preprocessing import ImageError, as_png


def read_image(content):
    return preprocessing.read_image(content, MNIST)


def as_file(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def drawn(size=(200, 200), ink=0, paper=255, mode="L", box=(90, 30, 110, 170)):
    """A vertical bar."""
    image = Image.new(mode, size, paper)
    ImageDraw.Draw(image).rectangle(box, fill=ink)
    return image


def centre_of_mass(pixels):
    rows, columns = np.indices(pixels.shape) + 0.5
    return (rows * pixels).sum() / pixels.sum(), (columns * pixels).sum() / pixels.sum()


def box_of(pixels):
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1


def test_a_28x28_image_on_black_is_taken_as_it_is():
    pixels = np.random.RandomState(0).randint(0, 256, (28, 28)).astype(np.uint8)
    pixels[[0, -1]] = pixels[:, [0, -1]] = 0
    assert np.array_equal(read_image(as_file(Image.fromarray(pixels))), pixels)


@pytest.mark.parametrize("box", [(90, 30, 110, 170), (0, 0, 20, 140), (20, 90, 180, 110)])
def test_the_longer_side_becomes_20_and_the_mass_the_middle(box):
    pixels = read_image(as_file(drawn(box=box)))
    assert max(box_of(pixels)) == 20
    assert centre_of_mass(pixels) == pytest.approx((14, 14), abs=0.5)
    assert (pixels.dtype, pixels.min(), pixels.max()) == (np.float32, 0, 255)


def test_the_centre_is_that_of_the_mass_not_of_the_box():
    image = drawn(box=(20, 20, 30, 180))
    ImageDraw.Draw(image).rectangle((20, 165, 100, 180), fill=0)  # an L: heavy at the bottom left
    pixels = read_image(as_file(image))
    assert centre_of_mass(pixels) == pytest.approx((14, 14), abs=0.5)


def test_dark_on_light_and_light_on_dark_are_the_same():
    assert np.array_equal(read_image(as_file(drawn())), read_image(as_file(drawn(ink=255, paper=0))))


def test_a_pale_stroke_on_grey_paper_is_as_strong_as_ink():
    assert np.array_equal(read_image(as_file(drawn(ink=120, paper=200))), read_image(as_file(drawn())))


@pytest.mark.parametrize(
    "image",
    [
        drawn(mode="RGB", ink="black", paper="white"),
        drawn(mode="RGBA", ink=(0, 0, 0, 255), paper=(0, 0, 0, 0)),
        drawn(mode="1", ink=0, paper=1),
        drawn().convert("P"),
        Image.fromarray(np.asarray(drawn(), np.uint16) * 257),
    ],
    ids=["colour", "transparent", "one bit", "palette", "16 bit"],
)
def test_every_kind_of_png_gives_the_same_digit(image):
    assert np.array_equal(read_image(as_file(image)), read_image(as_file(drawn())))


def test_a_photo_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    lying = drawn().transpose(Image.Transpose.ROTATE_90)
    turned = read_image(as_file(lying, "JPEG", exif=exif, quality=95))
    height, width = box_of(turned > 64)
    assert height > 2 * width


def test_a_large_photo_is_read_like_a_small_one():
    large = drawn(size=(3000, 3000), box=(1350, 450, 1650, 2550))
    small = read_image(as_file(drawn(box=(90, 30, 110, 170))))
    pixels = read_image(as_file(large, "JPEG"))
    assert box_of(pixels > 64) == box_of(small > 64)
    assert pixels.sum() == pytest.approx(small.sum(), rel=0.05)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_image_is_refused(level):
    with pytest.raises(ImageError, match="blank"):
        read_image(as_file(Image.new("L", (100, 100), level)))


def test_an_image_of_too_many_pixels_is_refused_by_its_size():
    with pytest.raises(ImageError, match="9000 x 10 pixels; send a PNG or JPEG"):
        read_image(as_file(Image.new("L", (9000, 10), 255)))


def test_what_the_model_saw_is_a_png_of_it():
    pixels = np.arange(784, dtype=np.float32).reshape(28, 28) % 256
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(as_png(pixels)))), pixels)
