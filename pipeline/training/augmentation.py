"""How training examples are changed, anew in each epoch: by name or by a function of the user's own."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import own_code
from pipeline.config.own_code import OwnCodeError
from pipeline.data_spec import DataSpec

FARTHEST = 2  # pixels that `shift` moves an image

Change = Callable[[Tensor, torch.Generator], Tensor]


def shift(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to 2 pixels, whole ones, up or down and to a side; what comes in is zero.

    Shapes: (B, channels, height, width) to the same.
    """
    count, _, height, width = inputs.shape
    device = inputs.device
    moves = torch.randint(2 * FARTHEST + 1, (2, count, 1), generator=generator).to(device)
    rows = moves[0] + torch.arange(height, device=device)  # (B, height)
    columns = moves[1] + torch.arange(width, device=device)  # (B, width)
    padded = F.pad(inputs, [FARTHEST] * 4)
    images = torch.arange(count, device=device)[:, None, None]
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


SHIPPED: dict[str, Change] = {"shift": shift}


class Augmentation:
    """Changes a batch by a function `(inputs (B, ...), generator) -> inputs`, which draws from the generator alone.

    The generator is on the CPU whatever the device, so that all devices draw the same.
    """

    def __init__(self, name: str) -> None:
        """Find the function.

        Raises:
            OwnCodeError: if there is none.
        """
        self.name, self.generator = name, torch.Generator()
        self.change: Change = own_code.load(name, ("inputs", "generator")) if own_code.is_own(name) else SHIPPED[name]

    def reseed(self, seed: int) -> None:
        """Begin the sequence of draws that belongs to the seed."""
        self.generator.manual_seed(seed)

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, ...) to the same.

        Raises:
            OwnCodeError: if the function gives another shape or type.
        """
        with torch.autocast(inputs.device.type, enabled=False):
            changed = self.change(inputs, self.generator)
        if _kind(changed) != _kind(inputs):
            raise OwnCodeError(f"{self.name} gave {_kind(changed)}, expected {_kind(inputs)}, as it was given")
        return changed


def make_augmentation(name: str, spec: DataSpec) -> Augmentation | None:
    """The augmentation of that name; None for the empty one.

    Raises:
        ValueError: for a table that is to be shifted.
        OwnCodeError: if it is own, and cannot be had.
    """
    if name in SHIPPED and spec.kind != "image":
        raise ValueError(f"augment {name} changes images, and the data are a {spec.kind}; give a function of your own")
    return Augmentation(name) if name else None


def _kind(values: Tensor) -> str:
    """`float32 (128, 3, 64, 64) on cpu`."""
    if not isinstance(values, Tensor):
        return type(values).__name__
    return f"{str(values.dtype).removeprefix('torch.')} {tuple(values.shape)} on {values.device}"
