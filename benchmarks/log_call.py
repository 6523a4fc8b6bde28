"""What a log call costs a training: `RunLogger`, each call on the disk, beside Lightning's MLFlowLogger on SQLite.

`make bench-log-call ROUNDS=5`
"""

import json
import statistics
import sys
import tempfile

from benchmarks.common import OURS, ROOT, interleaved, publish, ratio_text, ratios, run, table

CALLS, VALUES, STEP_S = 500, 4, 0.005
CODE = """
import json, statistics, sys, time
from pytorch_lightning.loggers import MLFlowLogger
from pipeline.tracking import RunLogger
calls, values, pause = json.loads(sys.argv[2])
logger = RunLogger("bench") if sys.argv[1] == "ours" else MLFlowLogger("bench", tracking_uri="sqlite:///mlflow.db")
logger.log_metrics({f"metric_{number}": 0.5 for number in range(values)}, 0)
seconds = []
for step in range(1, calls + 1):
    time.sleep(pause)  # a training's step
    metrics = {f"metric_{number}": 1.0 / step for number in range(values)}
    began = time.perf_counter()
    logger.log_metrics(metrics, step)
    seconds.append(time.perf_counter() - began)
if sys.argv[1] == "ours":  # its folder is about to be deleted
    uploader = logger.experiment.uploader
    logger.close()
    uploader.wait()
seconds.sort()
print(json.dumps({"median": statistics.median(seconds) * 1e6, "p99": seconds[int(0.99 * calls)] * 1e6}))
"""


def calls_of(contender, slowest):
    """The median call of one process, in microseconds; the 99th percentile goes to `slowest`."""

    def measure():
        with tempfile.TemporaryDirectory(dir=ROOT / "benchmarks") as folder:  # /tmp may be memory
            done = run([OURS, "-c", CODE, contender, json.dumps([CALLS, VALUES, STEP_S])], folder)
        if done is None:
            return None
        found = json.loads(done[1].splitlines()[-1])
        slowest.append(found["p99"])
        return found["median"]

    return measure


def main(rounds):
    """Measure and publish."""
    slowest = {"RunLogger": [], "MLFlowLogger, SQLite": []}
    contenders = dict(zip(slowest, ("ours", "lightning"), strict=True))
    numbers = interleaved({name: calls_of(word, slowest[name]) for name, word in contenders.items()}, rounds)
    rows = [
        [
            name,
            f"{statistics.median(values):,.0f}",
            f"{statistics.median(slowest[name]):,.0f}",
            ratio_text(ratios(numbers, name, "RunLogger")),
        ]
        for name, values in numbers.items()
        if values
    ]
    header = ["logger", "microseconds a call", "99th percentile", "times RunLogger (lowest to highest)"]
    settings = {"rounds": rounds, "calls": CALLS, "values a call": VALUES, "pause_s": STEP_S}
    publish("log_call", table(header, rows), {**settings, "microseconds": numbers, "99th percentile": slowest})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
