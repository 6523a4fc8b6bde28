"""Ray, started or joined here, as an experiment's engine."""

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster import address
from pipeline.cluster.address import Place, flags_of
from pipeline.cluster.connecting import Epitaph, connect, first_line
from pipeline.cluster.facts import difference, facts
from pipeline.cluster.pool import ClusterPool
from pipeline.cluster.ray_worker import RayWorker
from pipeline.cluster.staging import stage
from pipeline.data.dataset import Dataset
from pipeline.experiments.engine import bytes_of
from pipeline.experiments.pool import THREADS
from pipeline.experiments.question import Question
from pipeline.experiments.trial import Data, Trial, data_of
from pipeline.machine import cores_here
from pipeline.terminal.shell import UnreachableError, user_name
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.uploader import Uploader

STORE_BYTES = 256 << 20  # of the object store, beside the data
NODE_PATIENCE_S = 120.0
GO_ON = "what is done stays done; start the same command again"
GONE = f"pipeline: this process ended without a word (killed, or the Ray node that it is on died); {GO_ON}"


class RayCluster:
    """An experiment's engine: its workers are actors of Ray's, on whatever node has room.

    Attributes:
        flags: what a command that goes on with the experiment has to say of it.
    """

    def __init__(self, place: Place, cpus: float, gpus: float, checkpoint_every: float, insecure: bool) -> None:
        self.place, self.cpus, self.gpus = place, cpus, gpus
        self.checkpoint_every, self.insecure = checkpoint_every, insecure
        self.flags: dict[str, Any] = {"on": f"ray:{place.address}" if place.address else "ray"}
        asked = {"cpus": cpus, "gpus": gpus, "checkpoint_every": checkpoint_every, "insecure": insecure}
        self.flags |= flags_of(asked)
        self.ray: Any = None
        self.is_ours = False
        self.epitaph: Epitaph | None = None
        self.data: dict[Data, tuple[Any, str]] = {}

    def prepare(self) -> None:
        """Nothing: nodes import by themselves."""

    def open(self, question: Question, sources: Mapping[Data, Dataset], jobs: int) -> AbstractContextManager[object]:
        """Start or join Ray, send the code and the data there, and look whether it fits.

        Args:
            question: whose runs are to be trained.
            sources: the data of each.
            jobs: runs at a time; 0: as many as there is room for.

        Raises:
            ValueError: in one line; nothing is left behind.
        """
        if self.place.address:
            address.check_safe(self.place, self.insecure)
            address.check_answers(self.place)
        store = STORE_BYTES + 2 * sum(map(bytes_of, sources.values()))
        self.expected = facts()
        try:
            with tempfile.TemporaryDirectory(prefix="pipeline-code-") as folder:
                stage(Path(folder), question.own_code())
                room = max(cores_here(), math.ceil(jobs * self.cpus))
                threads = dict.fromkeys(THREADS, str(max(1, math.ceil(self.cpus))))
                self.ray, self.is_ours = connect(
                    self.place, self.insecure, Path(folder), threads, num_cpus=room, object_store_memory=store
                )
            self._check_room()
            self._check_nodes()
            self._put(sources)
            self.epitaph = Epitaph(GONE)
            return contextlib.closing(self)
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and not isinstance(error, ValueError):
                raise ValueError(f"Ray: {first_line(error)}") from None
            raise

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def room(self) -> int:
        """How many runs the nodes that are there can take at a time, others' work left out of account."""
        return sum(_room_of(node["Resources"], self.cpus, self.gpus) for node in self._nodes())

    def _check_room(self) -> None:
        if self.room():
            return
        nodes = self._nodes()
        largest = {name: max(node["Resources"].get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
        raise ValueError(
            f"no node can ever give a run {self.cpus:g} CPUs and {self.gpus:g} GPUs: of {len(nodes)} nodes the largest "
            f"has {largest['CPU']:g} CPUs, {largest['GPU']:g} GPUs; ask for less with --cpus and --gpus, or add nodes"
        )

    def _check_nodes(self) -> None:
        """Make sure that all nodes have what this process has; one of our own starting has."""
        if self.is_ours:
            return
        strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        ask = self.ray.remote(num_cpus=0, max_retries=0)(facts)
        asked = {
            node["NodeManagerAddress"]: ask.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote()
            for node in self._nodes()
        }
        for node, reference in asked.items():
            if words := difference(node, self.ray.get(reference, timeout=NODE_PATIENCE_S), self.expected):
                raise ValueError(words)

    def _put(self, sources: Mapping[Data, Dataset]) -> None:
        """Put the data where every node reads them; without the digest, which each is to find by itself."""
        for data, source in sources.items():
            digest = source.digest
            vars(source).pop("digest")
            try:
                self.data[data] = self.ray.put(source), digest
            except self.ray.exceptions.ObjectStoreFullError:
                raise ValueError(
                    f"Ray's object store is full: {source.name} does not fit; start Ray with more "
                    "(ray start --object-store-memory BYTES)"
                ) from None

    def size(self, jobs: int) -> int:
        return jobs or self.room()

    def pool(self, size: int, uploader: Uploader, parent: RunFolder, runs_dir: Path) -> ClusterPool:
        """The workers for the experiment's runs."""
        environment = {"mlflow_run_id": None, "experiment_id": os.environ.get("MLFLOW_EXPERIMENT_ID")}
        if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
            environment["experiment_name"] = name
        pool = ClusterPool(size, self._start, self._job, self.expected, uploader, parent, runs_dir, environment)
        pool.watch = self._watch
        return pool

    def _start(self) -> RayWorker:
        return RayWorker(self.ray, self.cpus, self.gpus)

    def _job(self, trial: Trial, files: Mapping[str, Path]) -> dict[str, Any]:
        """What a node needs to train a trial; big things as references into the object store."""
        data, digest = self.data[data_of(trial.config)]
        from_here = {"mlflow.user": user_name(), "host": os.uname().nodename}
        assert trial.folder is not None
        return {
            "config": trial.config.as_dict(),
            "resume": bool(files),
            "tags": {**trial.tags, **from_here},
            "name": trial.folder.path.name,
            "files": {name: self._put_file(path) for name, path in files.items()},
            "data": data,
            "digest": digest,
            "code": trial.code,
            "checkpoint_every": self.checkpoint_every,
        }

    def _put_file(self, path: Path) -> Any:
        return self.ray.put(np.fromfile(path, np.uint8))

    def _watch(self) -> None:
        """Notice that the head is gone, before Ray gives up on it and takes this process along."""
        host, _, port = self.ray.get_runtime_context().gcs_address.rpartition(":")
        for _ in range(3):
            try:
                address.check_answers(Place("node", f"{host}:{port}"), 2.0)
            except ValueError:
                time.sleep(1.0)
            else:
                return
        raise UnreachableError(f"the head of the Ray cluster does not answer; {GO_ON}")

    def close(self) -> None:
        """Leave Ray, and end it if it was started here."""
        self.data.clear()
        if self.epitaph:
            self.epitaph.withdraw()
        if self.ray is not None:
            with contextlib.suppress(Exception):
                self.ray.shutdown()


def _room_of(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    rooms = [resources.get(name, 0) / wanted for name, wanted in (("CPU", cpus), ("GPU", gpus)) if wanted]
    return int(min(rooms) + 1e-9)
