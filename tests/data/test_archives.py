"""NumPy archives: images and labels of whatever shape and type come out as the same bytes, or it is told."""

import numpy as np
import pytest

from pipeline.data.archives import read_npz
from tests.own_data import KEYS, error_of, same

WHOLE = "expected whole numbers in 0..255, or those divided by 255"
A_LABEL = "expected whole numbers in 0..255, one a label"
SHAPE = "expected (N, 28, 28) with N above 0"


def small(train=6, test=4):
    """Arrays by Keras' keys; 0 and 255 are among the pixels."""
    random = np.random.RandomState(0)
    sizes = dict(zip(KEYS, (train, train, test, test), strict=True))
    arrays = {
        key: random.randint(0, 256 if key[0] == "x" else 10, (size, 28, 28) if key[0] == "x" else size).astype(np.uint8)
        for key, size in sizes.items()
    }
    for key in ("x_train", "x_test"):
        arrays[key][:, 0, :2] = 0, 255
    return arrays


def packed(path, arrays):
    np.savez(path, **arrays)
    return path


def with_one(path, key, array):
    """An archive whose other parts are in order; returns what reading it gives for the key."""
    parts = read_npz(packed(path / "mnist.npz", {**small(), key: array}))
    return parts[KEYS.index(key)].values


def told(path, key, array):
    """What is said of an array in an archive whose other parts are in order, behind its name."""
    archive = packed(path / "mnist.npz", {**small(), key: array})
    words, name = error_of(read_npz, archive), f"{archive}[{key}]: "
    assert words.startswith(name)
    return words.removeprefix(name)


def one_hot(labels, dtype=np.uint8):
    return np.eye(10, dtype=dtype)[labels]


def test_the_four_parts_come_in_order_each_with_its_place_and_without_a_checksum_of_a_file(tmp_path):
    arrays = small()
    path = packed(tmp_path / "mnist.npz", dict(reversed(arrays.items())))
    parts = read_npz(path)
    assert same(parts, arrays.values())
    assert [part.where for part in parts] == [f"{path}[{key}]" for key in KEYS]
    assert {part.md5 for part in parts} == {""}
    assert all(part.values.flags.c_contiguous for part in parts)


SHAPES_AND_TYPES = [
    lambda x: x.reshape(-1, 784),
    lambda x: x[..., None],
    lambda x: x[:, None],
    lambda x: x.astype(np.int64),
    lambda x: x.astype(np.uint16),
    lambda x: x.astype(">i2"),
    lambda x: x.astype(">f4"),
    lambda x: x.astype(np.float32),
    lambda x: x.astype(np.float64),
    lambda x: x.astype(np.float32) / 255,
    lambda x: (x / 255).astype(">f8"),
    lambda x: (x / 255).astype(np.float16),
    np.asfortranarray,
]


@pytest.mark.parametrize("change", SHAPES_AND_TYPES)
def test_images_of_every_shape_and_type_are_the_same_bytes(tmp_path, change):
    images = small()["x_train"]
    found = with_one(tmp_path, "x_train", change(images))
    assert (found.dtype, found.flags.c_contiguous) == (np.uint8, True)
    assert np.array_equal(found, images)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("divisor", [1, 255])
def test_each_of_the_256_pixel_values_comes_back_from_every_float(tmp_path, dtype, divisor):
    every = np.resize(np.arange(256), (2, 28, 28))
    found = with_one(tmp_path, "x_test", (every / divisor).astype(dtype))
    assert np.array_equal(found, every)


def test_one_image_is_enough_and_none_is_told(tmp_path):
    one = np.full((1, 28, 28), 7)
    assert np.array_equal(with_one(tmp_path, "x_train", one), one)
    for shape in ((0, 28, 28), (0, 784)):
        assert told(tmp_path, "x_train", np.zeros(shape, np.uint8)) == f"found images of shape {shape}, {SHAPE}"


@pytest.mark.parametrize(
    ("levels", "found"),
    [((0.0, 1.0), (0, 255)), ((0.0, 0.2), (0, 51)), ((0.0, 2.0), (0, 2)), ((0, 2), (0, 2)), ((0.0, 255.0), (0, 255))],
    ids=["floats to 1.0", "dim floats", "floats to 2", "integers to 2", "floats to 255"],
)
def test_floats_of_at_most_1_were_divided_by_255_and_no_others(tmp_path, levels, found):
    images = np.resize(np.array(levels), (2, 28, 28))
    assert np.array_equal(with_one(tmp_path, "x_train", images), np.resize(found, (2, 28, 28)))


def test_true_is_white(tmp_path):
    images = small()["x_train"] > 99
    assert np.array_equal(with_one(tmp_path, "x_train", images), images * 255)


