"""Which image files are read, and which grey levels are in them."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline import pixels
from pipeline.serving import preprocessing
from pipeline.serving.preprocessing import SEND_DRAWING as SEND
from pipeline.serving.preprocessing import ImageError
from tests.serving.test_preprocessing import as_file, drawn, read_image


def told(content):
    with pytest.raises(ImageError) as caught:
        read_image(content)
    return str(caught.value)


def decoded(image, kind="PNG", **options):
    return preprocessing._decode(as_file(image, kind, **options), preprocessing._grey_levels)


# Which files.


def test_what_to_send_is_said_once_and_for_all():
    assert SEND == "send a PNG or JPEG file of one digit, dark on light or light on dark, at most 16 megapixels"


def test_only_png_and_jpeg_are_read():
    for kind in ("GIF", "BMP", "TIFF", "WEBP", "PPM"):
        assert told(as_file(drawn(mode="RGB", ink="black", paper="white"), kind)) == (
            f"this is neither PNG nor JPEG; {SEND}"
        )
    for content in (b"", b"\x89PNG", b"digit"):
        assert told(content) == f"this is neither PNG nor JPEG; {SEND}"


def test_a_damaged_file_is_told_with_pillow_s_own_words():
    whole = as_file(drawn())
    assert told(whole[:-30]) == f"the image cannot be read (OSError: image file is truncated); {SEND}"


def test_pillow_s_words_are_cut_at_80_letters(monkeypatch):
    def fail(image):
        raise KeyError("x" * 100)

    monkeypatch.setattr(preprocessing, "_grey_levels", fail)
    assert told(as_file(drawn())) == f"the image cannot be read (KeyError: '{'x' * 79}); {SEND}"


@pytest.mark.parametrize("size", [(4001, 4000), (8001, 1), (1, 8001)])
def test_one_row_or_column_too_many_is_told_by_its_size(size):
    assert told(as_file(Image.new("1", size))) == f"the image has {size[0]} x {size[1]} pixels; {SEND}"


@pytest.mark.parametrize("size", [(4000, 4000), (8000, 1), (1, 8000), (8000, 2000)])
def test_as_many_pixels_as_are_allowed_are_looked_at(size):
    assert told(as_file(Image.new("1", size))) == (
        f"the image is blank: nothing stands out from its background; {SEND}"
    )


def test_pillow_s_own_limit_warns_of_nothing():
    assert Image.MAX_IMAGE_PIXELS is None


SCAN = b"\xff\xda"


def with_scans(count, between=b""):
    """A progressive JPEG whose first scan stands there until there are so many, with these bytes between them."""
    jpeg = as_file(drawn(), "JPEG", progressive=True)
    first = jpeg.index(SCAN)
    scan = jpeg[first : jpeg.index(b"\xff\xc4", first)]  # up to the tables of the next
    return jpeg[:first] + (scan + between) * (count - jpeg.count(SCAN)) + jpeg[first:]


@pytest.mark.parametrize("between", [b"", b"a few bytes that are skipped", b"\xff\xff\xff", b"\xff\x00"])
def test_a_hundred_scans_are_read_and_one_more_is_told(between):
    assert np.array_equal(read_image(with_scans(100, between)), read_image(with_scans(0)))
    assert told(with_scans(101, between)) == f"the JPEG has more than 100 scans; {SEND}"


def test_a_scan_that_hides_behind_what_is_no_segment_is_counted():
    hidden = b"\xff\x02\xf0\x00"  # where libjpeg awaits a restart it skips the first two bytes, and not 61,440 more
    assert told(with_scans(101, hidden)) == f"the JPEG has more than 100 scans; {SEND}"


def test_a_png_whose_levels_look_like_scans_is_read():
    levels = np.tile(np.frombuffer(SCAN, np.uint8), (40, 50))
    image = Image.fromarray(levels).convert("P")  # whose numbers stand in the file as they are
    assert as_file(image, compress_level=0).count(SCAN) == 2000
    assert decoded(image, compress_level=0).tolist() == levels.tolist()


@pytest.mark.parametrize("comment", [b"", SCAN * 200])
@pytest.mark.parametrize("video", [b"", SCAN * 200])
def test_what_looks_like_scans_in_a_jpeg_s_comment_or_after_its_end_is_none(comment, video):
    assert np.array_equal(
        read_image(as_file(drawn(), "JPEG", comment=comment) + video), read_image(as_file(drawn(), "JPEG"))
    )


def test_of_several_pictures_in_one_file_the_first_is_read():
    other = drawn(box=(20, 90, 180, 110))
    pictures = as_file(drawn(), "MPO", save_all=True, append_images=[other] * 100)
    assert pictures.count(SCAN) == 101
    assert np.array_equal(read_image(pictures), read_image(as_file(drawn(), "JPEG")))


def test_restart_markers_are_no_scans():
    many = as_file(drawn((400, 400)), "JPEG", restart_marker_blocks=1)
    assert many.count(b"\xff\xd0") > 100
    assert np.array_equal(read_image(many), read_image(as_file(drawn((400, 400)), "JPEG")))


def test_ten_thousand_segments_are_told_before_pillow_reads_them_one_by_one(monkeypatch):
    jpeg = as_file(drawn(), "JPEG")
    few, many = (jpeg[:2] + b"\xff\xfe\x00\x02" * count + jpeg[2:] for count in (9_000, 4_000_000))
    assert np.array_equal(read_image(few), read_image(jpeg))
    monkeypatch.setattr(preprocessing.Image, "open", None)
    assert told(many) == f"the JPEG has more than 10,000 segments; {SEND}"


JUNK = 64 * 1024


@pytest.mark.parametrize("junk", [b"\xff", b"\xff\x00", b"junk", b"\xff\xd0", b"\xff\xd8", b"\xff\xd9", b"\xff\xf0"])
def test_what_pillow_would_go_through_byte_by_byte_before_the_first_scan_is_told_before(monkeypatch, junk):
    jpeg, comment = as_file(drawn(), "JPEG"), b"\xff\xfe\x00\x02"
    monkeypatch.setattr(preprocessing.Image, "open", None)
    words = f"the JPEG has more than 64 KiB of junk before its first scan; {SEND}"
    allowed, half = junk * (JUNK // len(junk)), junk * (JUNK // 2 // len(junk))
    assert told(jpeg[:2] + comment + allowed + jpeg[2:]) != words
    assert told(jpeg[:2] + comment + allowed + junk + jpeg[2:]) == words
    assert told(jpeg[:2] + (comment + half) * 3 + jpeg[2:]) == words
    assert told(jpeg[:2] + comment + allowed + junk) == words


def test_a_photo_with_some_junk_before_its_scan_is_read_and_its_own_data_is_none():
    jpeg = as_file(drawn(), "JPEG")
    for junk in (b"\xff", b"\xff\x00", b"junk"):
        assert np.array_equal(read_image(jpeg[:2] + b"\xff\xfe\x00\x02" + junk * 16_000 + jpeg[2:]), read_image(jpeg))
    assert np.array_equal(read_image(jpeg + b"j" * 10 * JUNK), read_image(jpeg))
    noise = Image.fromarray(np.random.RandomState(0).randint(0, 256, (800, 800)).astype(np.uint8))
    assert len(as_file(noise, "JPEG")) > 4 * JUNK
    assert decoded(noise, "JPEG").shape == (800, 800)


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(("kind", "place"), [(b"abCd", 33), (b"tEXt", 33), (b"abCd", -12), (b"IDAT", -12)])
def test_ten_thousand_chunks_of_a_png_are_told_before_pillow_reads_them_one_by_one(monkeypatch, kind, place):
    png, more = as_file(drawn()), chunk(kind)
    few, many = (png[:place] + more * count + png[place:] for count in (9_000, 1_300_000))
    assert np.array_equal(read_image(few), read_image(png))
    assert np.array_equal(read_image(png + more * 20_000), read_image(png))  # nobody reads on behind the end
    monkeypatch.setattr(preprocessing.Image, "open", None)
    assert told(many) == f"the PNG has more than 10,000 chunks; {SEND}"


def test_a_png_has_one_colour_profile_as_each_may_unpack_to_a_megabyte(monkeypatch):
    png, profile = as_file(drawn()), chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(1_000_000)))
    assert np.array_equal(read_image(png[:33] + profile + png[33:]), read_image(png))
    monkeypatch.setattr(preprocessing.Image, "open", None)
    assert told(png[:33] + profile * 2 + png[33:]) == f"the PNG has more than one colour profile; {SEND}"


@pytest.mark.parametrize("end", [8, 10, 14, 30, 60])
def test_a_png_cut_off_anywhere_is_told_by_pillow(end):
    assert told(as_file(drawn())[:end]).endswith(SEND)


# Grey levels.


def test_a_side_of_1000_is_kept_and_beyond_it_pixels_are_averaged():
    random = np.random.RandomState(0)
    levels = random.randint(0, 256, (4, 1000)).astype(np.uint8)
    assert np.array_equal(decoded(Image.fromarray(levels)), levels)
    assert np.array_equal(decoded(Image.fromarray(levels.T)), levels.T)
    levels = random.randint(0, 256, (4, 2000)).astype(np.uint8)
    means = levels.reshape(2, 2, 1000, 2).mean(axis=(1, 3))
    assert np.abs(decoded(Image.fromarray(levels)) - means).max() <= 1
    assert np.abs(decoded(Image.fromarray(levels.T)) - means.T).max() <= 1
    assert decoded(Image.new("L", (1001, 300))).shape == (300, 1000)


@pytest.mark.parametrize(("level", "grey_level"), [(0, 0), (128, 0), (129, 1), (257, 1), (32896, 128), (65535, 255)])
def test_16_bit_greys_keep_their_range(level, grey_level):
    assert decoded(Image.fromarray(np.full((2, 2), level, np.uint16))).tolist() == [[grey_level] * 2] * 2


def test_greys_beyond_their_range_are_its_ends():
    levels = Image.fromarray(np.array([[-300, 0, 25700, 70000]], np.int32))
    assert np.asarray(pixels.as_bytes(levels)).tolist() == [[0, 0, 100, 255]]


def test_colours_become_the_grey_that_they_look_like():
    colours = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8))
    assert decoded(colours).round().tolist() == [[76, 150, 29, 255]]


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, [[1, 2], [3, 4]]),
        (2, [[2, 1], [4, 3]]),
        (3, [[4, 3], [2, 1]]),
        (4, [[3, 4], [1, 2]]),
        (5, [[1, 3], [2, 4]]),
        (6, [[3, 1], [4, 2]]),
        (7, [[4, 2], [3, 1]]),
        (8, [[2, 4], [1, 3]]),
    ],
)
def test_an_image_is_turned_and_mirrored_as_its_camera_says(orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decoded(Image.fromarray(np.array([[1, 2], [3, 4]], np.uint8)), exif=exif).tolist() == turned


# Transparency.


def transparent(ink, alpha=255):
    """A stroke on nothing: two pixels of it, two that are transparent."""
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (ink, ink, ink, alpha)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (128, 255), (223, 255), (224, 0), (255, 0)])
def test_transparent_parts_are_white_unless_a_light_digit_would_vanish_on_it(ink, paper):
    assert decoded(transparent(ink)).tolist() == [[ink, ink], [paper, paper]]


def test_half_transparent_ink_is_mixed_with_the_paper():
    assert decoded(transparent(0, alpha=51)).tolist() == [[204, 204], [255, 255]]


def test_grey_with_an_alpha_channel_is_laid_on_paper():
    assert decoded(transparent(0).convert("LA")).tolist() == [[0, 0], [255, 255]]


@pytest.mark.parametrize("orientation", [1, 3])
@pytest.mark.parametrize(
    ("image", "clear"),
    [
        (Image.fromarray(np.array([[10, 99], [99, 200]], np.uint8)), 99),
        (Image.fromarray(np.array([[10, 99], [99, 200]], np.uint16) * 257), 99 * 257),
        (Image.fromarray(np.array([[10, 99], [99, 200]], np.uint8)).convert("RGB"), (99, 99, 99)),
        (Image.fromarray(np.array([[10, 99], [99, 200]], np.uint8)).convert("P"), None),
    ],
    ids=["grey", "16 bit", "colour", "palette"],
)
def test_a_colour_that_stands_for_transparent_is_paper_also_when_the_image_is_turned(image, clear, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    if clear is None:
        clear = image.getpixel((1, 0))
    found = decoded(image, transparency=clear, exif=exif)
    assert (found if orientation == 1 else found[::-1, ::-1]).tolist() == [[10, 255], [255, 200]]


def test_of_16_bits_only_the_very_level_is_transparent():
    levels = np.array([[25443, 25444], [0, 65535]], np.uint16)
    found = decoded(Image.fromarray(levels), transparency=25443)
    assert found.tolist() == [[255, 99], [0, 255]]
