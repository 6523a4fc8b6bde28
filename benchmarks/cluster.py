"""What Ray costs an experiment, and how much one experiment's process takes in. `make bench-cluster`, after `make ray`.

Pairs: the same runs on this machine and on a Ray started there, from the first run's beginning to the last one's end as
their own records have them. What comes before, the start of Ray and what its workers import, is told beside. Once one
at a time, which leaves a core of two to Ray's own processes; once two at a time, and there also without us: on this
machine, while a Ray that has nothing to do stands beside with two workers of its own.

Flood: 2,000 runs without training through the real pool, actors, journals: events a second, memory, bytes a run. Once
with numbers alone, once with a checkpoint each epoch, which the epoch waits for.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import MNIST_DIR, OURS, ROOT, interleaved, publish, quickest_ratio, ratio_text, ratios, table
from pipeline.cluster.connecting import ALONE
from pipeline.cluster.ray_worker import RayWorker, TrainingActor
from pipeline.tracking.folders import all_folders

ROUNDS, TRIALS, EPOCHS, WORKERS = 3, int(os.environ.get("TRIALS", "2000")), 20, 4
CHECKPOINTS = {"numbers alone": 0, "with a checkpoint of 100 KB an epoch": 100_000}
QUESTION = """question: what does Ray cost?
shared: {{epochs: {epochs}, validation_size: 10000}}
variants:
  none: {{dropout: 0.0}}
  half: {{dropout: 0.5}}
seeds: {seeds}
baseline: none
"""
BESIDE = "local beside an idle Ray, 2 at a time"
IDLE_RAY = """
import time
import ray
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
class Worker:
    def ping(self):
        pass
workers = [ray.remote(Worker).remote() for _ in range(2)]
ray.get([worker.ping.remote() for worker in workers])
print("idle", flush=True)
time.sleep(3600)
"""


def beside_an_idle_ray(measure):
    """What `measure` gives while a Ray without work stands beside."""
    variables = {**os.environ, **ALONE}  # as the one that an experiment starts
    process = subprocess.Popen([OURS, "-c", IDLE_RAY], env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        process.stdout.readline()
        return measure()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def timed(on, epochs, starts, jobs=2):
    """Seconds from the first run's beginning to the last one's end; notes how long it took to get there."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cost.yaml").write_text(QUESTION.format(epochs=epochs, seeds=list(range(1, jobs + 1))))
        command = [OURS, "-m", "pipeline", "experiment", "cost.yaml", "--jobs", str(jobs), "--on", on]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "MNIST_DIR": str(MNIST_DIR), "RAY_ADDRESS": "local"}
        began = time.time()
        done = subprocess.run(command, cwd=folder, env=variables, stdout=subprocess.DEVNULL)
        events = [each.events() for each in all_folders(Path(folder) / "runs")]
        runs = [each for each in events if "seed" in each[0]["tags"]]  # not the question's own
        if done.returncode or len(runs) != 2 * jobs:
            return None
        first, last = min(each[0]["time"] for each in runs) / 1000, max(each[-1]["time"] for each in runs) / 1000
    starts.setdefault(f"{on}, {jobs} at a time", []).append(first - began)
    return last - first


class NoTraining(TrainingActor):
    """A worker whose runs are only recorded."""

    def _train_recorded(self, job, run):
        self.folder, self.every_s = run.folder, job["checkpoint_every"]
        run.start("flood", {"epochs": EPOCHS}, job["tags"], parent=job["parent"])
        run.folder.checkpoints.mkdir()
        for epoch in range(1, EPOCHS + 1):
            if job["checkpoint"]:
                (run.folder.checkpoints / f"epoch-{epoch:04d}.ckpt").write_bytes(b"x" * job["checkpoint"])
            names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "epoch_seconds")
            run.metrics(dict.fromkeys(names, 1 / epoch), epoch)
            self._report(epoch, {"epoch_seconds": 0.0, "val_accuracy": 0.5})


