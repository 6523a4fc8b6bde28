"""IDX files: read whole and exactly, gzipped or not; what is damaged anywhere is told, not guessed."""

import gzip
import hashlib
import itertools
import os
import socket
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import image_files
from pipeline.data.image_files import read_idx
from tests.conftest import idx_bytes
from tests.own_data import error_of

VALUES = np.random.RandomState(0).randint(0, 256, (3, 28, 28)).astype(np.uint8)
PLAIN = idx_bytes(VALUES)
ZIPPED = gzip.compress(PLAIN, mtime=0)
ENDED = "Compressed file ended before the end-of-stream marker was reached"


def written(folder, content, name="train-images-idx3-ubyte"):
    path = folder / name
    path.write_bytes(content)
    return path


def told(folder, content, name="train-images-idx3-ubyte", dimensions=3):
    """What is said of a file with this content, behind its name."""
    path = written(folder, content, name)
    words = error_of(read_idx, path, dimensions)
    assert words.startswith(f"{path}: ")
    return words.removeprefix(f"{path}: ")


def damaged(reason):
    return f"found a truncated or corrupted file ({reason}), expected a whole gzip file; fetch it again"


def test_a_part_is_the_file_s_values_with_the_checksum_of_the_file_if_it_is_gzipped(tmp_path):
    plain, zipped = (read_idx(written(tmp_path, content, name), 3) for content, name in ((PLAIN, "a"), (ZIPPED, "b")))
    for part, name in ((plain, "a"), (zipped, "b")):
        assert part.where == str(tmp_path / name)
        assert part.values.dtype == np.uint8
        assert np.array_equal(part.values, VALUES)
        assert part.values.flags.writeable  # so that torch takes it as it lies
    assert (plain.md5, zipped.md5) == ("", hashlib.md5(ZIPPED).hexdigest())


def test_labels_have_one_dimension(tmp_path):
    labels = np.arange(10)
    for content in (idx_bytes(labels), gzip.compress(idx_bytes(labels))):
        assert np.array_equal(read_idx(written(tmp_path, content), 1).values, labels)


def test_sizes_are_big_endian_and_may_need_all_four_bytes(tmp_path):
    labels = np.arange(66_051) % 251  # 0x00010203
    content = idx_bytes(labels)
    assert content[4:8] == b"\0\1\2\3"
    assert np.array_equal(read_idx(written(tmp_path, content), 1).values, labels)


def test_gzipped_or_not_is_told_by_the_content_not_the_name(tmp_path):
    for content, name in ((PLAIN, "images.gz"), (PLAIN, "images.GZ"), (ZIPPED, "images"), (ZIPPED, "images.gz")):
        assert np.array_equal(read_idx(written(tmp_path, content, name), 3).values, VALUES)


def test_what_is_called_gz_and_is_neither_is_told_as_no_gzip(tmp_path):
    for name in ("images.gz", "images.GZ"):
        assert told(tmp_path, b"<html>", name) == damaged("Not a gzipped file (b'<h')")
        assert told(tmp_path, b"", name) == damaged("Not a gzipped file (b'')")
    assert told(tmp_path, b"<html>", "images") == ("found 0x3c68746d at the start, expected the IDX header 0x00000803")


@pytest.mark.parametrize(
    ("content", "dimensions", "message"),
    [
        (b"", 3, "found 0 bytes at the start, expected the IDX header 0x00000803"),
        (b"\0\0\x08", 3, "found 3 bytes at the start, expected the IDX header 0x00000803"),
        (b"\0\0\x08\3", 3, "found 4 bytes at the start, expected the IDX header 0x00000803"),
        (
            b"\0\0\x0c\2",
            3,
            "found 0x00000c02 at the start (4-byte integers in 2 dimensions), expected the IDX header 0x00000803",
        ),
        (PLAIN[:15], 3, "found 15 bytes at the start, expected the IDX header 0x00000803"),
        (PLAIN[:16], 3, "found 0 data bytes, expected 2,352 for shape (3, 28, 28); fetch it again"),
        (idx_bytes([1])[:7], 1, "found 7 bytes at the start, expected the IDX header 0x00000801"),
        (idx_bytes([1])[:8], 1, "found 0 data bytes, expected 1 for shape (1,); fetch it again"),
        (idx_bytes(np.zeros(20)), 3, "found 0x00000801 at the start, expected the IDX header 0x00000803"),
        (PLAIN, 1, "found 0x00000803 at the start, expected the IDX header 0x00000801"),
        (b"\x03\x08\0\0" + bytes(99), 3, "found 0x03080000 at the start, expected the IDX header 0x00000803"),
        (b"\0\1\x0d\3" + bytes(99), 3, "found 0x00010d03 at the start, expected the IDX header 0x00000803"),
        *(
            (
                bytes([0, 0, kind, 2]) + bytes(99),
                3,
                f"found 0x0000{kind:02x}02 at the start ({words} in 2 dimensions), expected the IDX header 0x00000803",
            )
            for kind, words in (
                (0x09, "signed bytes"),
                (0x0B, "2-byte integers"),
                (0x0C, "4-byte integers"),
                (0x0D, "4-byte floats"),
                (0x0E, "8-byte floats"),
            )
        ),
        (PLAIN[:-1], 3, "found 2,351 data bytes, expected 2,352 for shape (3, 28, 28); fetch it again"),
        (PLAIN + b"x", 3, "found 2,353 data bytes, expected 2,352 for shape (3, 28, 28); fetch it again"),
        (
            b"\0\0\x08\3" + b"\xff" * 12 + bytes(99),
            3,
            "found 99 data bytes, expected 79,228,162,458,924,105,385,300,197,375 for shape "
            "(4294967295, 4294967295, 4294967295); fetch it again",
        ),
    ],
)
def test_an_odd_file_is_told_with_what_was_found_and_expected(tmp_path, content, dimensions, message):
    assert told(tmp_path, content, dimensions=dimensions) == message


