"""Image files become one array: grey or colour, upright, of one size; what cannot be read is left out and told."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pipeline.data import decoding
from pipeline.data.decoding import decode
from pipeline.pixels import as_pixels
from tests.conftest import environment
from tests.data.image_folders import image_of, write
from tests.own_data import error_of


def decoded(folder, image_size=0):
    return decode(folder, sorted(path.name for path in folder.iterdir()), image_size)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_images_that_are_all_grey_are_grey(tmp_path, mode):
    write(tmp_path / "0.png", image_of(0))
    other = (
        Image.fromarray(np.asarray(image_of(1)).astype(np.uint16) * 257)
        if mode == "I;16"
        else image_of(1).convert(mode)
    )
    write(tmp_path / "1.png", other)
    with Image.open(tmp_path / "1.png") as image:
        assert image.mode == mode
    found = decoded(tmp_path)
    assert found.pixels.shape == (2, 6, 8)
    assert np.array_equal(found.pixels[0], image_of(0))
    assert np.array_equal(found.pixels[1], image_of(1) if mode != "1" else np.asarray(image_of(1).convert("1")) * 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_one_image_in_colour_makes_all_of_them_colour(tmp_path, mode):
    write(tmp_path / "0.png", image_of(0))
    write(tmp_path / f"1.{'jpg' if mode == 'CMYK' else 'png'}", image_of(1, colour=True).convert(mode))
    found = decoded(tmp_path)
    assert found.pixels.shape == (2, 6, 8, 3)
    assert np.array_equal(found.pixels[0], np.stack([image_of(0)] * 3, axis=2))
    if mode in ("RGB", "RGBA"):
        assert np.array_equal(found.pixels[1], image_of(1, colour=True))


def test_what_is_transparent_is_white_and_a_photograph_stands_as_its_camera_says(tmp_path):
    clear = image_of(0, colour=True).convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat(np.uint8([[0], [255]]), 3, axis=0) * np.ones((1, 8), np.uint8)))
    write(tmp_path / "0.png", clear)
    turned, exif = image_of(1, (8, 6), colour=True), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "1.tif", exif=exif)
    turned.save(tmp_path / "2.png", exif=exif)
    found = decoded(tmp_path).pixels
    assert (found[0, :3] == 255).all()
    assert np.array_equal(found[0, 3:], np.asarray(image_of(0, colour=True))[3:])
    for pixels in found[1:]:
        assert np.array_equal(pixels, np.rot90(np.asarray(turned), -1))


@pytest.mark.parametrize("image_size", [1, 5, 64])
def test_images_are_resized_as_the_service_does(tmp_path, image_size):
    images = [image_of(number, size, colour=True) for number, size in enumerate([(6, 8), (50, 40), (1, 1), (64, 64)])]
    for number, image in enumerate(images):
        write(tmp_path / f"{number}.png", image)
    expected = [as_pixels(image, (image_size, image_size), 3) for image in images]
    assert np.array_equal(decoded(tmp_path, image_size).pixels, expected)


@pytest.mark.parametrize(
    ("size", "decoded_at"),
    [
        ((2000, 1504), (250, 188)),
        ((1504, 2000), (188, 250)),
        ((2000, 1500), (500, 375)),
        ((1240, 1280), (310, 320)),
        ((1280, 1279), (1280, 1279)),
        ((319, 8000), (319, 8000)),
        ((320, 8000), (160, 4000)),
    ],
)
def test_a_huge_photograph_is_decoded_small_and_no_pixel_is_off_by_more_than_two(
    tmp_path, monkeypatch, size, decoded_at
):
    small = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 30, 3)).astype(np.uint8))
    small.resize(size, Image.Resampling.BICUBIC).save(tmp_path / "0.jpg", quality=92)
    sizes = []

    def seen(image, *arguments):
        sizes.append(image.size)
        return as_pixels(image, *arguments)

    monkeypatch.setattr(decoding, "as_pixels", seen)
    found = decoded(tmp_path, 40).pixels[0].astype(int)
    with Image.open(tmp_path / "0.jpg") as image:
        whole = as_pixels(image, (40, 40), 3).astype(int)
    assert sizes == [decoded_at]
    assert np.abs(found - whole).max() <= 2
    assert (found == whole).mean() > 0.6


def test_what_cannot_be_read_is_left_out_with_the_reason(tmp_path):
    for number in (0, 2, 5):
        write(tmp_path / f"{number}.png", image_of(number))
    whole = (tmp_path / "0.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[:60])
    (tmp_path / "3.png").write_bytes(b"")
    buffer = io.BytesIO()
    image_of(4).save(buffer, "JPEG")
    (tmp_path / "4.jpg").write_bytes(buffer.getvalue()[:-200])
    (tmp_path / "6.png").write_bytes(whole[:45] + b"\0\0\0\0" + whole[49:])
    found = decoded(tmp_path)
    assert found.kept.tolist() == [True, False, True, False, False, True, False]
    assert [np.array_equal(pixels, image_of(n)) for pixels, n in zip(found.pixels, (0, 2, 5), strict=True)] == [
        True
    ] * 3
    assert [words.partition(":")[0] for words in found.unreadable] == ["1.png", "3.png", "4.jpg", "6.png"]
    assert found.unreadable[1] == "3.png: not an image"
    assert "truncated" in found.unreadable[2].lower()
    assert not any("\n" in words for words in found.unreadable)


def test_an_image_of_floating_point_numbers_is_left_out_with_the_reason(tmp_path):
    write(tmp_path / "1.png", image_of(0))
    write(tmp_path / "2.tif", Image.fromarray(np.asarray(image_of(1)).astype(np.float32) / 255))
    found = decoded(tmp_path)
    assert np.array_equal(found.pixels, [image_of(0)])
    reason = "pixels that are floating-point numbers have no known range; save 8 or 16 bits"
    assert found.unreadable == [f"2.tif: {reason}"]
    for name in ("0.tif", "2.tif"):  # of another size, which is nobody's standard
        write(tmp_path / name, Image.fromarray(np.zeros((64, 64), np.float32)))
    found = decoded(tmp_path)
    assert np.array_equal(found.pixels, [image_of(0)])
    assert found.unreadable == [f"0.tif: {reason}", f"2.tif: {reason}"]


def test_images_are_what_they_are_whatever_their_suffix_says(tmp_path):
    for number, kind in enumerate(["WEBP", "TIFF", "PPM", "GIF", "BMP", "PNG"] * 5):
        image_of(number).save(tmp_path / f"{number:02}.{'jpg' if number % 2 else 'png'}", kind, lossless=True)
    code = (
        "import sys; from pathlib import Path; from pipeline.data import decoding; sys.setswitchinterval(1e-5); "
        "decoding.cores_here = lambda: 8; folder = Path(sys.argv[1]); "
        "found = decoding.decode(folder, sorted(path.name for path in folder.iterdir()), 0); "
        "print(len(found.pixels), found.unreadable)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("30 []\n", "")


def test_a_folder_of_which_nothing_can_be_read_is_told(tmp_path):
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes(b"no image")
    said = f"{tmp_path}: found 2 image files of which none can be read (0.png: not an image)"
    assert error_of(decoded, tmp_path) == said


def test_a_size_that_only_the_pixels_tell_is_compared_too(tmp_path):
    write(tmp_path / "0.png", image_of(0))
    write(tmp_path / "1.png", image_of(1))
    header = decoding._header(tmp_path / "1.png")
    assert (header.height, header.width, header.grey) == (6, 8, True)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image_of(1).save(buffer, "PNG", exif=exif)
    content = buffer.getvalue()
    place = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[place : place + 4], "big")
    moved = content[:place] + content[place + length :]
    (tmp_path / "1.png").write_bytes(moved[:-12] + content[place : place + length] + moved[-12:])
    assert error_of(decoded, tmp_path) == (
        f"{tmp_path}: images differ in size (height x width): found 0.png of 6x8 and 1.png of 8x6; resize all of them "
        "with --image_size 64"
    )


def test_images_that_do_not_fit_into_memory_are_told_before_any_is_decoded(tmp_path, monkeypatch):
    for number in range(3):
        write(tmp_path / f"{number}.png", image_of(number, colour=True))
    monkeypatch.setattr(decoding, "memory_here", lambda: 2 * 3 * 6 * 8 * 3)
    assert decoded(tmp_path).pixels.shape == (3, 6, 8, 3)
    monkeypatch.setattr(decoding, "memory_here", lambda: 10**8)
    monkeypatch.setattr(decoding, "_pixels", None)
    assert error_of(decoded, tmp_path, 3000) == (
        f"{tmp_path}: 3 images of 3000x3000x3 need 0.2 GB of memory, here are 0.1 GB; give a smaller --image_size than "
        "3000"
    )
    monkeypatch.setattr(decoding, "memory_here", lambda: 2 * 3 * 6 * 8 * 3 - 1)
    assert error_of(decoded, tmp_path).endswith("here are 0.0 GB; resize them: --image_size 64")


def test_pillow_s_own_warnings_are_not_printed_and_the_filters_are_as_before(tmp_path, recwarn):
    write(tmp_path / "0.png", image_of(0))
    write(tmp_path / "1.gif", image_of(0).convert("P"))
    image = image_of(1).convert("P")
    image.save(tmp_path / "2.png", transparency=bytes(range(200)))
    assert len(decoded(tmp_path).pixels) == 3
    assert not recwarn.list


def test_the_order_is_that_of_the_names_however_many_threads_decode(tmp_path, monkeypatch):
    for number in range(40):
        write(tmp_path / f"{number:03}.png", image_of(number))
    for cores in (1, 8):
        monkeypatch.setattr(decoding, "cores_here", lambda cores=cores: cores)
        found = decoded(tmp_path)
        assert all(np.array_equal(pixels, image_of(number)) for number, pixels in enumerate(found.pixels))
    assert os.listdir(tmp_path)  # noqa: PTH208
