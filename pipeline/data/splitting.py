"""Which examples are held out to test with, where the data themselves do not say."""

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import DataError


def held_out(labels: NDArray[np.integer], share: float, seed: int) -> NDArray[np.bool_]:
    """Mark a share of each class, rounded: at least one example where the class has two, never its last one.

    Decided by the order of the labels, the share and the seed alone. A class draws from a stream of its own, so that
    more examples of one leave the others as they are.

    Args:
        labels: (N,) numbers of classes.
        share: above 0, below 1.
        seed: at least 0, below 2**32.

    Returns:
        (N,), true where held out.

    Raises:
        DataError: if no class has two examples.
    """
    chosen = np.zeros(len(labels), np.bool_)
    for number in np.unique(labels):
        rows = np.flatnonzero(labels == number)
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        order = np.random.RandomState([seed, number]).permutation(rows)  # a stream that NumPy promises to keep
        chosen[order[:count]] = True
    if not chosen.any():
        raise DataError("found one example of each class, expected two at least: one to train and one to test with")
    return chosen