def flood(workers, checkpoint=0):
    """2,000 runs through a pool, with checkpoints of so many bytes; returns what was measured, by its name."""
    import ray

    from pipeline.cluster.facts import facts
    from pipeline.cluster.pool import ClusterPool
    from pipeline.config import RunConfig
    from pipeline.experiments.trial import Trial
    from pipeline.tracking.journal import RunFolder
    from pipeline.tracking.uploader import Uploader

    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, object_store_memory=256 << 20)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        parent = RunFolder(runs / "parent")
        parent.path.mkdir(parents=True)
        trials = [Trial("none", seed, RunConfig(seed=seed), {"seed": str(seed)}) for seed in range(TRIALS)]

        def job_of(trial, files):
            about = {"name": trial.folder.path.name, "files": {}, "config": {}, "checkpoint_every": 0.0}
            return {**about, "tags": trial.tags, "checkpoint": checkpoint}

        nobody = Uploader(parent, os.open(os.devnull, os.O_WRONLY))
        kind = lambda: RayWorker(ray, 1, 0, NoTraining)  # noqa: E731
        pool = ClusterPool(workers, kind, job_of, facts(), nobody, parent, runs, {})
        moments, busy = [], time.process_time()
        with pool:
            pool.run(trials, lambda trial: moments.append(time.perf_counter()))
        seconds, busy = moments[-1] - moments[0], time.process_time() - busy
        folders = all_folders(runs)
        counts = [len(each.events()) for each in folders]
        size = sum(path.stat().st_size for each in folders for path in each.path.rglob("*") if path.is_file())
        whole = sum(
            count == EPOCHS + 2 and each.ended() is not None for count, each in zip(counts, folders, strict=True)
        )
    ray.shutdown()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "runs, of them whole": f"{len(folders):,}, {whole:,}",
        "events": f"{sum(counts):,}",
        "seconds": f"{seconds:.0f}",
        "events a second": f"{sum(counts) / seconds:.0f}",
        "runs a second": f"{len(folders) / seconds:.1f}",
        "processor time of the experiment's process an event, ms": f"{1000 * busy / sum(counts):.2f}",
        "most memory of the experiment's process, MB": f"{memory:.0f}",
        "bytes of a run's folder": f"{size / len(folders):,.0f}",
    }


def main():
    """Measure and publish."""
    rounds, epochs = (int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS), int(os.environ.get("EPOCHS", "8"))
    floods = {words: flood(WORKERS, checkpoint) for words, checkpoint in CHECKPOINTS.items()}
    rows = [[name, *(each[name] for each in floods.values())] for name in next(iter(floods.values()))]
    print(table(["flood", *floods], rows), flush=True)
    starts = {}
    pairs = {f"{on}, {jobs} at a time": (on, jobs) for jobs in (1, 2) for on in ("local", "ray")}
    contenders = {name: lambda on=on, jobs=jobs: timed(on, epochs, starts, jobs) for name, (on, jobs) in pairs.items()}
    contenders[BESIDE] = lambda: beside_an_idle_ray(lambda: timed("local", epochs, {}))
    seconds = interleaved(contenders, rounds)
    bases = {name: f"local, {name.partition(', ')[2]}" for name in seconds if not name.startswith("local, ")}
    told = [
        [
            name,
            f"{min(each):.1f} to {max(each):.1f}",
            ratio_text(ratios(seconds, name, bases[name])) if name in bases else "",
            quickest_ratio(seconds, name, bases[name]) if name in bases else "",
            f"{min(starts[name]):.1f} to {max(starts[name]):.1f}" if name in starts else "",
        ]
        for name, each in seconds.items()
    ]
    heads = [
        f"runs of {epochs} epochs, two a place",
        "seconds",
        "times local",
        "of the quickest",
        "seconds before",
    ]
    flooded = table([f"2,000 runs of no training, {EPOCHS} epochs each, {WORKERS} workers", *floods], rows)
    text = "\n".join([table(heads, told), "", flooded])
    publish("cluster", text, {"seconds": seconds, "starts": starts, "flood": floods})


if __name__ == "__main__":
    main()
