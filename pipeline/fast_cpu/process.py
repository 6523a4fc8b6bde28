"""Settings of the whole process that make the training fast without changing what it computes."""

import ctypes
import sys

import torch

from pipeline.data_spec import MNIST

KEEP_BYTES = 1 << 30
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
EXACT = 1e-5


def prepare(matmul_precision: str) -> str:
    """Make all of these settings; returns the precision of matrix products that was set."""
    keep_memory()
    leave_memory_unfilled()
    return set_matmul_precision(matmul_precision)


def keep_memory() -> None:
    """Let glibc keep what is freed instead of giving it back to the kernel and faulting it in again.

    Every step frees and takes 2.7 MB of gradients. On other C libraries this does nothing.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)


def leave_memory_unfilled() -> None:
    """Spare the writing of NaN into every new tensor, which torch does where deterministic algorithms are asked for.

    It is there to make reads of memory that nobody wrote visible; nothing here reads such.
    """
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def set_matmul_precision(precision: str) -> str:
    """Choose the kernels of float32 matrix products; returns the precision set.

    "auto" is "medium" where that only lets faster float32 kernels in (oneDNN on AMD processors: twice as fast), and
    "highest" where it would mean fewer bits (bfloat16 or TF32), told apart by trying.

    Args:
        precision: auto, or what `torch.set_float32_matmul_precision` takes.
    """
    if precision == "auto":
        precision = "medium" if not torch.cuda.is_available() and _error_with("medium") < EXACT else "highest"
    torch.set_float32_matmul_precision(precision)
    return precision


def _error_with(precision: str) -> float:
    """The largest relative error of a product like the network's own, against float64."""
    torch.set_float32_matmul_precision(precision)
    generator = torch.Generator().manual_seed(0)
    left = torch.rand(128, MNIST.size, generator=generator)
    right = torch.rand(MNIST.size, 512, generator=generator)
    exact = left.double() @ right.double()
    return float(((left @ right).double() / exact - 1).abs().max())
