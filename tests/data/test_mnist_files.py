"""The real MNIST is known in every form that it lies in, and one wrong label in it is told."""

import gzip

import numpy as np
import pytest

from pipeline.data import datasets
from tests.conftest import FILES, idx_bytes
from tests.own_data import KEYS, load_error


@pytest.fixture(scope="module")
def published(mnist_dir):
    """MNIST's arrays by Keras' keys."""
    data = datasets.load("mnist", mnist_dir)
    assert (data.name, data.digest) == ("mnist", "06b0d1f124c4e5fa")
    splits = data.train, data.test
    return dict(zip(KEYS, (array for split in splits for array in (split.inputs, split.labels)), strict=True))


def test_mnist_in_an_archive_is_known_and_refused_under_another_name(tmp_path, published):
    np.savez(tmp_path / "mnist.npz", **published)
    found = datasets.load("mnist", tmp_path)
    assert (found.name, found.digest) == ("mnist", "06b0d1f124c4e5fa")
    assert load_error(tmp_path / "mnist.npz", "fashion_mnist", "") == (
        f"{tmp_path / 'mnist.npz'} holds mnist, by its checksums, not fashion_mnist; give --dataset mnist, "
        "or the folder of fashion_mnist with --data_dir"
    )


def test_mnist_unpacked_or_in_part_packed_anew_is_known_and_one_wrong_label_in_it_told(tmp_path, published):
    for name, array in zip(FILES, published.values(), strict=True):
        (tmp_path / name).write_bytes(idx_bytes(array))
    for name in FILES[2:]:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes(), 1))
    assert datasets.load("mnist", tmp_path).name == "mnist"
    labels = published["y_test"].copy()
    labels[-1] ^= 1
    (tmp_path / f"{FILES[3]}.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    assert load_error(tmp_path, data_name="") == (
        f"{tmp_path / FILES[3]}.gz: found data of which no known checksum is true, expected mnist's {FILES[3]}; "
        "give data of your own a name of their own, --data_name my_digits, or fetch the file again"
    )
