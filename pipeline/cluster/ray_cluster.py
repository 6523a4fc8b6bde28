"""Ray, started or joined here, as an experiment's engine. The only module of ours that speaks to Ray's core."""

import contextlib
import logging
import math
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster import address
from pipeline.cluster.address import Place
from pipeline.cluster.facts import difference, facts
from pipeline.cluster.link import Message
from pipeline.cluster.node import NodeWorker
from pipeline.cluster.pool import ClusterPool, LostError
from pipeline.cluster.staging import stage
from pipeline.data.dataset import Dataset
from pipeline.experiments.plan import Data, data_of
from pipeline.experiments.pool import THREADS
from pipeline.experiments.spec import Question
from pipeline.experiments.trial import Trial
from pipeline.recording.code_digest import code_digest
from pipeline.signals import SIGNALS
from pipeline.terminal.shell import UnreachableError, user_name
from pipeline.tracking.checkout import checkout
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.provenance import cores
from pipeline.tracking.uploader import Uploader

STORE_BYTES = 256 << 20  # of the object store, beside the data
NODE_PATIENCE_S = 120.0
CONTEXT = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
# Ray listens on all addresses of the machine by default; where it takes itself for a single machine's, on loopback.
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def installed() -> Any:
    """The module `ray`.

    Raises:
        ValueError: if it is not installed.
    """
    os.environ |= {name: value for name, value in QUIET.items() if name not in os.environ}
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise ValueError("--on ray needs Ray: make ray") from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


class RayCluster:
    """An experiment's engine: its workers are actors of Ray's, on whatever node has room.

    Attributes:
        flags: what a command that goes on with the experiment has to say of it.
    """

    def __init__(self, place: Place, cpus: float, gpus: float, checkpoint_every: float, insecure: bool) -> None:
        self.place, self.cpus, self.gpus = place, cpus, gpus
        self.checkpoint_every, self.insecure = checkpoint_every, insecure
        self.flags: dict[str, Any] = {"on": f"ray:{place.address}" if place.address else "ray"}
        self.flags |= {"cpus": f"{cpus:g}"} if cpus != 1 else {}
        self.flags |= {"gpus": f"{gpus:g}"} if gpus else {}
        self.ray: Any = None
        self.is_ours = False
        self.data: dict[Data, tuple[Any, str]] = {}

    def open(self, question: Question, sources: Mapping[Data, Dataset], jobs: int) -> None:
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
        own = sorted({path for config in question.variants.values() for path in config.own_code()})
        size = sum(each.inputs.nbytes for source in sources.values() for each in (source.train, source.test))
        try:
            with tempfile.TemporaryDirectory(prefix="pipeline-code-") as folder, _signals_kept():
                stage(Path(folder), own)
                self._connect(Path(folder), jobs, size)
            self.expected = facts()
            self._check_room()
            self._check_nodes()
            self._put(sources)
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and not isinstance(error, ValueError):
                raise ValueError(f"Ray: {_first_line(error)}") from None
            raise

    def _connect(self, code: Path, jobs: int, data_bytes: int) -> None:
        """Join the cluster that is given or found here; else start one that only this machine reaches."""
        found = self.place.address or os.environ.get("RAY_ADDRESS") or _address_of_one_here()
        if not found:
            os.environ |= ALONE
        self.ray = ray = installed()
        in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # the job has brought the code
        common: dict[str, Any] = {
            "runtime_env": {} if in_job else {"working_dir": str(code)},
            "log_to_driver": False,
            "logging_level": "ERROR",
            "configure_logging": False,
        }
        if found:
            place = Place("node", found)
            if not in_job:
                address.check_safe(place, self.insecure, _with_token(ray, self.place.address))
            try:
                ray.init(address=found, **common)
            except ConnectionError as error:
                raise ValueError(f"no Ray answers at {found} ({_first_line(error)}); give another --on") from None
            return
        self.is_ours = True
        ray.init(
            address="local",
            num_cpus=max(cores(), math.ceil(jobs * self.cpus)),
            object_store_memory=STORE_BYTES + 2 * data_bytes,
            include_dashboard=False,
            **common,
        )

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
        environment = {"mlflow_run_id": None, "experiment_id": os.environ.get(CONTEXT[0])}
        if name := os.environ.get(CONTEXT[1]):
            environment["experiment_name"] = name
        pool = ClusterPool(size, self._start, self._job, self.expected, uploader, parent, runs_dir, environment)
        pool.watch = self._watch
        return pool

    def _start(self) -> "RayWorker":
        threads = str(max(1, math.ceil(self.cpus)))
        return RayWorker(self.ray, self.cpus, self.gpus, dict.fromkeys(THREADS, threads))

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
            "code": checkout(),
            "code_digest": code_digest(trial.config.own_code()),
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
        raise UnreachableError(
            "the head of the Ray cluster is gone; what is done stays done; start the same command again"
        )

    def close(self) -> None:
        """Leave Ray, and end it if it was started here."""
        self.data.clear()
        if self.ray is not None:
            with contextlib.suppress(Exception):
                self.ray.shutdown()


class RayWorker:
    """A worker's process on some node, as the pool knows it."""

    def __init__(self, ray: Any, cpus: float, gpus: float, environment: Mapping[str, str]) -> None:
        self.ray = ray
        kind = ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=0,
            concurrency_groups={"link": 1},
            runtime_env={"env_vars": dict(environment)},
        )(_actor_class(ray))
        self.actor = kind.remote()
        self.actor.get_ready.remote()

    def poll(self, taken: int, refusal: tuple[int, str] | None) -> list[tuple[int, Message]]:
        while True:
            try:
                return self.ray.get(self.actor.poll.remote(taken, refusal))  # type: ignore[no-any-return]
            except self.ray.exceptions.ActorUnavailableError:
                time.sleep(1.0)  # the network; whoever is gone is told apart by Ray in a while
            except (self.ray.exceptions.RayActorError, self.ray.exceptions.RuntimeEnvSetupError) as error:
                raise LostError(_first_line(error)) from None

    def train(self, job: Mapping[str, Any]) -> None:
        self.actor.train.remote(job)

    def kill(self) -> None:
        with contextlib.suppress(Exception):
            self.ray.kill(self.actor)


def _actor_class(ray: Any) -> type[NodeWorker]:
    """The worker with a thread for polls of its own; here, so that what trains knows nothing of Ray."""

    class Actor(NodeWorker):
        def __init__(self) -> None:
            import ray

            super().__init__(lambda given: ray.get(given) if isinstance(given, ray.ObjectRef) else given)

        @ray.method(concurrency_group="link")
        def poll(self, taken: int, refusal: tuple[int, str] | None = None) -> list[tuple[int, Message]]:
            return super().poll(taken, refusal)

    return Actor


def _room_of(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    rooms = [resources.get(name, 0) / wanted for name, wanted in (("CPU", cpus), ("GPU", gpus)) if wanted]
    return int(min(rooms) + 1e-9)


def _address_of_one_here() -> str:
    """The address of a cluster that this machine is a node of, or nothing."""
    from ray._private import services  # no public function tells without starting one

    with contextlib.suppress(Exception):
        return services.canonicalize_bootstrap_address("auto") or ""
    return ""


def _with_token(ray: Any, given: str) -> dict[str, str]:
    """The environment, with what Ray itself decides for a cluster found here: a token, if this user has one."""
    if not given:
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    return dict(os.environ)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own on SIGTERM."""
    handlers = {each: signal.getsignal(each) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
