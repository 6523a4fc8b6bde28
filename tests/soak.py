"""Random faults for as long as you like: `make soak N=100`. Every case prints its seed; `--case K` replays one.

kills:   N times kill -9 at a random instant (half the time the uploader with it), resumed until finished.
outages: N/2 schedules of an `mlflow server` that is killed, frozen or returns at random instants while a run trains.
proxies: N/2 schedules of a proxy before a server that answers 401, 403, 404 or 429 in its place, loses answers of what
         was done, cuts connections or keeps silent, in bursts at random instants; half of the runs are killed too.

Each final record must be bit-identical to that of a run that nothing happened to, and each file in MLflow to its own.
"""

import argparse
import collections
import os
import platform
import random
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow

from pipeline.tracking.folders import all_folders
from tests import faults
from tests.conftest import MNIST_DIR, ROOT
from tests.proxy import FAULTS, Proxy

EPOCHS = 6
KINDS = ("kills", "outages", "proxies")
light = False
SUMMARY = ROOT / "tests/soak_summary.md"
HEADER = "| faults | how many | runs | records that differ | how |\n| --- | --- | --- | --- | --- |"


def knobs():
    """A run that takes about ten seconds: MNIST where it lies, else the digits."""
    data = ["--data_dir", MNIST_DIR] if MNIST_DIR.exists() else ["--dataset", "digits"]
    common = ["--epochs", EPOCHS, "--hidden_units", 64, "--accelerator", "cpu", "--runs_dir", "runs"]
    return [*data, *common, "--record", "light" if light else "full"]


def undisturbed(cwd):
    """The full record of a run that nothing happens to, and how long it took."""
    began = time.monotonic()
    training = faults.start_pipeline("train", *knobs(), cwd=cwd)
    assert training.wait() == 0, (cwd / "output").read_text()
    return faults.full_record(f"sqlite:///{cwd}/mlflow.db", cwd), time.monotonic() - began


def kill_case(cwd, chance, reference, seconds, kills):
    """Kill the run `kills` times at random instants, resume it until it is finished; returns what is wrong."""
    while True:
        folders = [folder for folder in all_folders(cwd / "runs") if folder.started()]
        if any((folder.ended() or {}).get("status") == "FINISHED" for folder in folders):
            break
        again = ["train", "--resume", "last", "--runs_dir", "runs"] if folders else ["train", *knobs()]
        training = faults.start_pipeline(*again, cwd=cwd)
        if kills > 0:
            time.sleep(chance.uniform(0, seconds))
            training.kill()
            if chance.random() < 0.5:
                faults.kill_all_of(cwd)
            kills -= 1
        training.wait()
    synced = faults.start_pipeline("sync", cwd=cwd)
    assert synced.wait() == 0, (cwd / "output").read_text()
    uri = f"sqlite:///{cwd}/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("mnist-mlp").experiment_id])
    wrong = [f"{run.info.run_id} {run.info.status}" for run in runs if run.info.status != "FINISHED"]
    return wrong + faults.differences(reference, faults.full_record(uri, cwd)) + faults.other_artifacts(uri, cwd)


def outage_case(cwd, chance, reference, seconds):
    """Let the server come and go while a run trains; returns what is wrong."""
    server = faults.Server(cwd / "server")
    try:
        if chance.random() < 0.7:
            server.start()
        here = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
        training = faults.start_pipeline("train", *knobs(), cwd=cwd, **here)
        until = time.monotonic() + seconds
        while training.poll() is None and time.monotonic() < until:
            time.sleep(chance.uniform(0, seconds / 3))
            disturb(server, chance)
        code = training.wait()
        if server.process is None:
            server.start()
        server.signal(signal.SIGCONT)
        synced = faults.start_pipeline("sync", cwd=cwd, MLFLOW_TRACKING_URI=server.uri)  # patient again
        wrong = [f"exit code {code}"] * (code != 0) + [f"sync exit code {synced.wait()}"] * (synced.wait() != 0)
        found = faults.differences(reference, faults.full_record(server.uri, cwd))
        return wrong + found + faults.other_artifacts(server.uri, cwd)
    finally:
        server.kill()


