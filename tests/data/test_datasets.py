"""Data sets by name: found where they lie, whole and exact, under their own name; the wrong ones are told."""

import gzip
import hashlib

import numpy as np
import pytest

from pipeline.data import datasets
from pipeline.data.dataset import Dataset
from tests.conftest import FILES, idx_bytes, write_four_files
from tests.own_data import OWN, arrays_of, holds, load, load_error

IMAGES, LABELS = FILES[:2]


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("below", ["", "MNIST/raw", "raw", "FashionMNIST/raw", "KMNIST/raw"])
def test_the_four_files_are_read_gzipped_or_not_from_every_place(tmp_path, compress, below):
    arrays = write_four_files(tmp_path / below, compress=compress)
    data = load(tmp_path)
    assert holds(data, arrays)
    assert (data.name, data.source) == (OWN, str(tmp_path / below))


def test_a_keras_archive_has_the_digest_of_the_same_four_files(tmp_path):
    arrays = arrays_of(tmp_path / "files")
    np.savez(tmp_path / "mnist.npz", **arrays)
    data = load(tmp_path)
    assert holds(data, arrays)
    assert data.source == str(tmp_path / "mnist.npz")
    assert data.digest == load(tmp_path / "files").digest


@pytest.mark.parametrize("name", ["mnist.npz", "my_digits.npz", "My-Digits.NPZ", "whatever.npz", "whatever.NPZ"])
def test_an_archive_may_be_given_itself_under_any_name_and_found_under_the_data_s(tmp_path, name):
    arrays = arrays_of(tmp_path / "files")
    folder = tmp_path / "archive"
    folder.mkdir()
    with (folder / name).open("wb") as file:
        np.savez(file, **arrays)
    assert holds(load(folder / name), arrays)
    if "whatever" in name:
        assert load_error(folder).startswith("data_name my_digits: found no ")
    else:
        assert load(folder).source == str(folder / name)


def test_an_archive_of_the_data_s_own_name_comes_before_mnist_npz_and_both_behind_the_four_files(tmp_path):
    arrays = arrays_of(tmp_path / "files")
    other = {**arrays, "y_test": (arrays["y_test"] + 1) % 10}
    np.savez(tmp_path / "mnist.npz", **other)
    np.savez(tmp_path / "my_digits.npz", **arrays)
    assert load(tmp_path).source == str(tmp_path / "my_digits.npz")
    files = write_four_files(tmp_path)
    assert holds(load(tmp_path), files)
    assert load(tmp_path).source == str(tmp_path)


TEN = [str(digit) for digit in range(10)]


def digest_of(train_images, train_labels, test_images, test_labels):
    return Dataset((train_images, train_labels), (test_images, test_labels), TEN, drawing="mnist").digest


def four_parts():
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (2, 12, 28, 28)).astype(np.uint8)
    labels = random.randint(0, 10, (2, 12)).astype(np.uint8)
    return [images[0], labels[0], images[1], labels[1]]


def test_the_digest_is_sha256_over_training_images_and_labels_then_test_images_and_labels():
    parts = four_parts()
    expected = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
    assert digest_of(*parts) == expected[:16]
    assert digest_of(*(np.asfortranarray(part) for part in parts)) == expected[:16]
    assert digest_of(*(np.repeat(part, 2, axis=0)[::2] for part in parts)) == expected[:16]
    assert digest_of(*(part.astype(np.int64) for part in parts)) == expected[:16]


@pytest.mark.parametrize("changed", range(4))
def test_the_digest_tells_one_changed_bit_anywhere_and_another_order(changed):
    parts = four_parts()
    before = digest_of(*parts)
    for place in (0, -1):
        other = [part.copy() for part in parts]
        other[changed].flat[place] ^= 1
        assert digest_of(*other) != before
    other = [part.copy() for part in parts]
    other[changed] = other[changed][::-1]
    assert digest_of(*other) != before
    assert digest_of(*parts[2:], *parts[:2]) != before


@pytest.mark.parametrize("place", range(4))
def test_one_changed_value_in_any_file_is_another_digest(tmp_path, place):
    arrays = list(write_four_files(tmp_path).values())
    before = load(tmp_path).digest
    changed = arrays[place].copy()
    changed.flat[-1] ^= 1
    (tmp_path / f"{FILES[place]}.gz").write_bytes(gzip.compress(idx_bytes(changed)))
    assert load(tmp_path).digest != before


