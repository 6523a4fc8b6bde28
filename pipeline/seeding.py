"""Where randomness comes from: every stream of numbers is a function of (seed, purpose, epoch, rank), never of history.

So an epoch draws the same order and the same dropout whether the run came to it in one go or was resumed before it.
"""

import numpy as np

_PURPOSES = ("weights", "order", "dropout", "augment")  # a new one comes last: the place is in the seed


def derive_seed(seed: int, purpose: str, epoch: int = 0, rank: int = 0, layer: int = 0) -> int:
    """A 63-bit seed for one purpose ("weights", "order", "dropout" or "augment"), independent of all others."""
    sequence = np.random.SeedSequence((seed, _PURPOSES.index(purpose), epoch, rank, layer))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
