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


class RayWorker:
    """A worker's process on some node, as the pool knows it."""

    def __init__(self, ray: Any, cpus: float, gpus: float, kind: type[NodeWorker] | None = None) -> None:
        """Ask for it; Ray starts it where and when there is room."""
        self.ray = ray
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "concurrency_groups": {LINK: 1}}
        self.actor = ray.remote(**options)(kind or TrainingActor).remote()
        self.actor.get_ready.remote()

    def poll(self, taken: int, refusal: tuple[int, str] | None) -> list[tuple[int, Message]]:
        """What it has to say; LostError if it is gone."""
        errors = self.ray.exceptions
        while True:
            try:
                asked = self.actor.poll.options(concurrency_group=LINK).remote(taken, refusal)
                return self.ray.get(asked)  # type: ignore[no-any-return]
            except errors.ActorUnavailableError:
                time.sleep(1.0)  # the network; whoever is gone is told apart by Ray in a while
            except (errors.RayActorError, errors.RuntimeEnvSetupError, errors.ActorUnschedulableError) as error:
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
