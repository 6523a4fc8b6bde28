"""Many small runs: an experiment of 24 trainings of one epoch beside the script that people write for it.

`make bench-trials ROUNDS=5`
"""

import os
import shutil
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.common import OURS, ROOT, interleaved, publish, ratio_text, ratios, run, table
from pipeline.tracking.folders import all_folders, values_of

RUNS = 24
QUESTION = """
question: Does dropout help on a few digits?
shared: {dataset: digits, epochs: 1, validation_size: 300}
variants:
  "0": {dropout: 0.0}
  "0.2": {dropout: 0.2}
  "0.5": {dropout: 0.5}
baseline: "0.2"
seeds: [1, 2, 3, 4, 5, 6, 7, 8]
"""
PEER = ROOT / "benchmarks/peers/many_small_runs.py"
STORE = "sqlite:///mlflow.db"
ONE, TWO = "one job", "two jobs"
LAYOUT = f"import mlflow; mlflow.MlflowClient({STORE!r}, {STORE!r}).search_experiments()"
ADDED, DISK = [], {"ours": [], "peer": []}


def ours(jobs, template=None):
    """The wall clock of the whole command in a fresh folder; notes what each run added, and what all left."""

    def measure():
        with tempfile.TemporaryDirectory() as folder:
            _store_from(template, folder)
            (Path(folder) / "trials.yaml").write_text(QUESTION)
            command = [OURS, "-m", "pipeline", "experiment", "trials.yaml", "--jobs", jobs]
            if (done := run(command, folder, MLFLOW_TRACKING_URI=STORE)) is None:
                return None
            if jobs == 1:
                ADDED.append(statistics.median(added(Path(folder) / "runs")))
                DISK["ours"].append(megabytes(folder))
            return done[0]

    return measure


def peer(processes, template=None):
    """The wall clock of the script; of two at once, each with half of the runs and one thread, until both are over."""

    def measure():
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as pool:
            _store_from(template, folder)
            share = RUNS // processes
            threads = {} if processes == 1 else {"OMP_NUM_THREADS": "1"}  # else they get in each other's way
            halves = [[OURS, PEER, STORE, first, first + share] for first in range(0, RUNS, share)]
            done = list(pool.map(lambda half: run(half, folder, **threads), halves))
            if processes == 1 and done[0] is not None:
                DISK["peer"].append(megabytes(folder))
        return None if None in done else max(seconds for seconds, _ in done)

    return measure


def added(runs_dir):
    """What each run but the first took of the worker beside its epochs: from the end of the one before to its own."""
    events = [folder.events() for folder in all_folders(runs_dir)]
    runs = [each for each in events if each[0]["parent"] and each[-1]["kind"] == "end"]
    ends = [each[-1]["time"] / 1000 for each in runs]
    epochs = [sum(values_of(each)["epoch_seconds"].values()) for each in runs]
    return [end - before - own for before, end, own in zip(ends, ends[1:], epochs[1:], strict=False)]


def megabytes(folder):
    """What lies in the folder, each file once."""
    sizes = {}
    for where, _, names in os.walk(folder):
        for name in names:
            status = (Path(where) / name).lstat()
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values()) / 1e6


def _store_from(template, folder):
    if template:
        shutil.copy(Path(template) / "mlflow.db", folder)


def main(rounds):
    """Measure and publish."""
    with tempfile.TemporaryDirectory() as template:
        run([OURS, "-c", LAYOUT], template)  # two peers at once would collide in laying one out
        contenders = {
            f"{ONE}, this pipeline": ours(1),
            f"{ONE}, Lightning and MLFlowLogger": peer(1),
            f"{TWO}, this pipeline": ours(2, template),
            f"{TWO}, Lightning and MLFlowLogger": peer(2, template),
        }
        numbers = interleaved(contenders, rounds)
    names = list(contenders)
    rows = []
    for own, other in (names[:2], names[2:]):
        for name in (own, other):
            if numbers[name]:
                ratio = ratio_text(ratios(numbers, own, other)) if name == own else ""
                rows.append([name, f"{statistics.median(numbers[name]):.1f}", ratio])
    lines = [
        f"what a run adds to its epochs: {statistics.median(ADDED):.2f} s of the worker (median)" if ADDED else "",
        *(f"on the disk, {who}: {statistics.median(found):.0f} MB" for who, found in DISK.items() if found),
    ]
    text = table(["24 runs of one epoch", "seconds", "times the script (lowest to highest)"], rows)
    text += "\n\n" + "\n".join(f"- {line}" for line in lines if line)
    data = {"rounds": rounds, "seconds": numbers, "added_s": ADDED, "disk_mb": DISK}
    publish("trials", text, data)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
