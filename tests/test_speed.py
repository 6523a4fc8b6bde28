import pytest
import torch

from pipeline import speed


@pytest.fixture(autouse=True)
def precision_is_put_back():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_a_given_precision_is_set(precision):
    assert speed.set_matmul_precision(precision) == precision
    assert torch.get_float32_matmul_precision() == precision


def test_auto_refuses_kernels_that_are_less_exact_than_float32(monkeypatch):
    monkeypatch.setattr(speed, "_error_with", lambda precision: 4e-3)  # bfloat16
    assert speed.set_matmul_precision("auto") == "highest"


def test_auto_keeps_float32_exact_whatever_it_chooses():
    speed.set_matmul_precision("auto")
    left, right = torch.rand(64, 784), torch.rand(784, 32)
    error = ((left @ right).double() / (left.double() @ right.double()) - 1).abs().max()
    assert error < speed.EXACT


def test_keeping_memory_works_or_does_nothing_anywhere():
    speed.keep_memory()
