"""How the learning rate goes on from epoch to epoch: factors of it, by name or by a function of the user's own."""

import math
from collections.abc import Callable

from pipeline.config import own_code
from pipeline.config.own_code import OwnCodeError, as_number

Schedule = Callable[[int, int], float]  # (epoch from 0, epochs) -> factor of the learning rate
Factor = Callable[[int], float]


def cosine(epoch: int, epochs: int) -> float:
    """Half a cosine from 1 towards 0 (SGDR, Loshchilov and Hutter, 2017, eq. 5, without restarts)."""
    return (1 + math.cos(math.pi * epoch / epochs)) / 2


def step(epoch: int, epochs: int) -> float:
    """A tenth after each third of the epochs."""
    return 10.0 ** -(3 * epoch // epochs)


SHIPPED: dict[str, Schedule] = {"cosine": cosine, "step": step}


def factor_of(name: str, epochs: int) -> Factor | None:
    """The factor of each epoch (from 0) by the schedule of that name; None for `constant`, which needs none.

    Raises:
        OwnCodeError: if there is no such function; when it is called, if that gives no finite number of at least 0.
    """
    if name == "constant":
        return None
    schedule: Schedule = own_code.load(name, ("epoch", "epochs")) if own_code.is_own(name) else SHIPPED[name]

    def factor(epoch: int) -> float:
        epoch = min(epoch, epochs - 1)  # torch asks for one more as the last ends
        given = schedule(epoch, epochs)
        found = as_number(given)
        if found is None or not 0 <= found < math.inf:
            raise OwnCodeError(
                f"{name} gave {given!r} for epoch {epoch} of {epochs}, expected a factor of learning_rate, a finite "
                "number of at least 0"
            )
        return found

    return factor
