"""What is held out to test with: a share of each class, by order and seed alone."""

import numpy as np
import pytest

from pipeline.data.splitting import held_out
from tests.own_data import error_of

LABELS = np.array([0, 1, 1, 0, 2, 1, 1, 1, 0, 1, 3, 2])


@pytest.mark.parametrize(
    ("share", "counts"), [(0.01, [1, 1, 1, 0]), (0.5, [2, 3, 1, 0]), (0.75, [2, 4, 1, 0]), (0.99, [2, 5, 1, 0])]
)
def test_a_share_of_each_class_is_held_out_rounded_never_all_and_one_at_least_of_two(share, counts):
    chosen = held_out(LABELS, share, 0)
    assert (chosen.dtype, chosen.shape) == (np.bool_, LABELS.shape)
    assert np.bincount(LABELS[chosen], minlength=4).tolist() == counts


def test_the_seed_decides_which_and_these_are_the_same_for_ever():
    assert np.flatnonzero(held_out(LABELS, 0.5, 0)).tolist() == [0, 1, 2, 4, 8, 9]
    assert np.flatnonzero(held_out(LABELS, 0.5, 2**32 - 1)).tolist() == [0, 1, 3, 4, 6, 9]
    many = np.zeros(1000, np.uint8)
    chosen = [held_out(many, 0.1, seed) for seed in range(20)]
    assert {int(each.sum()) for each in chosen} == {100}
    assert np.mean(chosen, axis=0).max() < 0.6
    assert np.array_equal(held_out(many, 0.1, 3), chosen[3])


def test_each_class_draws_from_a_stream_of_its_own():
    both = held_out(np.repeat([0, 1], 100), 0.3, 0)
    assert not np.array_equal(both[:100], both[100:])
    longer = held_out(np.concatenate([np.repeat([0, 1], 100), np.zeros(50, int)]), 0.3, 0)
    assert np.array_equal(longer[100:200], both[100:])


def test_labels_of_the_smallest_type_are_taken():
    assert np.array_equal(held_out(LABELS.astype(np.uint8), 0.5, 0), held_out(LABELS, 0.5, 0))


def test_one_example_of_each_class_is_told():
    said = "found one example of each class, expected two at least: one to train and one to test with"
    assert error_of(held_out, np.arange(5), 0.5, 0) == said
