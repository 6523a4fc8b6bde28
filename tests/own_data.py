"""Small data of one's own, as the tests of the data modules write and read them."""

import hashlib

import numpy as np
import pytest

from pipeline.data import datasets, known_data
from pipeline.data.datasets import DataError
from tests.conftest import FILES, write_four_files

OWN = "my_digits"  # the small data that the tests write are nobody's known data
KEYS = ("x_train", "y_train", "x_test", "y_test")


def load(folder):
    return datasets.load("mnist", folder, OWN)


def load_error(folder, dataset="mnist", data_name=OWN):
    with pytest.raises(DataError) as caught:
        datasets.load(dataset, folder, data_name)
    return str(caught.value)


def error_of(call, *arguments):
    """The words of the DataError that the call ends with."""
    with pytest.raises(DataError) as caught:
        call(*arguments)
    return str(caught.value)


def arrays_of(folder):
    """Write the four files; their arrays by Keras' keys."""
    arrays = write_four_files(folder)
    return dict(zip(KEYS, (arrays[name] for name in FILES), strict=True))


def same(parts, arrays):
    """Whether the parts hold these arrays, in order, as bytes."""
    return all(
        part.values.dtype == np.uint8 and np.array_equal(part.values, array)
        for part, array in zip(parts, arrays, strict=True)
    )


def holds(data, arrays):
    """Whether the data are these arrays, by Keras' keys."""
    found = data.train.inputs, data.train.labels, data.test.inputs, data.test.labels
    return all(np.array_equal(one, other) for one, other in zip(found, arrays.values(), strict=True))


def know(monkeypatch, dataset, folder):
    """Let the folder's gzipped files be the published ones of the data set."""
    sums = tuple(hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest() for name in FILES)
    monkeypatch.setitem(known_data.MD5, dataset, sums)
