"""Where the time of a training step goes, operator by operator. `make bench-step`.

Two cores that share a third-level cache give each other what they wrote quickly; a virtual machine's two cores may be
moved apart while it runs. A probe before each block of steps tells the two apart: an operation of a few microseconds on
both threads takes half as long again when they are apart.
"""

import contextlib
import os
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import publish, table
from pipeline.config import RunConfig
from pipeline.data_spec import MNIST
from pipeline.fast_cpu import gradients, process
from pipeline.training.building import make_classifier

SECONDS, STEPS, PROBES = 90, 40, 200
APART = 1.4  # times the quickest probe
SHOWN_US = 5


def probe(values=torch.rand(40_000)):  # noqa: B008
    """Microseconds of an operation that is little more than both threads' waiting for each other."""
    began = time.perf_counter()
    for _ in range(PROBES):
        values.relu_()
    return (time.perf_counter() - began) / PROBES * 1e6


@contextlib.contextmanager
def unheard():
    """torch's profiler writes two lines to the error output at each start and stop, past Python."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def block(step):
    """Operator -> microseconds per step; the whole step, undisturbed by the profiler, among them."""
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    times = {"the whole step": (time.perf_counter() - began) / STEPS * 1e6}
    with unheard(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step()
    return times | {event.key: event.self_cpu_time_total / STEPS for event in profiler.key_averages()}


def make_step():
    """A step of the sample's training: gradients and optimizer, on one batch of noise."""
    process.keep_memory()
    process.leave_memory_unfilled()
    process.set_matmul_precision("auto")
    config = RunConfig()
    classifier = make_classifier(config, MNIST)
    by_hand = gradients.derive(classifier.network.train(), config.batch_size, config.precision)
    optimizer = classifier.configure_optimizers()
    pixels, labels = torch.rand(config.batch_size, 784), torch.randint(0, 10, (config.batch_size,))

    def step():
        by_hand(pixels, labels)
        optimizer.step()

    return step


def main():
    """Measure and publish."""
    step = make_step()
    blocks, until = [], time.monotonic() + SECONDS
    while time.monotonic() < until:
        before = probe()
        times = block(step)
        blocks.append((min(before, probe()), times))
    together = APART * statistics.quantiles([each for each, _ in blocks], n=20)[0]
    phases = {"cores together": [], "cores apart": []}
    for waited, times in blocks:
        phases["cores apart" if waited > together else "cores together"].append(times)
    names = sorted({name for _, times in blocks for name in times}, key=lambda name: -blocks[0][1].get(name, 0))
    medians = {
        name: [statistics.median(times.get(name, 0) for times in each) if each else 0 for each in phases.values()]
        for name in names
    }
    rows = [[name, *(f"{us:,.0f}" for us in each)] for name, each in medians.items() if max(each) > SHOWN_US]
    header = ["microseconds per step", *(f"{name} ({len(each)} blocks)" for name, each in phases.items())]
    publish("step", table(header, rows), {"probe_us": [waited for waited, _ in blocks], "us_per_step": medians})


if __name__ == "__main__":
    main()
