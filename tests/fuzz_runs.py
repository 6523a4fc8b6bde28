"""Random damage to run folders: `python -m tests.fuzz_runs --n 10000`. A failing case prints its number and seed.

A finished and an interrupted run are damaged (bits, cuts, holes, line breaks, zeros, missing files, up to three at a
time) and read by what the commands call. No error may come out, no undamaged record be lost or move, no status be
wrong, and what was lost has to be said.
"""

import argparse
import collections
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from pipeline.config import RunConfig
from pipeline.recording import record, resuming
from pipeline.recording.epoch_logger import EpochLogger
from pipeline.tracking import folders, lines, recovery
from pipeline.tracking.folders import all_folders
from pipeline.tracking.journal import Journal, RunFolder
from pipeline.tracking.run import Run
from pipeline.training import building, checkpoints, fit
from tests.tracking.idle_uploader import IdleUploader

EPOCHS, DELIVERED_OF_INTERRUPTED = 4, 3
RECORDS = ("journal.jsonl", "vital.jsonl", "delivery.json", "config.yaml", "lock")


def make_runs(folder):
    """A finished and an interrupted run below the folder; returns them by name."""
    config = RunConfig(
        dataset="digits", hidden_units=2, epochs=EPOCHS, accelerator="cpu", validation_size=100, keep_best=True
    )
    finished = RunFolder(folder / "finished")
    data = building.make_data(config)
    data.setup()
    run = Run(Journal(finished), IdleUploader())
    record.start(config, run, data, {})
    fit.fit(config, data=data, logger=EpochLogger(run), folder=finished.checkpoints)
    run.journal.close()
    interrupted = RunFolder(folder / "interrupted")
    shutil.copytree(finished.path, interrupted.path)
    journal = Journal(finished)
    journal.append("end", status="FINISHED", tags={})
    journal.close()
    finished.write_state({"run_id": "f" * 32, "delivered": journal.count, "refused": [], "versions": {}})
    interrupted.write_state({"run_id": "e" * 32, "delivered": DELIVERED_OF_INTERRUPTED, "refused": []})
    return {"finished": finished, "interrupted": interrupted}


def damage(chance, path):
    """Do one random thing to a file; returns what."""
    content = bytearray(path.read_bytes())
    what = chance.choice(["bit", "bit", "bits", "cut", "hole", "line break", "zeros", "missing", "empty"])
    if what == "missing":
        path.unlink()
        return what
    if not content:
        return "nothing"
    at = chance.randrange(len(content))
    if what in ("bit", "bits"):
        for _ in range(1 if what == "bit" else chance.randint(2, 9)):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif what == "cut":
        del content[at:]
    elif what == "hole":
        del content[at : at + chance.randint(1, 400)]
    elif what == "line break":
        content[at] = 10
    elif what == "zeros":
        until = min(len(content), at + chance.randint(1, 400))
        content[at:until] = bytes(until - at)
    else:
        content.clear()
    path.write_bytes(content)
    return what


def lines_left(path, original):
    """The numbers of the original events whose line stands undamaged in the file."""
    content = path.read_bytes() if path.exists() else b""
    return {event["n"] for event in original if lines.line_of(event)[:-1] in content}


def check(folder, name, before, damaged):
    """Read the folder as the commands do; returns what is wrong, and what had to stay unknown."""
    wrong, unknown = [], []
    original, content = before[name]["events"], before[name]["checkpoints"]
    kept = lines_left(folder.path / "journal.jsonl", original) | lines_left(folder.path / "vital.jsonl", original)
    events = folder.events()
    got = {event["n"] for event in events if event["kind"] != "lost" and event == original[event["n"]]}
    if not kept <= got:
        wrong.append(f"undamaged records lost: {sorted(kept - got)}")
    if any(event["kind"] != "lost" and event["n"] not in got for event in events):
        wrong.append("a record that was never written")
    if [event["n"] for event in events] != list(range(len(events))):
        wrong.append("numbers moved")
    begun = [each.path for each in all_folders(folder.path.parent)]
    if not begun and (folder.path / "delivery.json").exists() and (folder.path / "lock").exists():
        wrong.append("the folder is not found")
    if len(got) < len(original) and not recovery.losses(folder):
        (wrong if kept and max(kept) == len(original) - 1 else unknown).append("a loss that nobody tells")
    delivered = folder.state().get("delivered", before[name]["state"]["delivered"])
    if delivered != before[name]["state"]["delivered"]:
        wrong.append(f"delivered became {delivered}")
    with contextlib.suppress(ValueError):
        if resuming.recorded_config(folder) != before[name]["config"]:
            wrong.append("another config")
    return wrong + check_checkpoints(folder, content, damaged & content.keys()), unknown


