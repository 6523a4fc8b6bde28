"""A worker of an experiment as an actor of Ray's."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from pipeline.cluster.connecting import first_line
from pipeline.cluster.link import Message
from pipeline.cluster.node import NodeWorker
from pipeline.cluster.pool import LostError

LINK = "link"  # the thread in which a worker is polled while it trains in another
AGAIN_S, ANSWERS_LOST = 1.0, 30
GONE = (
    "RayActorError",
    "RuntimeEnvSetupError",
    "ActorUnschedulableError",
    "NodeDiedError",
    "WorkerCrashedError",
    "OutOfMemoryError",
)


class RayWorker:
    """A worker's process on some node, as the pool knows it."""

    def __init__(self, ray: Any, cpus: float, gpus: float, kind: type[NodeWorker] | None = None) -> None:
        """Ask for it; Ray starts it where and when there is room."""
        self.ray = ray
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "concurrency_groups": {LINK: 1}}
        self.actor = ray.remote(**options)(kind or TrainingActor).remote()
        # At least one an epoch: not for Ray's list of tasks, which would report and keep each.
        self._asking = self.actor.poll.options(concurrency_group=LINK, enable_task_events=False)
        self.actor.get_ready.remote()

    def poll(self, taken: int, refusal: tuple[int, str] | None) -> list[tuple[int, Message]]:
        """What it has to say; LostError if it is gone.

        An answer can be lost on its way, with the node that it lay on or without: whoever is asked again answers the
        same, and whoever is gone is told apart by Ray in a while.
        """
        errors, lost = self.ray.exceptions, 0
        while True:
            try:
                return self.ray.get(self._asking.remote(taken, refusal))  # type: ignore[no-any-return]
            except errors.ActorUnavailableError:
                time.sleep(AGAIN_S)
            except errors.ObjectLostError as error:
                lost += 1
                if lost > ANSWERS_LOST:
                    raise LostError(f"{lost} of its answers did not arrive: {first_line(error)}") from None
                time.sleep(AGAIN_S)
            except tuple(getattr(errors, name) for name in GONE) as error:
                raise LostError(_cause(error)) from None

    def train(self, job: Mapping[str, Any]) -> None:
        self.actor.train.remote(job)

    def kill(self) -> None:
        with contextlib.suppress(Exception):
            self.ray.kill(self.actor)


class TrainingActor(NodeWorker):
    """What runs in the worker's process."""

    def __init__(self) -> None:
        import ray

        super().__init__(lambda given: ray.get(given) if isinstance(given, ray.ObjectRef) else given)


def _cause(error: BaseException) -> str:
    """Why an actor is gone, of the paragraphs that Ray has for it."""
    words = str(error)
    for sign in ("exit detail:", "The actor died because of", "The actor is dead because"):
        if sign in words:
            return words.partition(sign)[2].strip().partition(". Some common causes")[0].splitlines()[0][:200]
    return first_line(error)
