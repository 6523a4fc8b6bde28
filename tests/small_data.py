"""Small data in MNIST's format, as tests of what comes after the data take them."""

import numpy as np

from pipeline.data.dataset import Dataset

DIGITS = [str(digit) for digit in range(10)]


def digits_of(train, test, name="digits", source="here"):
    """A dataset of ten digits, of (images, labels) to train and to test with."""
    return Dataset(train, test, DIGITS, drawing="mnist").named(name, source)


def thirty(data_dir):
    """A data set as a user's own function gives it: 30 images to train on, 5 to test with."""
    images = np.random.RandomState(5).randint(0, 256, (35, 28, 28)).astype(np.uint8)
    labels = (np.arange(35) % 10).astype(np.uint8)
    return Dataset((images[:30], labels[:30]), (images[30:], labels[30:]), DIGITS, drawing="mnist")
