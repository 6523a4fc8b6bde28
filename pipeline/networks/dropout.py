"""Dropout as `nn.Dropout` does it, at a fraction of its cost on a CPU, and with a seed of its own."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 1 << 16
STEPS_AHEAD = 8
MASKS_AHEAD = 1 << 19


class Dropout(nn.Module):
    """Set each value to zero with probability p, scale the others by 1 / (1 - p); in training only.

    On other devices than the CPU this is `nn.functional.dropout`.
    """

    def __init__(self, p: float = 0.5) -> None:
        """Drop with probability p.

        Raises:
            ValueError: unless 0 <= p < 1.
        """
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout {p} is out of range: at least 0, below 1")
        self.p = p
        self._masks = Masks(p)

    def reseed(self, seed: int) -> None:
        """Begin the sequence of masks that belongs to the seed."""
        self._masks.reseed(seed)

    def forward(self, values: Tensor) -> Tensor:
        """Any shape to the same shape."""
        if not self.training or self.p == 0:
            return values
        if values.device.type != "cpu":
            return F.dropout(values, self.p)
        return values * self._masks.next_like(values)

    def drop_(self, values: Tensor) -> Tensor:
        """`forward` in training and on the CPU, in place and without autograd."""
        return values.mul_(self._masks.next_like(values)) if self.p else values

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Masks:
    """A sequence of random masks: 0 with probability p, else 1 / (1 - p).

    Each value is decided by 16 random bits of its own, so the draws are independent Bernoulli draws and their rate is p
    to within 2**-17. The bits come from NumPy's SFC64, eight steps' worth at a time: torch's generator draws serially
    and would take a fifth of a training step.
    """

    def __init__(self, p: float) -> None:
        """Draw with probability p; until `reseed` is called, the sequence follows torch's own seed."""
        self.p = p
        self._bits: np.random.SFC64 | None = None
        self._kind: tuple[torch.Size, torch.dtype] | None = None
        self._ready: list[Tensor] = []

    def reseed(self, seed: int) -> None:
        """Begin the sequence that belongs to the seed."""
        self._bits = np.random.SFC64(seed)
        self._ready = []

    def next_like(self, values: Tensor) -> Tensor:
        """The next mask, of the shape and type of the values."""
        kind = (values.shape, values.dtype)
        if not self._ready or self._kind != kind:
            self._kind = kind
            self._ready = self._draw(*kind)
        return self._ready.pop()

    def _draw(self, shape: torch.Size, dtype: torch.dtype) -> list[Tensor]:
        if self._bits is None:
            self.reseed(int(torch.randint(1 << 62, ())))
        assert self._bits is not None
        count = max(1, min(STEPS_AHEAD, MASKS_AHEAD // max(1, shape.numel())))
        size = count * shape.numel()
        levels = torch.from_numpy(self._bits.random_raw(-(-size // 4)).view(np.int16))[:size]
        kept = torch.ge(levels, round(self.p * LEVELS) - LEVELS // 2, out=torch.empty(size, dtype=dtype))
        return list(kept.mul_(1 / (1 - self.p)).view(count, *shape).unbind())