def test_a_pixel_may_be_a_tenth_away_from_a_whole_number_and_no_further(tmp_path):
    images = np.zeros((2, 28, 28))
    images[0, 0, 0], images[1, 27, 27] = 255, 0.1
    assert np.array_equal(with_one(tmp_path, "x_train", images), np.rint(images))
    images[1, 27, 27] = 0.11
    between = f"found float64 values between the whole numbers, {WHOLE}"
    assert told(tmp_path, "x_train", images) == between
    images[1, 27, 27] = 0.9
    assert with_one(tmp_path, "x_train", images)[1, 27, 27] == 1
    images[1, 27, 27] = 0.89
    assert told(tmp_path, "x_train", images) == between


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :14], f"found images of shape (6, 14, 28), {SHAPE}"),
        (lambda x: x[:, :, 1:], f"found images of shape (6, 28, 27), {SHAPE}"),
        (lambda x: np.moveaxis(x, 0, 2), f"found images of shape (28, 28, 6), {SHAPE}"),
        (lambda x: np.repeat(x[..., None], 3, 3), f"found images of shape (6, 28, 28, 3), {SHAPE}"),
        (lambda x: x.reshape(6, 783 + 1)[:, :783], f"found images of shape (6, 783), {SHAPE}"),
        (lambda x: x[None], f"found images of shape (1, 6, 28, 28), {SHAPE}"),
        (lambda x: x[0], f"found images of shape (28, 28), {SHAPE}"),
        (lambda x: x[0, 0, 0], f"found images of shape (), {SHAPE}"),
        (lambda x: x - 1.0, f"found values from -1 to 254, {WHOLE}"),
        (lambda x: x.astype(np.int64) - 1, f"found values from -1 to 254, {WHOLE}"),
        (lambda x: x + 1.0, f"found values from 1 to 256, {WHOLE}"),
        (lambda x: x.astype(np.uint16) + 1, f"found values from 1 to 256, {WHOLE}"),
        (lambda x: x / -255, f"found values from -1 to -0, {WHOLE}"),
        (lambda x: x / 510 - 0.5, f"found values from -0.5 to 0, {WHOLE}"),
        (lambda x: np.where(x == 255, np.nan, x), f"found values from nan to nan, {WHOLE}"),
        (lambda x: np.where(x == 255, np.inf, x), f"found values from 0 to inf, {WHOLE}"),
        (lambda x: x / 2.0, f"found float64 values between the whole numbers, {WHOLE}"),
        (lambda x: x.astype(np.float32) / 170, f"found float32 values between the whole numbers, {WHOLE}"),
        (lambda x: (x > 99).astype(int), f"found int64 values that are all 0 or 1, {WHOLE}"),
        (lambda x: (x > 99).astype(np.uint8), f"found uint8 values that are all 0 or 1, {WHOLE}"),
        (lambda x: x.astype("U3"), f"found <U3 values, {WHOLE}"),
        (lambda x: x.astype("M8[s]"), f"found datetime64[s] values, {WHOLE}"),
        (lambda x: x.astype(complex), f"found complex128 values, {WHOLE}"),
    ],
)
def test_images_that_cannot_be_taken_are_told_in_one_line(tmp_path, change, message):
    assert told(tmp_path, "x_train", change(small()["x_train"])) == message


LABEL_SHAPES_AND_TYPES = [
    one_hot,
    lambda y: one_hot(y, np.float64),
    lambda y: one_hot(y, bool),
    lambda y: one_hot(y, np.int64)[:, :10],
    lambda y: y[:, None].astype(np.int64),
    lambda y: y[:, None].astype(float),
    lambda y: y.astype(np.float32),
    lambda y: y.astype(">i4"),
    lambda y: y.astype(">f8"),
    lambda y: y.astype(np.uint64),
]


@pytest.mark.parametrize("change", LABEL_SHAPES_AND_TYPES)
def test_labels_of_every_shape_and_type_are_the_same_bytes(tmp_path, change):
    labels = np.array([0, 9, 3, 3, 1, 7], np.uint8)
    found = with_one(tmp_path, "y_train", change(labels))
    assert found.dtype == np.uint8
    assert np.array_equal(found, labels)


def test_labels_are_whole_numbers_from_0_to_255_both_ends_among_them(tmp_path):
    for ends in (np.array([0, 255]), np.array([0.0, 255.0]), np.array([[0], [255]])):
        assert with_one(tmp_path, "y_train", ends).tolist() == [0, 255]
    assert with_one(tmp_path, "y_train", np.zeros(0, np.uint8)).tolist() == []
    assert with_one(tmp_path, "y_train", np.array([True, False])).tolist() == [1, 0]


def test_one_label_alone_is_a_label_or_a_row(tmp_path):
    assert with_one(tmp_path, "y_train", np.array([3])).tolist() == [3]
    assert with_one(tmp_path, "y_train", np.array([[3]])).tolist() == [3]
    assert with_one(tmp_path, "y_train", np.array([[0, 0, 0, 1]])).tolist() == [3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda y: one_hot(y)[:, 3:9],
            "found labels of shape (6, 6), expected (N,), or one-hot rows of one 1 each",
        ),
        (
            lambda y: one_hot(y, float) * 0.9,
            "found labels of shape (6, 10), expected (N,), or one-hot rows of one 1 each",
        ),
        (
            lambda y: one_hot(y) + one_hot(9 - y),
            "found labels of shape (6, 10), expected (N,), or one-hot rows of one 1 each",
        ),
        (
            lambda y: np.array([[2, -1], [0, 1]]),
            "found labels of shape (2, 2), expected (N,), or one-hot rows of one 1 each",
        ),
        (lambda y: y[None, None], "found labels of shape (1, 1, 6), expected (N,)"),
        (lambda y: y[0], "found labels of shape (), expected (N,)"),
        (lambda y: y + 0.5, f"found values from 0.5 to 9.5, {A_LABEL}"),
        (lambda y: y.astype(int) - 1, f"found values from -1 to 8, {A_LABEL}"),
        (lambda y: y.astype(int) + 247, f"found values from 247 to 256, {A_LABEL}"),
        (lambda y: np.where(y == 9, np.nan, y), f"found values from nan to nan, {A_LABEL}"),
        (lambda y: y.astype("U1"), f"found <U1 values, {A_LABEL}"),
        (lambda y: y[:, None].astype("S1"), f"found |S1 values, {A_LABEL}"),
        (lambda y: y.astype(complex), f"found complex128 values, {A_LABEL}"),
    ],
)
def test_labels_that_cannot_be_taken_are_told_in_one_line(tmp_path, change, message):
    assert told(tmp_path, "y_train", change(np.array([0, 9, 3, 3, 1, 7], np.uint8))) == message
