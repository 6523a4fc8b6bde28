"""Seconds per epoch with a healthy, a dead and a frozen server. `make bench-delivery ROUNDS=5`."""

import signal
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.common import OURS, interleaved, publish, ratio_text, ratios, run, table
from pipeline.tracking.folders import all_folders, values_of
from tests.faults import Server


def epoch_with(fate):
    """The median epoch of a run whose server has this fate."""

    def measure():
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(folder) / "server")
            try:
                if fate != "dead":
                    server.start()
                if fate == "frozen":
                    server.signal(signal.SIGSTOP)
                command = [OURS, "-m", "pipeline", "train", "--epochs", 8, "--accelerator", "cpu"]
                if run(command, folder, MLFLOW_TRACKING_URI=server.uri) is None:
                    return None
            finally:
                server.kill()
            seconds = values_of(all_folders(Path(folder) / "runs")[0].events())["epoch_seconds"]
            return statistics.median([seconds[epoch] for epoch in range(2, 9)])

    return measure


def main(rounds):
    """Measure and publish."""
    numbers = interleaved({fate: epoch_with(fate) for fate in ("healthy", "dead", "frozen")}, rounds)
    rows = [
        [fate, f"{statistics.median(values):.3f}", ratio_text(ratios(numbers, fate, "healthy"))]
        for fate, values in numbers.items()
        if values
    ]
    header = ["server", "seconds per epoch", "times healthy (lowest to highest)"]
    publish("delivery", table(header, rows), {"rounds": rounds, "seconds": numbers})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
