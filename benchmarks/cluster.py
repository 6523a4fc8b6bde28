"""What Ray costs an experiment, and how much one experiment's process takes in. `make bench-cluster`, after `make ray`.

Pairs: the same runs on this machine and on a Ray started there, from the first run's beginning to the last one's end as
their own records have them. What comes before, the start of Ray and what its workers import, is told beside.

Flood: 2,000 runs without training through the real pool, actors, journals: events a second, memory, bytes a run. Once
with numbers alone, once with a checkpoint each epoch, which the epoch waits for.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import MNIST_DIR, OURS, ROOT, interleaved, publish, quickest_ratio, ratio_text, ratios, table
from pipeline.cluster.ray_worker import RayWorker, TrainingActor
from pipeline.tracking.folders import all_folders

ROUNDS, TRIALS, EPOCHS, WORKERS = 3, int(os.environ.get("TRIALS", "2000")), 20, 4
CHECKPOINTS = {"numbers alone": 0, "with a checkpoint of 100 KB an epoch": 100_000}
QUESTION = """question: what does Ray cost?
shared: {{epochs: {epochs}, validation_size: 10000}}
variants:
  none: {{dropout: 0.0}}
  half: {{dropout: 0.5}}
seeds: [1, 2]
baseline: none
"""
RUNS = 4


def timed(on, epochs, starts):
    """Seconds from the first run's beginning to the last one's end; notes how long it took to get there."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cost.yaml").write_text(QUESTION.format(epochs=epochs))
        command = [OURS, "-m", "pipeline", "experiment", "cost.yaml", "--jobs", "2", "--on", on]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "MNIST_DIR": str(MNIST_DIR), "RAY_ADDRESS": "local"}
        began = time.time()
        done = subprocess.run(command, cwd=folder, env=variables, stdout=subprocess.DEVNULL)
        events = [each.events() for each in all_folders(Path(folder) / "runs")]
        runs = [each for each in events if "seed" in each[0]["tags"]]  # not the question's own
        if done.returncode or len(runs) != RUNS:
            return None
        first, last = min(each[0]["time"] for each in runs) / 1000, max(each[-1]["time"] for each in runs) / 1000
    starts.setdefault(on, []).append(first - began)
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
    contenders = {on: lambda on=on: timed(on, epochs, starts) for on in ("local", "ray")}
    seconds = interleaved(contenders, rounds)
    ratio = ratio_text(ratios(seconds, "ray", "local"))
    told = [[on, *(f"{min(each[on]):.1f} to {max(each[on]):.1f}" for each in (seconds, starts))] for on in seconds]
    text = "\n".join(
        [
            table(["--on", f"seconds of {RUNS} runs, 2 at a time", "seconds before the first"], told),
            f"\nRay's as a multiple of this machine's own in the same round: {ratio}; of the quickest of each: "
            f"{quickest_ratio(seconds, 'ray', 'local')}\n",
            table([f"2,000 runs of no training, {EPOCHS} epochs each, {WORKERS} workers", *floods], rows),
        ]
    )
    publish("cluster", text, {"seconds": seconds, "starts": starts, "flood": floods})


if __name__ == "__main__":
    main()
