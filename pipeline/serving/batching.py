"""One forward pass for all the examples that wait at the same moment."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from pipeline.registry.versions import Loaded

Examples = NDArray[np.float32]
Probabilities = NDArray[np.float32]
Waiting = tuple[Examples, asyncio.Future[Probabilities]]


class Batcher:
    """Gathers what the event loop has ready in one turn: reading the weights costs more than multiplying by them.

    An example alone waits for no other. A request is answered by the version that it was read for, whatever serves
    meanwhile.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Loaded, list[Waiting]]] = {}

    async def predict(self, loaded: Loaded, examples: Examples) -> Probabilities:
        """(N, ...) raw examples -> their (N, classes) probabilities by that version."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._answer)
        future: asyncio.Future[Probabilities] = loop.create_future()
        self._waiting.setdefault(id(loaded), (loaded, []))[1].append((examples, future))
        return await future

    def _answer(self) -> None:
        groups, self._waiting = self._waiting.values(), {}
        for loaded, waiting in groups:
            _answer_by(loaded, [each for each in waiting if not each[1].done()])


def _answer_by(loaded: Loaded, waiting: list[Waiting]) -> None:
    if not waiting:
        return
    try:
        parts = [examples for examples, _ in waiting]
        probabilities = loaded.predict(parts[0] if len(parts) == 1 else np.concatenate(parts))
    except Exception as error:  # it is theirs, not the loop's
        if len(waiting) > 1:  # what one sent, such as a category that the network lacks, is no other's fault
            for each in waiting:
                _answer_by(loaded, [each])
            return
        waiting[0][1].set_exception(error)
        return
    first = 0
    for examples, future in waiting:
        future.set_result(probabilities[first : first + len(examples)])
        first += len(examples)
