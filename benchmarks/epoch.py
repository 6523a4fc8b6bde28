"""Seconds per epoch, training and evaluation: this pipeline, its peers, and the floor. `make bench-epoch ROUNDS=5`."""

import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.common import OURS, PEERS, ROOT, interleaved, publish, ratio_text, ratios, run, table
from pipeline.tracking.folders import all_folders, values_of

HERE = ROOT / "benchmarks"
EPOCHS = 12  # in the first, MLflow is imported beside the training and a new store laid out: see benchmarks/run.py


def ours(epochs, *knobs):
    """The median epoch of a whole tracked and registered command, the first left out as for every contender."""

    def measure():
        with tempfile.TemporaryDirectory() as folder:
            command = [OURS, "-m", "pipeline", "train", "--epochs", epochs, "--accelerator", "cpu", *knobs]
            if run(command, folder) is None:
                return None
            (record,) = all_folders(Path(folder) / "runs")
            seconds = values_of(record.events())["epoch_seconds"]
            return statistics.median([seconds[epoch] for epoch in range(2, epochs + 1)])

    return measure


def script(python, path, epochs, **variables):
    """The median epoch that a script prints, the first left out."""

    def measure():
        with tempfile.TemporaryDirectory() as folder:
            done = run([python, HERE / path, epochs], folder, **variables)
        return None if done is None else statistics.median(json.loads(done[1].splitlines()[-1])["epoch_seconds"][1:])

    return measure


def floor():
    """The floor's median epoch."""
    done = run([OURS, HERE / "floor.py"], ROOT)
    return None if done is None else json.loads(done[1])["seconds"]


CONTENDERS = {
    "floor (matrix products)": floor,
    "this pipeline": ours(EPOCHS),
    "Keras on JAX": script(PEERS, "peers/keras_sample.py", EPOCHS, KERAS_BACKEND="jax"),
    "this pipeline, bf16-mixed": ours(EPOCHS, "--precision", "bf16-mixed"),
    "Keras on TensorFlow": script(
        PEERS, "peers/keras_sample.py", 3, KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3"
    ),
    "plain Lightning script": script(OURS, "peers/plain_lightning.py", 2),
}


def main(rounds):
    """Measure and publish."""
    numbers = interleaved(CONTENDERS, rounds)
    rows = []
    for name, values in numbers.items():
        if values:
            versus = [ratio_text(ratios(numbers, name, base)) for base in ("floor (matrix products)", "Keras on JAX")]
            rows.append([name, f"{statistics.median(values):.3f}", *versus])
    header = ["", "seconds per epoch", "times the floor (lowest to highest)", "times Keras on JAX"]
    publish("epoch", table(header, rows), {"rounds": rounds, "seconds": numbers})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