def test_the_same_odd_files_are_told_gzipped(tmp_path):
    for content, message in (
        (PLAIN[:15], "found 15 bytes at the start, expected the IDX header 0x00000803"),
        (PLAIN[:-1], "found 2,351 data bytes, expected 2,352 for shape (3, 28, 28); fetch it again"),
        (PLAIN + b"x", "found more than 2,352 data bytes, expected 2,352 for shape (3, 28, 28); fetch it again"),
        (PLAIN + b"xyz", "found more than 2,352 data bytes, expected 2,352 for shape (3, 28, 28); fetch it again"),
        (b"\0\0\x08\3" + b"\xff" * 12, damaged(ENDED)),
    ):
        assert told(tmp_path, gzip.compress(content)) == message


def test_one_image_is_read_and_none_is_left_to_the_caller(tmp_path):
    for size in (1, 0):
        values = VALUES[:size]
        for content in (idx_bytes(values), gzip.compress(idx_bytes(values))):
            assert np.array_equal(read_idx(written(tmp_path, content), 3).values, values)


@given(st.integers(1, len(ZIPPED) - 1))
def test_a_gzip_file_cut_anywhere_is_told(tmp_path_factory, cut):
    folder = tmp_path_factory.getbasetemp()
    words = told(folder, ZIPPED[:cut], "images.gz")
    assert words.startswith("found ")
    assert "\n" not in words


@given(st.integers(10, len(ZIPPED) - 1), st.integers(1, 255))
def test_a_gzip_file_with_one_wrong_byte_behind_its_header_is_told_unless_nothing_reads_it(
    tmp_path_factory, place, wrong
):
    content = bytearray(ZIPPED)
    content[place] ^= wrong
    path = written(tmp_path_factory.getbasetemp(), bytes(content), "images.gz")
    try:
        unpacked = gzip.decompress(content)
    except (zlib.error, EOFError, OSError):
        assert error_of(read_idx, path, 3).startswith(f"{path}: found ")
    else:  # bits that fill up a byte
        assert unpacked == PLAIN
        assert np.array_equal(read_idx(path, 3).values, VALUES)


def test_checksum_and_length_at_the_end_of_a_gzip_file_are_compared(tmp_path):
    for place, words in ((-8, "incorrect data check"), (-1, "incorrect length check")):
        content = bytearray(ZIPPED)
        content[place] ^= 1
        assert words in told(tmp_path, bytes(content))
    assert told(tmp_path, ZIPPED[:-1]) == damaged(ENDED)
    assert told(tmp_path, ZIPPED[:-8]) == damaged(ENDED)


@given(st.lists(st.integers(16, len(PLAIN)), max_size=4), st.integers(0, 20))  # the first one holds the header
def test_several_gzip_streams_are_read_as_one_with_zeros_between_and_behind(tmp_path_factory, cuts, zeros):
    edges = [0, *sorted(cuts), len(PLAIN)]
    pieces = [PLAIN[begin:end] for begin, end in itertools.pairwise(edges)]
    content = b"".join(gzip.compress(piece) + bytes(zeros) for piece in pieces)
    part = read_idx(written(tmp_path_factory.getbasetemp(), content), 3)
    assert np.array_equal(part.values, VALUES)


