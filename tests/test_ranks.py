"""More than one rank: gradients averaged, masks of their own, shares that are not equal, metrics over all images."""

from dataclasses import replace

import pytest
import torch

from pipeline import cli, training
from tests import ranks


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ranks_as_threads_come_to_what_is_worked_out_by_hand(count):
    """21 images in shares of batches of 4: three or two steps, the last one smaller, an image or none seen twice."""
    weights, history = ranks.worked_out(count)
    for found, metrics in ranks.Ranks(count).train():
        assert torch.equal(found, weights)
        for epoch, expected in history.items():
            assert metrics[epoch] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("sizes", "few"),
    [
        ({"validation_size": 1}, "1 validation image"),
        ({"validation_size": 29}, "1 training image"),
        ({"test": 2}, "2 test images"),
        ({"validation_size": 0, "test": 2}, "2 validation images"),
        ({"validation_size": 3, "test": 3}, None),
        ({"validation_size": 27, "test": 3}, None),
    ],
)
def test_images_that_do_not_reach_for_every_process_are_refused(sizes, few):
    """`DataLoader within local rank has zero length`, a traceback of two processes, was the answer."""
    config = replace(ranks.CONFIG, validation_size=sizes.get("validation_size", 9))
    data = ranks.small_data(config, test=sizes.get("test", 5))
    data.setup()
    processes = 3 if few is None or few[0] == "2" else 2
    if few is None:
        training.check_shares(data, processes)
        return
    with pytest.raises(ValueError) as error:  # noqa: PT011
        training.check_shares(data, processes)
    assert str(error.value) == (
        f"{processes} processes cannot share {few}; take fewer devices, or another validation_size"
    )


def test_they_are_refused_before_a_run_begins(tmp_path, capsys):
    words = ["--dataset", "digits", "--devices", "2", "--strategy", "ddp", "--accelerator", "cpu"]
    assert cli.main(["train", *words, "--validation_size", "1"]) == 2
    assert capsys.readouterr().err.startswith("pipeline: 2 processes cannot share 1 validation image; ")
    assert not list(tmp_path.glob("runs/*"))
