"""Do the tests notice? `make mutants` makes small mistakes in the critical modules and counts those that a test sees.

mutmut makes the mistakes; `tests.mutant_runner` runs the tests against each. Which test files those are stands in
`TESTS`: those that can notice and are quick, in-process wherever there are such. A call works for at
most `--minutes`: modules whose result still holds (module and tests unchanged) are passed over, so calling it again
goes on; where only the tests have changed, those that had survived are tried again. `docs/mutants.json` keeps the
results, `docs/mutants.md` shows them.

What survives on purpose stands with its reason in `docs/mutants_accepted.toml`, by module, function and changed lines.
An `equivalent` one, which nothing could notice, leaves the count; an accepted one counts as survived.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from importlib.metadata import version
from pathlib import Path

from tests.conftest import MNIST_DIR, ROOT

RESULTS, TABLE, ACCEPTED = (ROOT / "docs" / f"mutants{name}" for name in (".json", ".md", "_accepted.toml"))
EACH, ALL = 0.75, 0.85  # at least so much is killed of every module, and of all together
GUESSED_S = 600  # for a module that was never tried

# Module -> the test files that can notice. Not those that read the source as text or start the whole pipeline.
TESTS = {
    "seeding": ["test_seeding"],
    "networks/dropout": ["networks/test_dropout"],
    "networks/mlp": ["networks/test_mlp"],
    "optim/optimizers": ["optim/test_optimizers"],
    "optim/schedules": ["optim/test_schedules"],
    "fast_cpu/gradients": ["fast_cpu/test_gradients"],
    "fast_cpu/process": ["fast_cpu/test_process"],
    "fast_cpu/blocks": ["fast_cpu/test_blocks"],
    "training/classifier": ["training/test_classifier", "training/test_ranks"],
    "training/augmentation": ["training/test_augmentation"],
    "training/metrics": ["training/test_training_metrics", "training/test_ranks"],
    "training/callbacks": ["training/test_callbacks", "test_seeding"],
    "training/news": ["training/test_callbacks"],
    "training/checkpoints": ["training/test_checkpoint_files"],
    "training/history": ["training/test_callbacks"],
    "data/datamodule": ["data/test_datamodule"],
    "data/datasets": ["data/test_datasets", "data/test_data_places", "data/test_own_datasets"],
    "data/dataset": ["data/test_dataset"],
    "data/folder": ["data/test_folder"],
    "data/decoding": ["data/test_decoding"],
    "data/pixel_cache": ["data/test_pixel_cache"],
    "data/splitting": ["data/test_splitting"],
    "data/table": ["data/test_table"],
    "data/known_data": ["data/test_known_data"],
    "data/image_files": ["data/test_image_files", "data/test_idx"],
    "data/archives": ["data/test_archives", "data/test_archive_files"],
    "training/onnx_export": ["training/test_onnx_export_checks", "training/test_onnx_export"],
    "registry/predictor": ["registry/test_predictor"],
    "config/run_config": ["config/test_config_as_a_whole", "config/test_own_code", "config/test_config"],
    "config/sample": ["config/test_config", "config/test_config_as_a_whole"],
    "config/words": ["config/test_config", "config/test_config_as_a_whole", "config/test_own_code"],
    "config/signatures": ["config/test_own_code"],
    "config/own_code": ["config/test_own_code"],
    "pixels": ["test_pixels", "serving/test_image_decoding"],
    "values": ["config/test_config"],
    "commands/flags": ["commands/test_flags", "config/test_config_ways"],
    "experiments/spec": ["experiments/test_spec"],
    "experiments/question": ["experiments/test_spec"],
    "experiments/plan": ["experiments/test_plan"],
    "experiments/experiment": ["experiments/test_experiment_ends"],
    "experiments/progress": ["experiments/test_progress"],
    "comparing/groups": ["comparing/test_groups"],
    "comparing/looks": ["comparing/test_planned_looks"],
    "comparing/seen": ["comparing/test_seen"],
    "comparing/statistics": ["comparing/test_statistics"],
    "comparing/verdicts": ["comparing/test_verdicts", "comparing/test_groups"],
    "comparing/comparison": ["comparing/test_comparison", "comparing/test_groups", "comparing/test_verdicts"],
    "analysis/words": ["analysis/test_words"],
    "tracking/folders": ["tracking/test_folders", "tracking/test_record"],
    "tracking/lines": ["tracking/test_lines", "tracking/test_record"],
    "tracking/journal": ["tracking/test_journal", "tracking/test_disk", "tracking/test_record"],
    "tracking/recovery": ["tracking/test_recovery", "recording/test_resuming"],
    "mlflow_client/connection": ["mlflow_client/test_connection"],
    "mlflow_client/errors": ["mlflow_client/test_errors"],
    "delivery/writer": ["delivery/test_writer", "delivery/test_redelivery"],
    "delivery/delivery": ["delivery/test_refusals", "delivery/test_blocked", "delivery/test_redelivery"],
    "delivery/upload_loop": ["delivery/test_upload_loop", "delivery/test_upload_process"],
    "tracking/uploader": ["tracking/test_uploader"],
    "tracking/logger": ["tracking/test_logger"],
    "tracking/live_run": ["tracking/test_live_run"],
    "tracking/identity": ["tracking/test_identity"],
    "tracking/checkpoint_artifacts": ["tracking/test_logger"],
    "delivery/follower": ["delivery/test_follower"],
    "delivery/keys": ["delivery/test_keys"],
    "delivery/resend": ["delivery/test_sent_elsewhere"],
    "registry/versions": ["registry/test_versions"],
    "registry/log_model": ["registry/test_log_model"],
    "registry/promotion": ["registry/test_judgement", "registry/test_promotion_turns"],
    "registry/judgement": ["registry/test_mcnemar"],
    "registry/challenge": ["registry/test_judgement", "registry/test_evaluation", "registry/test_promotion_turns"],
    "registry/evaluation": ["registry/test_evaluation", "registry/test_judgement"],
    "registry/looks": ["registry/test_looks"],
    "serving/batching": ["serving/test_batching"],
    "serving/preprocessing": ["serving/test_image_decoding", "serving/test_image_steps", "serving/test_preprocessing"],
    "serving/metrics": ["serving/test_metrics"],
    "serving/middleware": ["serving/test_middleware", "serving/test_middleware_body"],
    "serving/refusals": ["serving/test_routes_facts", "serving/test_middleware"],
    "serving/schemas": ["serving/test_protocol", "serving/test_routes_facts", "serving/test_shapes"],
    "serving/protocol": ["serving/test_protocol", "serving/test_protocol_files", "serving/test_shapes"],
    "serving/alias_watcher": ["serving/test_alias_watcher_looks", "serving/test_alias_watcher_trouble"],
    "tracking/run": ["tracking/test_run"],
    "recording/record": ["recording/test_record_of_a_run", "recording/test_resuming", "recording/test_second_time"],
    "recording/resuming": ["recording/test_resuming", "config/test_config_ways"],
    "recording/description": ["recording/test_description", "recording/test_results"],
    "files": ["training/test_checkpoint_files", "tracking/test_disk"],
    "experiments/pool": ["experiments/test_pool"],
    "experiments/worker": ["experiments/test_worker"],
    "experiments/artist": ["experiments/test_artist"],
    "experiments/judging": ["experiments/test_judging"],
    "recording/predictions": ["recording/test_drawing"],
    "recording/drawing": ["recording/test_drawing"],
    "delivery/opening": ["tracking/test_one_run", "delivery/test_redelivery", "delivery/test_delivery"],
    "cluster/link": ["cluster/test_link"],
    "cluster/replica": ["cluster/test_replica"],
    "cluster/pool": ["cluster/test_cluster_pool"],
    "cluster/address": ["cluster/test_address"],
    "serving/app": ["serving/test_routes", "serving/test_routes_facts", "serving/test_shapes"],
    "serving/connections": ["serving/test_room", "serving/test_connection_states", "serving/test_connection_ends"],
    "serving/hosts": ["serving/test_hosts"],
    "mlflow_client/searches": ["mlflow_client/test_searches"],
    "registry/candidates": ["registry/test_candidates"],
    "registry/promotion_lock": ["registry/test_promotion_lock"],
}

CONFIG = """
[tool.mutmut]
source_paths = ["pipeline"]
only_mutate = ["pipeline/{module}.py"]
"""

# Imported once, before the forks.
HEAVY = (
    *("torch", "torchvision", "pytorch_lightning", "onnx", "onnxruntime", "mlflow", "mlflow.pyfunc", "httpx"),
    *("hypothesis", "scipy.stats", "statsmodels.stats.multitest", "statsmodels.stats.power", "matplotlib.pyplot"),
    *("statsmodels.stats.contingency_tables", "rich.table"),
)
# glibc hands no memory back: tensors that come and go cost a page fault for every 4 KiB otherwise, half of the time.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}


def prepare(module, folder):
    """Copy what git knows of the project, so that nothing is written into it, and make the mutants in the copy.

    Returns:
        Mutant -> the changed lines.
    """
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    original, copy, path = folder / "original", folder / "mutants", Path(f"pipeline/{module}.py")
    for name in filter(None, names):
        for place in (original, copy):
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, place / name)
    if (ROOT.parent / "shared").exists():  # reference data that some tests look for beside the project
        (folder / "shared").symlink_to(ROOT.parent / "shared")
    with (original / "pyproject.toml").open("a") as file:
        file.write(CONFIG.format(module=module))
    here = Path.cwd()
    os.chdir(original)  # mutmut reads its configuration where it stands
    try:
        import mutmut.__main__
        import mutmut.configuration
        from mutmut.mutation.diff_apply import get_diff_for_mutant

        mutmut.configuration.reset_config()
        (Path("mutants") / path).parent.mkdir(parents=True)
        made = mutmut.__main__.create_mutants_for_file(path, Path("mutants") / path)
        if made.error:
            raise made.error
        shutil.copy2(Path("mutants") / path, copy / path)
        mutants = json.loads(Path("mutants", f"{path}.meta").read_text())["exit_code_by_key"]
        return {name: change(get_diff_for_mutant(name, path=path)) for name in mutants}
    finally:
        os.chdir(here)


def mutate(module, before, jobs):
    """Try the mutants of the module, or those that survived `before`; returns its result.

    Raises:
        SystemExit: if its tests fail without a mutant.
    """
    began, (code, tests) = time.monotonic(), digests(module)
    again = [each["mutant"] for each in before["survivors"]] if before.get("code") == code else []
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        mutants = prepare(module, folder)
        outcomes = run(module, folder, again or list(mutants), jobs)
        if late := [mutant for mutant, outcome in outcomes.items() if outcome == "timeout"]:
            outcomes |= run(module, folder, late, 1)  # was it the mutant, or a busy machine?
    unnoticed = [mutant for mutant, outcome in outcomes.items() if outcome == "survived"]
    return {
        "code": code,
        "tests": tests,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - began) + (before["seconds"] if again else 0),
        "made": len(mutants),
        "survivors": [
            {"mutant": mutant, "function": function_of(mutant), "change": mutants[mutant]} for mutant in unnoticed
        ],
    }


def run(module, folder, mutants, jobs):
    """Run the module's tests against the mutants; returns mutant -> killed, survived or timeout."""
    tests = [f"tests/{name}.py" for name in TESTS[module] if (ROOT / f"tests/{name}.py").exists()]
    job = {"imports": HEAVY, "tests": tests, "mutants": mutants, "jobs": jobs, "outcomes": str(folder / "outcomes")}
    (folder / "job").write_text(json.dumps(job))
    environment = {**os.environ, "MNIST_DIR": str(MNIST_DIR), "OMP_NUM_THREADS": "1", "MUTANT_UNDER_TEST": ""}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the folder is ours, and each start would compile everything
    command = [sys.executable, "-m", "tests.mutant_runner", str(folder / "job")]
    done = subprocess.run(
        command, cwd=folder / "mutants", env={**environment, **KEEP_MEMORY}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{module}: its tests did not come to an end\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
    outcomes: dict[str, str] = json.loads((folder / "outcomes").read_text())
    return outcomes


def function_of(mutant):
    """`pipeline.networks.dropout.xǁMasksǁ_draw__mutmut_17` -> `Masks._draw`."""
    mangled = re.sub(r"__mutmut_\d+$", "", mutant.rpartition(".")[2])
    return mangled.removeprefix("x").replace("ǁ", ".").lstrip(".") if "ǁ" in mangled else mangled.removeprefix("x_")


def change(diff):
    """The changed lines of a diff, without their indentation: `- p == 0` and `+ p == 1`."""
    lines = [line for line in diff.splitlines() if re.match(r"[-+](?!--|\+\+)", line)]
    return [f"{line[0]} {line[1:].strip()}" for line in lines]


def digests(module):
    """What a result rests on: the module, and its tests."""
    code, tests = [ROOT / f"pipeline/{module}.py"], [ROOT / f"tests/{name}.py" for name in TESTS[module]]
    existing = (b"\0".join(file.read_bytes() for file in files if file.exists()) for files in (code, tests))
    return [hashlib.sha256(content).hexdigest()[:12] for content in existing]


def holds(module, result):
    """Neither the module nor its tests have changed since."""
    return [result.get("code"), result.get("tests")] == digests(module)


def read_accepted():
    """(module, function, changed lines) -> (kind, reason).

    Raises:
        SystemExit: for an entry that gives no reason or another kind.
    """
    found = {}
    for entry in tomllib.loads(ACCEPTED.read_text()).get("mutant", []):
        if entry.get("kind") not in ("equivalent", "accepted") or not entry.get("reason"):
            raise SystemExit(f"{ACCEPTED.name}: kind is equivalent or accepted, with a reason; found {entry}")
        for lines in entry["changes"]:
            key = entry["module"], entry["function"], tuple(lines.strip().splitlines())
            found[key] = entry["kind"], entry["reason"]
    return found


def read_results():
    """Module -> result, as the last calls left it."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def key_of(module, survivor):
    """By what it is found among the accepted ones."""
    return module, survivor["function"], tuple(survivor["change"])


def judge(results, accepted):
    """Module -> (made, killed, equivalent, accepted, open survivors) of those that are equivalent or not."""
    rows = {}
    for module, result in results.items():
        kinds = [accepted.get(key_of(module, each), ("open",))[0] for each in result["survivors"]]
        killed = result["made"] - len(result["survivors"])
        rows[module] = (result["made"], killed, *(kinds.count(kind) for kind in ("equivalent", "accepted", "open")))
    return rows


def score(made, killed, equivalent, *_):
    """Killed of those that could be noticed."""
    return killed / (made - equivalent) if made > equivalent else 1.0


def table(results, accepted):
    """`docs/mutants.md`."""
    rows = judge(results, accepted)
    total = tuple(map(sum, zip(*rows.values(), strict=True)))
    lines = [
        "# Do the tests notice?",
        "",
        "`make mutants` makes small mistakes (mutants) in the critical modules, one at a time, and runs the module's "
        f"tests: mutmut {version('mutmut')}, pytest {version('pytest')}, "
        f"Python {sys.version_info.major}.{sys.version_info.minor}. Killed: a test failed, or none came to an end. "
        "Equivalent: nothing could notice it, listed below, not in the score. Accepted: listed below, in the score. "
        f"Wanted: {EACH:.0%} of every module, {ALL:.0%} of all.",
        "",
        "| module | mutants | killed | equivalent | accepted | open | score | minutes | when |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --- |",
    ]
    for module in filter(rows.__contains__, TESTS):
        cells = " | ".join(map(str, rows[module]))
        minutes = f"{results[module]['seconds'] / 60:.1f}"
        date = results[module]["date"] + ("" if holds(module, results[module]) else ", changed since")
        lines.append(f"| {module} | {cells} | {score(*rows[module]):.1%} | {minutes} | {date} |")
    minutes = sum(result["seconds"] for result in results.values()) / 60
    lines += [f"| **all** | {' | '.join(map(str, total))} | **{score(*total):.1%}** | {minutes:.0f} | |", ""]
    missing = [module for module in TESTS if module not in results]
    lines += [f"Not tried yet: {', '.join(missing)}.", ""] if missing else []
    return "\n".join(lines + reasons(results, accepted))


def reasons(results, accepted):
    """The survivors that stay, each kind with its reason."""
    lines = ["## What survives on purpose", ""]
    for module, result in results.items():
        for survivor in result["survivors"]:
            if (key := key_of(module, survivor)) in accepted:
                kind, reason = accepted[key]
                code = "<br>".join(f"`` {line} ``" for line in survivor["change"]).replace("|", "\\|")
                lines.append(f"- {module}, `{survivor['function']}`, {kind}: {reason}<br>{code}")
    return [*lines, ""]


def show_open(module, result, accepted):
    """Print what nobody noticed, as it can be pasted into the file of accepted ones."""
    for survivor in result["survivors"]:
        if key_of(module, survivor) not in accepted:
            print(f"\n{module}: {survivor['function']}", *survivor["change"], sep="\n", flush=True)


def to_try(options, results):
    """The modules asked for, or those whose result does not hold, that are expected to fit the time."""
    wanted = options.modules or [module for module in TESTS if not holds(module, results.get(module, {}))]
    if unknown := set(wanted) - set(TESTS):
        raise SystemExit(f"no tests are named for {', '.join(sorted(unknown))}; there are: {', '.join(TESTS)}")
    ends = time.monotonic() + options.minutes * 60
    for index, module in enumerate(wanted):
        if index and time.monotonic() + results.get(module, {}).get("seconds", GUESSED_S) > ends:
            print(f"time is up; still to come: {', '.join(wanted[index:])} (call again)")
            return
        yield module


def main():
    """Mutate, write the table; 1 if too much goes unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="only these, also where their result still holds")
    parser.add_argument("--minutes", type=float, default=60, help="begin no module that is expected to end later")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants tried at a time")
    parser.add_argument("--anew", action="store_true", help="try also those that tests have noticed before")
    parser.add_argument("--table", action="store_true", help="try nothing, write the table anew")
    options = parser.parse_args()
    accepted, results = read_accepted(), read_results()
    for module in () if options.table else to_try(options, results):
        print(f"{module} ...", end=" ", flush=True)
        found = mutate(module, {} if options.anew else results.get(module, {}), options.jobs)
        results = {**read_results(), module: found}  # another slice may run beside this one
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        row = judge(results, accepted)[module]
        print(f"{row[1]} of {row[0]} killed, {row[2]} equivalent: {score(*row):.1%}", flush=True)
        show_open(module, results[module], accepted)
    results = {module: results[module] for module in TESTS if module in results}
    TABLE.write_text(table(results, accepted))
    rows = judge(results, accepted)
    total = score(*map(sum, zip(*rows.values(), strict=True)))
    low = [f"{module} {score(*row):.1%}" for module, row in rows.items() if score(*row) < EACH]
    print(f"\nall: {total:.1%} (wanted {ALL:.0%}); below {EACH:.0%}: {', '.join(low) or 'none'}")
    return 1 if low or total < ALL else 0


if __name__ == "__main__":
    sys.exit(main())