@pytest.mark.parametrize(("train", "test"), [(1, 1), (3, 1), (1, 3)])
def test_sets_of_one_image_are_read(tmp_path, train, test):
    arrays = write_four_files(tmp_path, train, test)
    assert holds(load(tmp_path), arrays)


SHAPE = "expected (N, 28, 28) with N above 0"


@pytest.mark.parametrize("half", [0, 2])
@pytest.mark.parametrize("shape", [(0, 28, 28), (20, 32, 32), (20, 28, 27), (20, 27, 28), (28, 28, 20), (0, 0, 0)])
def test_images_of_another_shape_are_told(tmp_path, half, shape):
    write_four_files(tmp_path, 20, 20, compress=False)
    (tmp_path / FILES[half]).write_bytes(idx_bytes(np.zeros(shape)))
    assert load_error(tmp_path) == f"{tmp_path / FILES[half]}: found images of shape {shape}, {SHAPE}"


@pytest.mark.parametrize("half", [0, 2])
@pytest.mark.parametrize("size", [0, 1999, 2001])
def test_labels_of_another_number_are_told(tmp_path, half, size):
    write_four_files(tmp_path, 2000, 2000, compress=False)
    (tmp_path / FILES[half + 1]).write_bytes(idx_bytes(np.zeros(size)))
    assert load_error(tmp_path) == (
        f"{tmp_path / FILES[half + 1]}: found {size:,} labels, "
        f"expected 2,000, one per image in {tmp_path / FILES[half]}"
    )


@pytest.mark.parametrize("half", [1, 3])
def test_labels_are_0_to_9_and_the_first_beyond_is_told(tmp_path, half):
    write_four_files(tmp_path, 20, 20, compress=False)
    labels = [0] * 18 + [9, 9]
    (tmp_path / FILES[half]).write_bytes(idx_bytes(labels))
    split = load(tmp_path).train if half == 1 else load(tmp_path).test
    assert split.labels.tolist() == labels
    for beyond in (10, 255):
        (tmp_path / FILES[half]).write_bytes(idx_bytes([*labels[:-1], beyond]))
        assert load_error(tmp_path) == f"{tmp_path / FILES[half]}: found label {beyond}, expected 0..9"


def test_the_files_of_one_half_are_not_taken_for_the_other(tmp_path):
    arrays = write_four_files(tmp_path, train=3, test=2, compress=False)
    (tmp_path / FILES[3]).write_bytes(idx_bytes(arrays[FILES[1]]))
    assert load_error(tmp_path).startswith(f"{tmp_path / FILES[3]}: found 3 labels, expected 2, ")
    (tmp_path / FILES[3]).write_bytes(idx_bytes(arrays[FILES[2]]))
    assert load_error(tmp_path).startswith(f"{tmp_path / FILES[3]}: found 0x00000803 at the start, ")


def test_digits_are_scikit_learn_s_in_their_order_at_28x28_and_0_to_255():
    from sklearn.datasets import load_digits

    data, bunch = datasets.load("digits", "nowhere"), load_digits()
    assert (data.name, data.source) == ("digits", "sklearn.datasets.load_digits")
    assert (len(data.train.inputs), len(data.test.inputs)) == (1437, 360)
    images, labels = (
        np.concatenate([getattr(data.train, name), getattr(data.test, name)]) for name in ("inputs", "labels")
    )
    assert (images.dtype, labels.dtype) == (np.uint8, np.uint8)
    assert labels.tolist() == bunch.target.tolist()
    assert (images.min(), images.max()) == (0, 255)
    middles = ((np.arange(28) + 0.5) * 8 / 28 - 0.5).clip(0, 7)  # of the large pixels, among the small ones
    shares = (1 - np.abs(middles[:, None] - np.arange(8))).clip(0)
    assert np.abs(images - shares @ (bunch.images * 255 / 16) @ shares.T).max() < 1.5  # rounded twice
    assert data.digest == datasets.load("digits", "elsewhere").digest