def check_checkpoints(folder, content, damaged):
    """Whatever is taken for whole is what was saved; returns what is wrong."""
    wrong = []
    for name in damaged:
        loaded = checkpoints.load(folder.checkpoints / name)
        if loaded is not None and not same(loaded, content[name]):
            wrong.append(f"{name} is loaded with other content")
    if damaged:
        newest, passed_over = checkpoints.latest(folder.checkpoints)
        sound = [name for name in content if name.startswith("epoch") and name not in damaged]
        if (newest is None and sound) or not {path.name for path in passed_over} <= damaged:
            wrong.append("a sound checkpoint is passed over")
    return wrong


def check_writing(folder, name, before, damaged):
    """Mark the run as `sync` does, write on, and look whether all stands; returns what is wrong, what is unknown."""
    wrong, unknown, events = [], [], folder.events()
    recovery.left_by_others(folder.path.parent)
    end = folder.ended()
    if name == "finished" and end is not None and end["status"] != "FINISHED":
        evidence = {"journal.jsonl", "vital.jsonl", "delivery.json"} <= damaged
        (unknown if evidence else wrong).append(f"a finished run became {end['status']}")
    if name == "interrupted" and end is not None and end["status"] != "FAILED":
        wrong.append(f"an interrupted run became {end['status']}")
    if folder.path.exists():
        journal = Journal(folder)
        journal.append("tags", tags={})
        journal.close()
        after = folder.events()
        if [told(event) for event in after[: len(events)]] != [told(event) for event in events]:
            wrong.append("writing on changed what stood")
        if after[-1]["kind"] != "tags" or after[-1]["n"] != len(after) - 1:
            wrong.append("what was written on cannot be read")
    elif events:
        wrong.append("a folder with a run in it was removed")
    return wrong, unknown


def told(event):
    """The event, or of a lost one that it is lost."""
    return (event["n"], event["kind"]) if event["kind"] == "lost" else event


def same(one, other):
    """Whether two loaded checkpoints are the same to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def knowledge(runs):
    """What the undamaged runs hold."""
    return {
        name: {
            "events": folder.events(),
            "state": folder.state(),
            "config": resuming.recorded_config(folder),
            "checkpoints": {path.name: checkpoints.load(path) for path in folder.checkpoints.iterdir()},
        }
        for name, folder in runs.items()
    }


def run_case(runs, before, scratch, seed, number):
    """Damage one copy and look at it; returns (what was done, what is wrong, what is unknown)."""
    chance = random.Random(f"{seed}-{number}")
    name = chance.choice(list(runs))
    runs_dir = scratch / str(number)
    folder = RunFolder(runs_dir / name)
    shutil.copytree(runs[name].path, folder.path)
    files = [folder.path / each for each in RECORDS] + sorted(folder.checkpoints.iterdir())
    chosen = chance.sample(files, chance.choice([1, 1, 1, 2, 3]))
    done = [f"{damage(chance, path)} in {path.name}" for path in chosen]
    damaged = {path.name for path in chosen}
    wrong, unknown = [], []
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            for part in (check, check_writing):
                bad, silent = part(folder, name, before, damaged)
                wrong, unknown = wrong + bad, unknown + silent
    except Exception as error:
        wrong.append(f"{type(error).__name__}: {error}")
    shutil.rmtree(runs_dir, ignore_errors=True)
    return f"{name}: {', '.join(done)}", wrong, unknown


def fuzz(n, seed, only=None):
    """Run so many cases; returns (counts, the failures in words)."""
    counts, failures = collections.Counter(), []
    real = os.fsync
    os.fsync = lambda descriptor: None  # durability is not what is tried here
    try:
        with tempfile.TemporaryDirectory(prefix="fuzz-runs-") as folder:
            runs = make_runs(Path(folder) / "runs")
            before = knowledge(runs)
            for number in range(n) if only is None else [only]:
                done, wrong, unknown = run_case(runs, before, Path(folder), seed, number)
                folders._told.clear()
                counts["cases"] += 1
                counts["wrong"] += bool(wrong)
                for each in unknown:
                    counts[f"unknowable: {each}"] += 1
                if wrong:
                    failures.append(f"case {number} seed {seed}: {done}: {'; '.join(wrong)}")
    finally:
        os.fsync = real
    return counts, failures


def main():
    """Fuzz and print a summary; exit code 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10000, help="cases")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="printed, so that a failure can be replayed")
    parser.add_argument("--case", type=int, help="only this one")
    options = parser.parse_args()
    began = time.monotonic()
    counts, failures = fuzz(options.n, options.seed, options.case)
    for failure in failures[:40]:
        print(failure)
    print(f"seed {options.seed}: {dict(counts)} in {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
