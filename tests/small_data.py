"""Small data in MNIST's format, as tests of what comes after the data take them."""

from pipeline.data.dataset import Dataset

DIGITS = [str(digit) for digit in range(10)]


def digits_of(train, test, name="digits", source="here"):
    """A dataset of ten digits, of (images, labels) to train and to test with."""
    return Dataset(train, test, DIGITS, drawing="mnist").named(name, source)
