"""Means over images: exact, over unequal batches, NaN among them, in float64 whatever the training computes with."""

import pytest
import torch

from pipeline.training.metrics import ExampleMean


def test_a_mean_is_over_images_and_not_over_batches():
    mean = ExampleMean()
    mean.update(torch.tensor(1.0), 4)
    mean.update(torch.tensor(6.0), 1)
    assert mean.compute().item() == 2.0
    mean.update(torch.tensor([True, False, False]), 3)
    assert mean.compute().item() == 11 / 8
    mean.reset()
    mean.update(torch.tensor(3.0), 2)
    assert mean.compute().item() == 3.0


def test_sums_are_exact_where_float32_would_round():
    mean = ExampleMean()
    for loss in (2.0**24, 1.0, 1.0):
        mean.update(torch.tensor(loss), 1)
    assert (mean.total.item(), mean.examples.item(), mean.compute().dtype) == (2**24 + 2, 3, torch.float64)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_the_mean_and_not_dropped(value):
    mean = ExampleMean()
    mean.update(torch.tensor(1.0), 9)
    mean.update(torch.tensor(value), 1)
    assert repr(mean.compute().item()) == repr(value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_module_of_fewer_bits_does_not_round_it(dtype):
    mean = torch.nn.ModuleDict({"loss": ExampleMean()}).to(dtype)["loss"]
    for begin in (1, 2):
        for _ in range(1000):
            mean.update(torch.tensor([True, True, False]), 3)
        assert mean.compute().item() == 2 / 3, begin
        mean.reset()


def test_a_batch_that_is_counted_keeps_no_graph_alive():
    mean = ExampleMean()
    mean.update(torch.ones(1, requires_grad=True).sum() * 2, 1)
    assert not mean.total.requires_grad