def test_other_bytes_behind_the_stream_are_told(tmp_path):
    assert told(tmp_path, ZIPPED + b"garbage") == damaged("7 other bytes follow the gzip stream")
    assert told(tmp_path, ZIPPED + b"\0X\0") == damaged("2 other bytes follow the gzip stream")
    assert told(tmp_path, ZIPPED + bytes(3) + b"garbage") == damaged("7 other bytes follow the gzip stream")
    assert told(tmp_path, ZIPPED + b"g" * 1234) == damaged("1,234 other bytes follow the gzip stream")


def test_a_second_stream_that_is_cut_or_too_long_is_told(tmp_path):
    head, tail = gzip.compress(PLAIN[:100]), gzip.compress(PLAIN[100:])
    assert told(tmp_path, head + tail[:-9]) == damaged(ENDED)
    assert told(tmp_path, head + gzip.compress(PLAIN[100:] + b"x")).startswith("found more than 2,352 data bytes")
    assert told(tmp_path, ZIPPED + gzip.compress(b"x")).startswith("found more than 2,352 data bytes")
    assert np.array_equal(read_idx(written(tmp_path, ZIPPED + gzip.compress(b"")), 3).values, VALUES)


def test_even_images_shrink_a_thousandfold_and_are_read(tmp_path):
    white = np.full((2_000, 28, 28), 255, np.uint8)
    content = gzip.compress(idx_bytes(white))
    assert len(idx_bytes(white)) > 1_000 * len(content)
    assert np.array_equal(read_idx(written(tmp_path, content), 3).values, white)


def test_a_size_that_no_stream_reaches_is_told_before_anything_is_unpacked(monkeypatch):
    def unpacked(**options):
        raise AssertionError("unpacked")

    monkeypatch.setattr(image_files.zlib, "decompressobj", unpacked)
    with pytest.raises(EOFError) as caught:
        image_files._gunzip(ZIPPED, 1_100 * len(ZIPPED) + 1)
    assert str(caught.value) == ENDED
    with pytest.raises(AssertionError, match="unpacked"):
        image_files._gunzip(ZIPPED, 1_100 * len(ZIPPED))


@pytest.mark.parametrize("size", [0, 100, len(PLAIN) - 1, len(PLAIN)])
def test_no_more_is_unpacked_than_one_byte_over_the_size(size):
    assert image_files._gunzip(ZIPPED, size) == PLAIN[: size + 1]
    halves = gzip.compress(PLAIN[:50]) + gzip.compress(PLAIN[50:])
    assert image_files._gunzip(halves, max(size, 50)) == PLAIN[: max(size, 50) + 1]


def test_a_gzip_bomb_is_told_without_being_unpacked(tmp_path):
    header = b"\0\0\x08\3" + np.array([20, 28, 28], ">u4").tobytes()
    packer = zlib.compressobj(1, wbits=31)
    bomb = packer.compress(header) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(40)) + packer.flush()
    tracemalloc.start()
    try:
        assert told(tmp_path, bomb).startswith("found more than 15,680 data bytes, expected 15,680 for shape (20, 28")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)  # in the folder where the test runs: a socket's path must be short


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "found a pipe, expected a file"),
        (make_socket, "found a socket, expected a file"),
        (Path.mkdir, "found a folder, expected a file"),
        (lambda path: path.symlink_to("nowhere"), "found a link that leads nowhere, expected a file"),
        (
            lambda path: path.symlink_to(path.name),
            "found a file that cannot be read (Too many levels of symbolic links), expected data",
        ),
        (lambda path: path.symlink_to("/dev/zero"), "found a device, expected a file"),
    ],
)
def test_what_is_no_file_is_told_and_never_waited_for(tmp_path, make, words):
    path = tmp_path / "labels"
    make(path)
    assert error_of(read_idx, path, 1) == f"{path}: {words}"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            PermissionError(13, "Permission denied"),
            "found a file that cannot be read (Permission denied), expected data; make it readable for you",
        ),
        (
            PermissionError(1, "Operation not permitted"),
            "found a file that cannot be read (Operation not permitted), expected data; make it readable for you",
        ),
        (OSError(5, "Input/output error"), "found a file that cannot be read (Input/output error), expected data"),
        (MemoryError(), "found a file that does not fit into memory, expected a data set that does"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path, monkeypatch, error, words):
    def fail(path):
        raise error

    path = written(tmp_path, PLAIN)
    monkeypatch.setattr(Path, "read_bytes", fail)
    assert error_of(read_idx, path, 3) == f"{path}: {words}"


def test_data_that_do_not_fit_into_memory_once_unpacked_are_told(tmp_path, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(image_files, "_gunzip", fail)
    assert told(tmp_path, ZIPPED) == "found data that do not fit into memory, expected a data set that does"
