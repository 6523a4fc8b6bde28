"""Does delivery keep up: light runs of no training, recorded as fast as may be, and when MLflow has all of them.

`make bench-keeping-up RUNS=1000`, or `python -m benchmarks.keeping_up RUNS SECONDS_EACH network`: one begins each so
many seconds at most, and has a network of 16 units.
"""

import json
import statistics
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from benchmarks.common import OURS, ROOT, publish, run, table

RUNS = 1000
CODE = """
import json, sys, time
from pathlib import Path
import torch
from pipeline.config import RunConfig
from pipeline.data import datasets
from pipeline.data_spec import MNIST
from pipeline.networks.mlp import MLP
from pipeline.recording.description import dataset_inputs
from pipeline.tracking.folders import new_folder
from pipeline.tracking.journal import Journal
from pipeline.tracking.run import Run
from pipeline.tracking.uploader import Uploader, UploaderProcess
from pipeline.training.onnx_export import export_onnx
import numpy as np
runs, seconds_each, with_network = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "True"
inputs = dataset_inputs(datasets.load("digits", "."), 300)
probabilities = np.random.default_rng(0).random((360, 10), dtype=np.float32)
export_onnx(MLP(MNIST, 16), MNIST, Path("network.onnx"))
network = Path("network.onnx").read_bytes()
def begin(journal, uploader, **about):
    run = Run(journal, uploader)
    params = RunConfig(dataset="digits", **about).as_dict()
    tags = {"mlflow.runName": f"seed={about['seed']}"}
    run.start("keeping up", params, tags, parent=parent, datasets=inputs)
    return run
parent = ""
folder = new_folder("runs")
journal = Journal(folder)
uploader = UploaderProcess(folder)
everything = begin(journal, uploader, seed=0)
parent, began = folder.path.name, time.perf_counter()
for seed in range(1, runs + 1):
    due = began + seed * seconds_each
    one = Journal(new_folder("runs"))
    with begin(one, Uploader(one.folder, uploader.descriptor), seed=seed) as run:
        run.provenance()
        run.text_artifact("config.yaml", "dataset: digits\\n")
        run.metrics({"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5}, 1)
        run.metrics({"test_loss": 1.0, "test_accuracy": 0.5}, 1)
        if with_network:
            model = one.folder.path / "model"
            model.mkdir()
            (model / "network.onnx").write_bytes(network)
            np.save(model / "example.npy", np.zeros((2, 28, 28), np.uint8))
            run.model(model / "network.onnx", model / "example.npy", "", {"dataset": "digits"}, "50 %", MNIST.as_json())
        run.describe("50 % on 360 test images")
        np.savez_compressed(one.folder.artifacts / "predictions.npz", probabilities=probabilities)
        run.artifact(one.folder.artifacts / "predictions.npz")
    one.close()
    time.sleep(max(0.0, due - time.perf_counter()))
took = time.perf_counter() - began
print(json.dumps({"uploader": uploader._process.pid, "took": took}), flush=True)
everything.end("FINISHED")
delivered = uploader.wait()
print(json.dumps({"delivered": delivered, "after": time.perf_counter() - began - took}), flush=True)
"""


def memory_of_uploaders(found, done):
    """Each second, the resident memory of whatever delivers, in MB."""
    while not done.wait(1.0):
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                if b"pipeline.delivery.upload_loop" in (status.parent / "cmdline").read_bytes():
                    size = int(status.read_text().split("VmRSS:")[1].split()[0]) / 1024
                    found.setdefault(status.parent.name, []).append(size)
            except (OSError, IndexError, ValueError):
                continue


def main(runs, seconds_each, with_network):
    """Measure and publish."""
    memory, done = {}, threading.Event()
    watcher = threading.Thread(target=memory_of_uploaders, args=(memory, done))
    with tempfile.TemporaryDirectory(dir=ROOT / "benchmarks") as folder:  # /tmp may be memory
        watcher.start()
        try:
            ran = run([OURS, "-c", CODE, runs, seconds_each, with_network], folder, OMP_NUM_THREADS="1")
        finally:
            done.set()
            watcher.join()
        sizes = [
            sum(path.stat().st_size for path in Path(folder).glob(f"{each}/**/*") if path.is_file())
            for each in ("runs", "mlruns")
        ]
    if ran is None:
        return
    first, last = (json.loads(line) for line in ran[1].splitlines())
    samples = memory[str(first["uploader"])]
    quarters = [statistics.median(part) for part in np.array_split(samples, 4)]
    rows = [
        ["all runs recorded", f"{first['took']:.1f} s"],
        ["MLflow has all of them after the last", f"{last['after']:.1f} s"],
        ["of the time that they took", f"{last['after'] / first['took']:.1%}"],
        ["uploader's memory in each quarter", ", ".join(f"{each:.0f}" for each in quarters) + " MB"],
        ["a run's folder, and in MLflow", ", ".join(f"{size / runs / 1e6:.2f}" for size in sizes) + " MB"],
    ]
    text = table(
        [
            f"{runs:,} runs{', a network each' * with_network}",
            "delivered" if last["delivered"] else "NOT ALL DELIVERED",
        ],
        rows,
    )
    publish("keeping_up", text, {"runs": runs, "seconds_each": seconds_each, **first, **last, "memory_mb": samples})


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    main(int(given.get(1, RUNS)), float(given.get(2, 0.0)), given.get(3) == "network")
