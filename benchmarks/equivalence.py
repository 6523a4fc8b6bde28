"""12 seeds of the sample against 12 runs of Keras: are the test accuracies equivalent? `make bench-equivalence`.

Resumable: each seed's result is kept in benchmarks/results/equivalence_seeds.jsonl and not trained again, unless the
code that decides the numbers has changed since.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.common import MNIST_DIR, RESULTS, ROOT, publish, table
from pipeline.recording.code_digest import code_digest

MARGIN = 0.10  # percentage points
SEEDS = range(1, 13)
OWN = RESULTS / "equivalence_seeds.jsonl"
REFERENCE = Path(os.environ.get("KERAS_RUNS", ROOT.parent / "shared/reference/keras_20_epochs.jsonl"))


def read(path):
    """One JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def own_runs():
    """Our runs of the code as it is now."""
    return [run for run in read(OWN) if run["code"] == code_digest()]


def train_missing():
    """Train the seeds that are not there yet."""
    from pipeline.config import RunConfig
    from pipeline.training.fit import fit

    RESULTS.mkdir(exist_ok=True)
    runs = own_runs()
    OWN.write_text("".join(json.dumps(run) + "\n" for run in runs))
    done = {run["seed"] for run in runs}
    for seed in (seed for seed in SEEDS if seed not in done):
        result = fit(RunConfig(seed=seed, data_dir=str(MNIST_DIR), accelerator="cpu"))
        run = {
            "code": code_digest(),
            "seed": seed,
            "acc": result.test["test_accuracy"],
            "loss": result.test["test_loss"],
        }
        for ours, theirs in (("train_loss", "train_loss"), ("val_accuracy", "val_acc")):
            run[theirs] = [metrics[ours] for metrics in result.history.values()]
        with OWN.open("a") as file:
            file.write(json.dumps(run) + "\n")
        print(f"seed {seed}: {run['acc']:.4f}", flush=True)


def draw(own, keras, path):
    """Both sets of curves in one picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, name, title in zip(
        figure.subplots(1, 2), ("train_loss", "val_acc"), ("training loss", "test accuracy"), strict=True
    ):
        for runs, colour, label in ((keras, "tab:orange", "Keras on JAX"), (own, "tab:blue", "this pipeline")):
            curves = np.array([run[name] for run in runs])
            epochs = np.arange(1, curves.shape[1] + 1)
            axes.plot(epochs, curves.T, color=colour, alpha=0.2, linewidth=0.8)
            axes.plot(epochs, curves.mean(axis=0), color=colour, label=f"{label}, mean of {len(runs)}")
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[0].set_yscale("log")
    FigureCanvasAgg(figure).print_png(str(path))


def main():
    """Train, test, publish."""
    from scipy import stats

    if not (keras := read(REFERENCE)):
        sys.exit(f"left out: no Keras runs in {REFERENCE}; say where with KERAS_RUNS")
    train_missing()
    own = own_runs()
    ours, theirs = (np.array([100 * run["acc"] for run in runs]) for runs in (own, keras))
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.90)
    difference = ours.mean() - theirs.mean()
    lower = stats.ttest_ind(ours + MARGIN, theirs, equal_var=False, alternative="greater").pvalue
    upper = stats.ttest_ind(ours - MARGIN, theirs, equal_var=False, alternative="less").pvalue
    rows = []
    for name, values in (("this pipeline", ours), ("Keras on JAX", theirs)):
        own_interval = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        spread = f"{own_interval[0]:.3f} to {own_interval[1]:.3f}"
        rows.append([name, len(values), f"{values.mean():.3f}", f"{values.std(ddof=1):.3f}", spread])
    text = table(["", "n", "mean test accuracy, %", "standard deviation", "95 % confidence interval"], rows)
    equivalent = max(lower, upper) < 0.05
    text += (
        f"\n\nDifference of the means: {difference:+.3f} percentage points, 90 % confidence interval "
        f"{interval.low:+.3f} to {interval.high:+.3f}; two one-sided Welch tests against +-{MARGIN:.2f}: "
        f"p = {max(lower, upper):.2g}, {'equivalent' if equivalent else 'equivalence not shown'}."
    )
    draw(own, keras, RESULTS / "equivalence.png")
    data = {"difference": difference, "interval90": [interval.low, interval.high], "p": [lower, upper]}
    publish("equivalence", text, {**data, "ours": ours.tolist(), "keras": theirs.tolist()})


if __name__ == "__main__":
    main()
