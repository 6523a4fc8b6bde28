"""One forward pass for all the images that wait at the same moment."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from pipeline.registry.versions import Loaded
from pipeline.serving.alias_watcher import Follower
from pipeline.serving.refusals import RefusalError

Images = NDArray[np.float32]
Answered = tuple[Loaded, NDArray[np.float32]]


class Batcher:
    """Gathers what the event loop has ready in one turn: reading the weights costs more than multiplying by them.

    An image alone waits for no other. All images of a batch, so all of a request, are answered by one version.
    """

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self._waiting: list[tuple[Images, asyncio.Future[Answered]]] = []

    async def predict(self, images: Images) -> Answered:
        """(N, 28, 28) raw pixels -> the version that answers, and its (N, 10) probabilities.

        Raises:
            RefusalError: if no version serves yet.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._answer)
        future: asyncio.Future[Answered] = loop.create_future()
        self._waiting.append((images, future))
        return await future

    def _answer(self) -> None:
        waiting = [(images, future) for images, future in self._waiting if not future.done()]
        self._waiting = []
        if not waiting:
            return
        try:
            loaded = self.serving()
            parts = [images for images, _ in waiting]
            probabilities = loaded.predict(parts[0] if len(parts) == 1 else np.concatenate(parts))
        except Exception as error:  # it is theirs, not the loop's
            for _, future in waiting:
                future.set_exception(error)
            return
        first = 0
        for images, future in waiting:
            future.set_result((loaded, probabilities[first : first + len(images)]))
            first += len(images)

    def serving(self) -> Loaded:
        """The version that serves.

        Raises:
            RefusalError: if there is none yet.
        """
        if self.follower.current is None:
            reason = self.follower.trouble or "it is being loaded"
            words = f"no model serves yet ({reason}); ask /ready, try again later"
            raise RefusalError(503, "TEMPORARILY_UNAVAILABLE", words)
        return self.follower.current
