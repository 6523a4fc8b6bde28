"""What it takes to compare 1,000 runs: 50 variants x 20 seeds of 20 epochs, made by hand in a fresh SQLite store.

`make bench-comparing ROUNDS=5`: the whole command, `python -m pipeline compare`, of them as an experiment and as runs
that a filter finds, in seconds of processor and of the clock.
"""

import resource
import statistics
import sys
import tempfile

from benchmarks.common import OURS, publish, run, table

VARIANTS, SEEDS, EPOCHS = 50, 20, 20
CODE = """
import itertools, random, sys
from mlflow.entities import Metric, Param, RunTag
from pipeline.comparing.looks import Plan
from pipeline.config import RunConfig
from pipeline.mlflow_client.connection import connect
variants, seeds, epochs = map(int, sys.argv[1:])
client = connect()
experiment = client.create_experiment("many")
labels = [f"{number / 100:.2f}" for number in range(variants)]
units = [str(seed) for seed in range(seeds)]
plan = Plan.of(units, units, 1, variants - 1).as_text(look=seeds, metric="val_accuracy")
tags = {"question": "many", "mlflow.note.content": "Which dropout?", "plan": plan}
parent = client.create_run(experiment, run_name="many", tags=tags).info.run_id
client.log_param(parent, "baseline", labels[0])
draw = random.Random(0)
for label, seed in itertools.product(labels, units):
    run_id = client.create_run(experiment, run_name=f"{label} seed={seed}").info.run_id
    knobs = RunConfig(dropout=float(label), seed=int(seed), epochs=epochs, validation_size=10000).as_dict()
    tags = {"variant": label, "seed": seed, "experiment": "many", "code": "abc", "mlflow.parentRunId": parent}
    right = draw.gauss(0.982 - float(label) / 1000, 0.001)
    values = {"val_accuracy": right, "val_loss": 1 - right, "train_accuracy": right, "train_loss": 1 - right}
    values |= {"learning_rate": 0.001, "epoch_seconds": 2.0}
    metrics = [Metric(name, value, epoch, epoch) for epoch in range(1, epochs + 1) for name, value in values.items()]
    params = [Param(name, str(value)) for name, value in knobs.items()]
    client.log_batch(run_id, metrics, params, [RunTag(name, text) for name, text in tags.items()])
    client.set_terminated(run_id)
"""
WAYS = {"the experiment": ["many"], "a filter": ["--filter", "params.epochs = '20'"]}


def compared(words, folder, store):
    """Seconds (of processor, of the clock) of a `compare`; and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = run([OURS, "-m", "pipeline", "compare", *words], folder, MLFLOW_TRACKING_URI=store)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran, words
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ran[0], ran[1]


def main(rounds):
    """Measure and publish."""
    measured = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/mlflow.db"
        assert run([OURS, "-c", CODE, VARIANTS, SEEDS, EPOCHS], folder, MLFLOW_TRACKING_URI=store)
        for _ in range(rounds):
            for way, words in WAYS.items():
                measured[way].append(compared(words, folder, store))
    rows = []
    for way, each in measured.items():
        assert "(sd 0.11, n = 20)" in each[0][2], each[0][2]
        columns = [[one[place] for one in each] for place in (0, 1)]
        rows.append([way, *(f"{statistics.median(one):.1f} s ({min(one):.1f} to {max(one):.1f})" for one in columns)])
    runs = f"{VARIANTS * SEEDS:,} runs, found by"
    data = {"rounds": rounds, "seconds": {way: [one[:2] for one in each] for way, each in measured.items()}}
    publish("comparing", table([runs, "processor", "clock"], rows), data)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
