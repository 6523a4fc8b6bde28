"""`make bench-serving`: against `mlflow models serve`, then malformed requests, then moving aliases."""

import json
import statistics
import sys
import urllib.request

from benchmarks.common import publish, ratio_text, ratios, table
from benchmarks.serving import fuzz, load, moves, servers

SECONDS = 4
CASES = {"1 image": (1, 8), "64 images": (64, 4)}
STARTS = 3


def first_answer(make, uri, folder, body):
    """Seconds from the start of the process to the first prediction."""
    server = make(uri, folder)
    address = f"http://127.0.0.1:{server.port}/invocations"
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200
    server.stop()
    return server.seconds_to_start


def measure(uri, folder, rounds):
    """Name -> case -> numbers of each round."""
    makers = {"ours": servers.ours, "mlflow": servers.mlflows}
    bodies = {case: json.dumps({"inputs": servers.images(count)}).encode() for case, (count, _) in CASES.items()}
    found = {f"{case}, requests/s": {name: [] for name in makers} for case in CASES}
    found |= {f"1 image, {what}": {name: [] for name in makers} for what in ("p50 at half load", "p99 at half load")}
    found["1 image, p99 at half of MLflow's load"] = {name: [] for name in makers}
    found["start to first answer, s"] = {
        name: [first_answer(make, uri, folder, bodies["1 image"]) for _ in range(STARTS)]
        for name, make in makers.items()
    }
    running = {name: make(uri, folder) for name, make in makers.items()}
    messages = {case: load.request("/invocations", body) for case, body in bodies.items()}
    for server in running.values():  # warm up
        load.as_fast_as_possible(server.port, messages["1 image"], 4, 1)
    for k in range(rounds):
        rates = {}
        for case, (_, connections) in CASES.items():
            for name, server in running.items():
                rate = load.as_fast_as_possible(server.port, messages[case], connections, SECONDS)
                found[f"{case}, requests/s"][name].append(rate)
                rates.setdefault(case, {})[name] = rate
                print(f"round {k + 1}/{rounds} {case} {name}: {rate:.0f} requests/s", flush=True)
        for name, server in running.items():
            latencies = load.at_a_rate(server.port, messages["1 image"], rates["1 image"][name] / 2, SECONDS)
            for share, what in ((0.5, "p50"), (0.99, "p99")):
                found[f"1 image, {what} at half load"][name].append(latencies[int(share * len(latencies))] * 1000)
            latencies = load.at_a_rate(server.port, messages["1 image"], rates["1 image"]["mlflow"] / 2, SECONDS)
            found["1 image, p99 at half of MLflow's load"][name].append(latencies[int(0.99 * len(latencies))] * 1000)
    for server in running.values():
        server.stop()
    return found


def rows_of(found):
    """A row for each case: ours, MLflow's, the ratio within a round."""
    rows = []
    for case, numbers in found.items():
        digits = 1 if "load" in case else 2 if "answer" in case else 0
        unit = " ms" if "load" in case else ""
        medians = [f"{statistics.median(numbers[name]):,.{digits}f}{unit}" for name in ("ours", "mlflow")]
        rows.append([case, *medians, ratio_text(ratios(numbers, "ours", "mlflow"))])
    return rows


def main(rounds):
    """Measure and publish."""
    with servers.scratch() as folder:
        uri = servers.make_store(folder, versions=2)
        found = measure(uri, folder, rounds)
        fuzzed = fuzz.run(uri, folder)
        moved = moves.run(uri, folder)
    header = ["", "python -m pipeline serve", "mlflow models serve", "ratio (lowest to highest)"]
    lines = [table(header, rows_of(found)), "", f"- {fuzz.words(fuzzed)}", f"- {moves.words(moved)}"]
    publish("serving", "\n".join(lines), {"rounds": rounds, "numbers": found, "fuzz": fuzzed, "moves": moved})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
