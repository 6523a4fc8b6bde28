from types import SimpleNamespace

import pytest
import torch

from pipeline.fast_cpu import process


@pytest.fixture(autouse=True)
def precision_is_put_back():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_a_given_precision_is_set(precision):
    assert process.set_matmul_precision(precision) == precision
    assert torch.get_float32_matmul_precision() == precision


def test_auto_refuses_kernels_that_are_less_exact_than_float32(monkeypatch):
    monkeypatch.setattr(process, "_error_with", lambda precision: 4e-3)  # bfloat16
    assert process.set_matmul_precision("auto") == "highest"


def test_auto_keeps_float32_exact_whatever_it_chooses():
    process.set_matmul_precision("auto")
    left, right = torch.rand(64, 784), torch.rand(784, 32)
    error = ((left @ right).double() / (left.double() @ right.double()) - 1).abs().max()
    assert error < process.EXACT


def test_keeping_memory_works_or_does_nothing_anywhere():
    process.keep_memory()


def mallopt_calls(monkeypatch, platform, libc):
    calls = []
    opened = SimpleNamespace(**({"mallopt": lambda *arguments: calls.append(arguments)} if libc == "glibc" else {}))
    monkeypatch.setattr(process.sys, "platform", platform)
    monkeypatch.setattr(process.ctypes, "CDLL", {None: opened}.__getitem__)
    process.keep_memory()
    return calls


def test_glibc_is_told_to_keep_a_gibibyte_and_to_map_nothing_smaller(monkeypatch):
    assert mallopt_calls(monkeypatch, "linux", "glibc") == [(-3, 2**30), (-1, 2**30)]


@pytest.mark.parametrize(("platform", "libc"), [("linux", "musl"), ("darwin", "glibc")])
def test_other_systems_are_left_alone(monkeypatch, platform, libc):
    assert mallopt_calls(monkeypatch, platform, libc) == []


def test_new_memory_is_not_filled(monkeypatch):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    process.leave_memory_unfilled()
    assert torch.utils.deterministic.fill_uninitialized_memory is False


@pytest.mark.parametrize(
    ("cuda", "error", "chosen"),
    [(False, 9.9e-6, "medium"), (False, 1e-5, "highest"), (False, 4e-3, "highest"), (True, 0.0, "highest")],
)
def test_auto_takes_faster_kernels_only_on_the_cpu_and_only_if_they_are_exact(monkeypatch, cuda, error, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(process, "_error_with", {"medium": error}.__getitem__)
    assert process.set_matmul_precision("auto") == chosen
    assert torch.get_float32_matmul_precision() == chosen


def test_the_error_is_that_of_the_products_own_bits(monkeypatch):
    assert 0 < process._error_with("highest") < 1e-5
    # Eight bits of mantissa in all factors, as bfloat16 kernels take them.
    rand = torch.rand
    exact = []

    def coarse(*size, generator):
        assert generator.initial_seed() == 0  # the same choice on every start
        values = rand(*size, generator=generator)
        exact.append(values)
        return Coarse(values)

    monkeypatch.setattr(torch, "rand", coarse)
    assert process._error_with("medium") == pytest.approx(Coarse.error(*exact), rel=1e-6)
    assert torch.get_float32_matmul_precision() == "medium"
    assert [values.shape for values in exact] == [(128, 784), (784, 512)]  # the first layer's, on a batch


class Coarse:
    """A factor whose float32 product has a bfloat16's bits, whose float64 product is exact."""

    def __init__(self, values):
        self.values = values

    def double(self):
        return self.values.double()

    def __matmul__(self, other):
        return self.values.bfloat16().float() @ other.values.bfloat16().float()

    @staticmethod
    def error(left, right):
        exact = left.double() @ right.double()
        return float((((Coarse(left) @ Coarse(right)).double() - exact) / exact).abs().max())