def proxy_case(cwd, chance, reference, seconds):
    """Train while a proxy answers in the server's place in bursts; returns what is wrong afterwards."""
    server = faults.Server(cwd / "server").start()
    proxy = Proxy(server.uri)
    here = {"MLFLOW_TRACKING_URI": proxy.uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
    try:
        again = ["train", *knobs()]
        training = faults.start_pipeline(*again, cwd=cwd, **here)
        killed_at = time.monotonic() + chance.uniform(0, seconds) if chance.random() < 0.5 else float("inf")
        while training.poll() is None:
            burst(proxy, chance, seconds)
            if time.monotonic() > killed_at and faults.epochs_recorded(cwd):
                killed_at = float("inf")
                training.kill()
                training.wait()
                again = ["train", "--resume", "last", "--runs_dir", "runs"]
                if (faults.only_folder(cwd).ended() or {}).get("status") == "FINISHED":  # it only awaited its delivery
                    again = ["sync"]
                training = faults.start_pipeline(*again, cwd=cwd, **here)
        proxy.clear()
        code = training.wait()
        synced = faults.start_pipeline("sync", cwd=cwd, MLFLOW_TRACKING_URI=server.uri).wait()
        waits = again == ["sync"] and code in (1, 3)  # nothing promises that a sync amid the faults gets through
        wrong = [f"exit code {code}"] * (code != 0 and not waits) + [f"sync exit code {synced}"] * (synced != 0)
        client = mlflow.MlflowClient(tracking_uri=server.uri)
        runs = client.search_runs([client.get_experiment_by_name("mnist-mlp").experiment_id])
        wrong += [f"{len(runs)} runs"] * (len(runs) != 1)
        found = faults.differences(reference, faults.full_record(server.uri, cwd))
        return wrong + found + faults.other_artifacts(server.uri, cwd)
    finally:
        proxy.close()
        server.kill()


def burst(proxy, chance, seconds):
    """Leave the proxy alone for a while, then let it do one thing to whatever comes for a while."""
    time.sleep(chance.uniform(0, seconds / 3))
    fault = chance.choice(FAULTS)
    proxy.silence_s = chance.choice([1.0, 5.0, 20.0])
    if fault.endswith("after"):
        proxy.first(chance.randint(1, 3), fault)
    else:
        proxy.always(fault)
    time.sleep(chance.uniform(0.1, 4.0))
    proxy.clear()


def disturb(server, chance):
    """One random change of the server's fate."""
    if server.process is None:
        server.start()
        return
    what = chance.choice(["kill", "freeze", "thaw", "leave"])
    if what == "kill":
        server.kill()
    elif what != "leave":
        server.signal(signal.SIGSTOP if what == "freeze" else signal.SIGCONT)


def run_case(kind, number, seed, reference, seconds):
    """One case in a folder of its own; returns (kills, problems)."""
    chance = random.Random(f"{seed}-{kind}-{number}")
    kills = chance.randint(1, 3)
    with tempfile.TemporaryDirectory(prefix=f"soak-{kind}-{number}-") as folder:
        cwd = Path(folder)
        try:
            if kind == "kills":
                problems = kill_case(cwd, chance, reference, seconds, kills)
            else:
                case = outage_case if kind == "outages" else proxy_case
                problems = case(cwd, chance, reference, seconds)
        except Exception as error:  # a case that breaks is a finding, and the others go on
            problems = [f"{type(error).__name__}: {error}"[-2000:]]
    verdict = "identical" if not problems else f"DIFFERENT: {problems}"
    print(f"{kind} case {number} seed {seed}: {verdict}", flush=True)
    return kills, problems


def soak(kind, wanted, seed, jobs, only):
    """Run cases until there were as many kills (or schedules) as wanted; returns counts."""
    with tempfile.TemporaryDirectory(prefix="soak-reference-") as folder:
        reference, seconds = undisturbed(Path(folder))
    counts = collections.Counter()
    if only is not None:
        cases = [only]
    else:
        each = [random.Random(f"{seed}-{kind}-{k}").randint(1, 3) if kind == "kills" else 1 for k in range(wanted)]
        cases = [k for k in range(wanted) if sum(each[:k]) < wanted]
    with ThreadPoolExecutor(jobs) as pool:
        for kills, problems in pool.map(lambda k: run_case(kind, k, seed, reference, seconds), cases):
            counts["cases"] += 1
            counts["kills"] += kills if kind == "kills" else 0
            counts["different"] += bool(problems)
    return counts


def write_summary(kind, row):
    """Replace the kind's row in the summary."""
    data = "MNIST" if MNIST_DIR.exists() else "digits"
    about = (
        f"{data}, {EPOCHS} epochs a run, {platform.machine()} with {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}."
    )
    old = SUMMARY.read_text().splitlines() if SUMMARY.exists() else []
    rows = [
        line
        for line in old
        if line.startswith(tuple(f"| {each}" for each in KINDS)) and not line.startswith(f"| {kind} |")
    ]
    SUMMARY.write_text("\n".join(["# The last full soak", "", about, "", HEADER, *sorted([*rows, row])]) + "\n")


def main():
    """Soak and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100, help="kills; half as many schedules of outages and of proxies")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="printed, so that a failure can be replayed")
    parser.add_argument("--jobs", type=int, default=2, help="cases side by side")
    parser.add_argument("--light", action="store_true", help="of runs with light records")
    parser.add_argument("--kind", choices=KINDS, help="only these")
    parser.add_argument("--case", type=int, help="only this one")
    options = parser.parse_args()
    global light
    light = options.light
    began = time.monotonic()
    wanted = {"kills": options.n, "outages": options.n // 2, "proxies": options.n // 2}
    results = {
        kind: soak(kind, n, options.seed, options.jobs, options.case)
        for kind, n in wanted.items()
        if options.kind in (None, kind)
    }
    minutes = (time.monotonic() - began) / 60
    for kind, counts in results.items():
        faults_done = counts["kills"] if kind == "kills" else counts["cases"]
        label = f"{kind}, light records" if light else kind
        row = f"| {label} | {faults_done} | {counts['cases']} | {counts['different']} "
        arguments = " ARGS=--light" if light else ""
        how = f"`make soak N={options.n}{arguments}`"
        row += f"| {how}, seed {options.seed}, {options.jobs} at a time, {minutes:.0f} min |"
        print(f"{HEADER}\n{row}")
        if options.case is None:
            write_summary(label, row)
    return 1 if any(count["different"] for count in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
