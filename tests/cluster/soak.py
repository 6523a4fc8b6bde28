"""Kill what an experiment on a cluster consists of, at random instants: `python -m tests.cluster.soak --n 20`.

workers: so many workers' processes; nodes: raylets, each followed by a new node; processes: the experiment's own, each
time started again; heads: the head with the experiment's process, each time a new cluster. All is on this machine.

The runs must end FINISHED and equal to those of an experiment on this machine that nothing happened to, no epoch may
have been trained twice beyond the one under way, and MLflow has every value once.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow

from pipeline.tracking.folders import all_folders, values_of
from tests.cluster.equal_runs import comparison, runs_of
from tests.cluster.ray_nodes import Nodes, kill
from tests.conftest import environment

KINDS = ("workers", "nodes", "processes", "heads")
QUESTION = """question: does dropout help on the digits?
shared: {{dataset: digits, epochs: {epochs}, validation_size: 200}}
variants:
  none: {{dropout: 0.0}}
  half: {{dropout: 0.5}}
seeds: {seeds}
baseline: none
"""


def start(folder, runs_dir, *more):
    log = (folder / f"{runs_dir}.log").open("ab")
    command = [sys.executable, "-m", "pipeline", "experiment", "soak.yaml", "--runs_dir", runs_dir, *more]
    store = f"sqlite:///{folder}/{runs_dir}.db"
    here = environment(MLFLOW_TRACKING_URI=store, OMP_NUM_THREADS="1")
    return subprocess.Popen(command, cwd=folder, env=here, stdout=log, stderr=log)


def epochs_done(runs_dir):
    return sum(len(values_of(folder.events()).get("train_loss", {})) for folder in all_folders(runs_dir))


def all_done(runs_dir, count):
    return sum(1 for each in all_folders(runs_dir) if each.ended()) > count


def disturb(kind, nodes, process, go):
    """One kill; returns the nodes and the process that are there afterwards."""
    if kind == "workers":
        if pids := nodes.workers():
            kill(random.choice(pids))
        return nodes, process, bool(pids)
    if kind == "nodes":
        nodes.kill_raylet()
        nodes.others.insert(0, nodes.add())
        return nodes, process, True
    if kind == "processes":
        kill(process.pid)
        process.wait()
    else:
        nodes.kill_head()
        process.wait()
        nodes.close()
        nodes = Nodes(3)
    return nodes, go(nodes), True


def problems_of(folder, runs_dir):
    """What is wrong with the runs."""
    wrong = []
    expected, found = runs_of(folder / "undisturbed"), runs_of(folder / runs_dir)
    if expected.keys() != found.keys():
        return [f"{len(found)} runs, expected {len(expected)}"]
    for which, (values, _, files, end) in expected.items():
        its_values, _, its_files, its_end = found[which]
        wrong += [f"{which}: ended {its_end}"] * (its_end != end) + [f"{which}: other values"] * (its_values != values)
        if files - its_files or its_files - files - {"artifacts/traceback.txt"}:
            wrong.append(f"{which}: other files {sorted(files ^ its_files)}")
    if comparison(folder / "undisturbed") != comparison(folder / runs_dir):
        wrong.append("another comparison")
    return wrong + retrained(folder / runs_dir) + doubled(folder, runs_dir)


def retrained(runs_dir):
    """Epochs that a resumption went back over, although their end was told: more than the one under way."""
    return [f"{name}: {lost} epochs trained again" for name, lost in resumptions(runs_dir) if lost > 1]


def resumptions(runs_dir):
    """For each resumption the run's folder, and how many epochs whose numbers stood were trained again."""
    found = []
    for folder in all_folders(runs_dir):
        done = 0
        for event in folder.events():
            if event["kind"] == "metrics" and "train_loss" in event["values"]:
                done = event["step"]
            if event["kind"] == "resume" and "resumed_after_epoch" in event["tags"]:
                found.append((folder.path.name, done - int(event["tags"]["resumed_after_epoch"])))
    return found


def doubled(folder, runs_dir):
    """Values that MLflow has more than once."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/{runs_dir}.db")
    experiment = client.get_experiment_by_name("soak").experiment_id
    wrong = []
    for run in client.search_runs([experiment], max_results=1000):
        if run.info.status != "FINISHED":
            wrong.append(f"MLflow has {run.info.run_id} as {run.info.status}")
        for name in run.data.metrics:
            steps = [each.step for each in client.get_metric_history(run.info.run_id, name)]
            wrong += [f"MLflow has {name} of {run.info.run_id} {len(steps)} times"] * (len(steps) != len(set(steps)))
    return wrong


def soak(kind, wanted, folder, seed):
    """Kill so many times, in as many experiments as that takes; returns (kills, experiments, problems)."""
    random.seed(f"{seed}-{kind}")
    kills, experiments, wrong = 0, 0, []
    nodes = Nodes(3)
    try:
        while kills < wanted:
            experiments += 1
            runs_dir = f"{kind}-{experiments}"
            go = lambda nodes, name=runs_dir: start(folder, name, "--on", f"ray:{nodes.address}", "--jobs", "3")  # noqa: E731
            process = go(nodes)
            while process.poll() is None:
                before, until = epochs_done(folder / runs_dir), time.monotonic() + 120
                while epochs_done(folder / runs_dir) == before and process.poll() is None and time.monotonic() < until:
                    time.sleep(0.1)
                time.sleep(random.uniform(0, 3))
                if process.poll() is None and kills < wanted and not all_done(folder / runs_dir, RUNS - 1):
                    nodes, process, killed = disturb(kind, nodes, process, go)
                    kills += killed
            if process.returncode:
                wrong.append(f"{runs_dir}: exit code {process.returncode}")
            synced = ["sync", "--runs_dir", runs_dir]
            subprocess.run(
                [sys.executable, "-m", "pipeline", *synced],
                cwd=folder,
                env=environment(MLFLOW_TRACKING_URI=f"sqlite:///{folder}/{runs_dir}.db"),
                capture_output=True,
            )
            wrong += problems_of(folder, runs_dir)
            lost = [lost for _, lost in resumptions(folder / runs_dir)]
            told = f"{len(lost)} resumptions in this one, {sum(lost)} recorded epochs trained again"
            print(
                f"{kind}: {kills} kills in {experiments} experiments, {told}, wrong: {wrong or 'nothing'}", flush=True
            )
    finally:
        nodes.close()
    return kills, experiments, wrong


SEEDS, EPOCHS = 6, 6
RUNS = 2 * SEEDS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-cluster-"))
    (folder / "soak.yaml").write_text(QUESTION.format(epochs=EPOCHS, seeds=SEEDS))
    assert start(folder, "undisturbed").wait() == 0, (folder / "undisturbed.log").read_text()
    results = {}
    for kind in options.kind or KINDS:
        began = time.monotonic()
        kills, experiments, wrong = soak(kind, options.n, folder, options.seed)
        results[kind] = wrong
        minutes = (time.monotonic() - began) / 60
        print(
            f"| {kind} | {kills} | {experiments * RUNS} runs | {wrong or 'nothing wrong'} | {minutes:.0f} min |",
            flush=True,
        )
    return 1 if any(results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
