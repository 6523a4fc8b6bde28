"""Seconds per epoch of a CNN: the pipeline, whole and recorded, beside a bare torch loop. `make bench-cnn ROUNDS=5`."""

import statistics
import sys

from benchmarks.common import OURS, interleaved, publish, ratio_text, ratios, table
from benchmarks.epoch import ours, script

EPOCHS = 3  # the first is left out
CONTENDERS = {
    "bare torch loop": script(OURS, "peers/torch_cnn.py", EPOCHS),
    "this pipeline": ours(EPOCHS, "--network", "cnn", "--optimizer", "adam"),
}


def main(rounds):
    """Measure and publish."""
    numbers = interleaved(CONTENDERS, rounds)
    rows = [
        [name, f"{statistics.median(values):.2f}", ratio_text(ratios(numbers, name, "bare torch loop"))]
        for name, values in numbers.items()
    ]
    header = ["the CNN of Keras' mnist_convnet", "seconds per epoch", "times the bare loop (lowest to highest)"]
    publish("cnn", table(header, rows), {"rounds": rounds, "seconds": numbers})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
