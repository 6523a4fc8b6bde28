"""More than one rank: gradients averaged, masks of their own, shares that are not equal, metrics over all images."""

import pytest
import torch

from tests import ranks


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ranks_as_threads_come_to_what_is_worked_out_by_hand(count):
    """21 images in shares of batches of 4: three or two steps, the last one smaller, an image or none seen twice."""
    weights, history = ranks.worked_out(count)
    for found, metrics in ranks.Ranks(count).train():
        assert torch.equal(found, weights)
        for epoch, expected in history.items():
            assert metrics[epoch] == pytest.approx(expected, rel=1e-6)
