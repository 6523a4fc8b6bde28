"""Seconds per epoch and peak memory as the work grows. `make bench-scaling`."""

import functools
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import MNIST_DIR, OURS, ROOT, interleaved, publish, ratio_text, ratios, run, table

SWEEPS = {
    "hidden_units": [128, 256, 512, 1024, 2048, 4096],
    "batch_size": [32, 128, 512, 2048, 8192],
    "images": [60_000, 120_000, 300_000, 600_000, 1_200_000],
}
ROUNDS = {"images": 5}  # the others once: what is asked of them is where they bend, not by how many per cent


def one(knob, value):
    """Be the process that is measured; prints the median epoch, the first left out if it is short, and memory."""
    import resource

    from pipeline.config import RunConfig
    from pipeline.data.datamodule import DataModule, ExampleTensors
    from pipeline.data.dataset import Split
    from pipeline.training import fit

    class Repeated(DataModule):
        def setup(self, stage=None):
            super().setup(stage)
            train, times = self.source.train, value // 60_000
            self.train_examples = ExampleTensors(
                Split(np.tile(train.inputs, (times, 1, 1)), np.tile(train.labels, times)), self.source.spec
            )

    long = (knob == "images" and value > 300_000) or (knob == "hidden_units" and value > 1024)
    epochs = 1 if long else 3
    knobs = {} if knob == "images" else {knob: value}
    config = RunConfig(epochs=epochs, data_dir=str(MNIST_DIR), accelerator="cpu", **knobs)
    kind = Repeated if knob == "images" else DataModule
    data = kind(config.dataset, config.data_dir, config.batch_size, config.validation_size, config.seed)
    data.setup()
    history = fit.fit(config, data=data).history
    seconds = [metrics["epoch_seconds"] for epoch, metrics in history.items() if epoch > 1 or long]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"seconds": statistics.median(seconds), "memory_mb": memory}))


def measure(knob, value, memory):
    """The seconds per epoch of a process of its own; notes its memory."""
    with tempfile.TemporaryDirectory() as folder:
        done = run([OURS, Path(__file__), "--one", knob, value], folder, PYTHONPATH=str(ROOT))
    if done is None:
        return None
    measured = json.loads(done[1].splitlines()[-1])
    memory.setdefault(knob, {})[value] = measured["memory_mb"]
    return measured["seconds"]


def tell(results, memory):
    """The table, and how far from linear the time is in the number of images."""
    rows = []
    for knob, values in results.items():
        for value, seconds in values.items():
            if seconds:
                images = value if knob == "images" else 60_000
                median = statistics.median(seconds)
                spread = f"{min(seconds):.2f} to {max(seconds):.2f}" if len(seconds) > 1 else ""
                per_image = f"{median / images * 1e6:.1f}"
                rows.append([knob, f"{value:,}", f"{median:.2f}", spread, per_image, memory[knob][value]])
    header = ["knob", "value", "seconds per epoch", "lowest to highest", "microseconds per image", "peak memory, MB"]
    per_image = {size: [each / size for each in seconds] for size, seconds in results["images"].items()}
    least, *larger = per_image
    linear = [f"- {size:,} images: {ratio_text(ratios(per_image, size, least))}" for size in larger]
    title = f"Time per image, as a multiple of that of {least:,} images in the same round (lowest to highest):"
    return "\n".join([table(header, rows), "", title, "", *linear])


def main():
    """Measure and publish."""
    results, memory = {}, {}
    for knob, values in SWEEPS.items():
        contenders = {value: functools.partial(measure, knob, value, memory) for value in values}
        results[knob] = interleaved(contenders, ROUNDS.get(knob, 1))
    publish("scaling", tell(results, memory), {"seconds": results, "memory_mb": memory})


if __name__ == "__main__":
    if "--one" in sys.argv:
        one(sys.argv[2], int(sys.argv[3]))
    else:
        main()
