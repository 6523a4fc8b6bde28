"""What every benchmark shares: commands timed one after the other, medians with their spread, tables, JSON."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
OURS = ROOT / ".venv/bin/python"
PEERS = ROOT / "benchmarks/.venv/bin/python"
MNIST_DIR = Path(os.environ.get("MNIST_DIR", ROOT / "data/MNIST/raw")).absolute()


def run(command, cwd, **variables):
    """Run a command to its end; returns (seconds, peak memory in MB, standard output), or None with a word why not."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MNIST_DIR": str(MNIST_DIR), **variables}
    if not Path(command[0]).exists():
        print(f"left out: {command[0]} does not exist (make bench installs it)", file=sys.stderr)
        return None
    began = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = process.communicate()
    seconds = time.perf_counter() - began
    if process.returncode:
        print(f"left out: {' '.join(map(str, command[:4]))} failed: {err.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return seconds, out


def interleaved(contenders, rounds):
    """Call each contender (name -> function that gives a number or None) once a round; name -> numbers."""
    numbers = {name: [] for name in contenders}
    for k in range(rounds):
        for name, measure in contenders.items():
            value = measure()
            if value is not None:
                numbers[name].append(value)
            print(f"round {k + 1}/{rounds} {name}: {value if value is None else round(value, 3)}", flush=True)
    return numbers


def ratios(numbers, name, base):
    """The ratio of each round: (median, lowest, highest), or None where one of the two is missing."""
    pairs = [a / b for a, b in zip(numbers.get(name, []), numbers.get(base, []), strict=False)]
    return (statistics.median(pairs), min(pairs), max(pairs)) if pairs else None


def quickest_ratio(numbers, name, base):
    """The ratio of the quickest of each, which a machine that is slow for a while spoils least; as text."""
    return f"{min(numbers[name]) / min(numbers[base]):.2f}" if numbers.get(name) and numbers.get(base) else ""


def ratio_text(ratio):
    """`0.93 (0.88 to 0.97)`."""
    return "" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"


def table(header, rows):
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def hardware():
    """The machine and the versions, for the JSON file."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "ours": _versions(OURS, ("torch", "pytorch-lightning", "mlflow", "numpy")),
        "peers": _versions(PEERS, ("keras", "jax", "tensorflow-cpu")),
        "date": time.strftime("%Y-%m-%d"),
        "gpu": "none on this machine: nothing here was measured on one",
    }


def _versions(python, names):
    if not python.exists():
        return "not installed"
    code = f"from importlib.metadata import version; print(*[n + '=' + version(n) for n in {names!r}])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or "not installed"


def publish(name, text, data):
    """Print the table; write it and the JSON file."""
    RESULTS.mkdir(exist_ok=True)
    print("\n" + text)
    (RESULTS / f"{name}.md").write_text(text + "\n")
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": hardware(), **data}, indent=1) + "\n")
