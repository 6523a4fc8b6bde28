"""Wall clock of whole commands, process start to exit, and their peak memory. `make bench-run ROUNDS=5`."""

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.common import OURS, PEERS, ROOT, interleaved, publish, quickest_ratio, ratio_text, ratios, run, table
from pipeline.tracking.folders import all_folders, values_of

HERE = ROOT / "benchmarks"
OUTSIDE, AFTER = [], []


def command(*words, **variables):
    """The wall clock of a command in a fresh folder."""

    def measure():
        with tempfile.TemporaryDirectory() as folder:
            done = run(list(words), folder, **variables)
        return None if done is None else done[0]

    return measure


def tracked(epochs):
    """The wall clock of our whole command; also notes what of it lay outside the epochs, and after the last."""

    def measure():
        with tempfile.TemporaryDirectory() as folder:
            began = time.time()
            done = run([OURS, "-m", "pipeline", "train", "--epochs", epochs, "--accelerator", "cpu"], folder)
            if done is None:
                return None
            events = all_folders(Path(folder) / "runs")[0].events()
            seconds = values_of(events)["epoch_seconds"]
            last = max(
                event["time"] for event in events if event["kind"] == "metrics" and "train_loss" in event["values"]
            )
            if epochs > 1:
                OUTSIDE.append(done[0] - sum(seconds.values()))
                AFTER.append(began + done[0] - last / 1000)
            return done[0]

    return measure


def peak_memory():
    """Peak resident memory in MB of the training process of one tracked run (its sender is a process of its own)."""
    peaks = {}

    def watch(done):
        while not done.is_set():
            for status in Path("/proc").glob("[0-9]*/status"):
                try:
                    words = (status.parent / "cmdline").read_bytes().split(b"\0")
                    if b"-m" in words and words[words.index(b"-m") + 1] in (
                        b"pipeline",
                        b"pipeline.delivery.upload_loop",
                    ):
                        text = status.read_text()
                        peaks[words[words.index(b"-m") + 1].decode()] = int(text.split("VmHWM:")[1].split()[0]) // 1024
                except (OSError, IndexError, ValueError):
                    continue
            time.sleep(0.1)

    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(done,))
    watcher.start()
    tracked(3)()
    done.set()
    watcher.join()
    return peaks


CONTENDERS = {
    "20 epochs, tracked and registered": tracked(20),
    "20 epochs, Keras on JAX, bare": command(PEERS, HERE / "peers/keras_sample.py", 20, KERAS_BACKEND="jax"),
    "20 epochs, this training untracked": command(OURS, HERE / "untracked.py", 20),
    "1 epoch, tracked and registered": tracked(1),
    "python -m pipeline --help": command(OURS, "-m", "pipeline", "--help"),
}


def main(rounds):
    """Measure and publish."""
    numbers = interleaved(CONTENDERS, rounds)
    memory = peak_memory()
    ours, keras, untracked = list(CONTENDERS)[:3]
    rows = [[name, f"{statistics.median(values):.2f}"] for name, values in numbers.items() if values]
    text = table(["command", "seconds"], rows) + "\n\n"
    lines = [
        f"tracked / Keras on JAX: {ratio_text(ratios(numbers, ours, keras))}",
        f"tracked / untracked: {ratio_text(ratios(numbers, ours, untracked))}",
        f"tracked / untracked, the quickest of each: {quickest_ratio(numbers, ours, untracked)}",
        f"outside the epochs: {statistics.median(OUTSIDE):.1f} s, after the last: {statistics.median(AFTER):.1f} s",
        f"peak memory: training {memory.get('pipeline')} MB, uploader {memory.get('pipeline.delivery.upload_loop')} MB",
    ]
    data = {"rounds": rounds, "seconds": numbers, "outside": OUTSIDE, "after": AFTER, "memory_mb": memory}
    publish("run", text + "\n".join(f"- {line}" for line in lines), data)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
