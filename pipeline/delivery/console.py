"""What a person reads while a run goes on and when it has ended."""

import sys
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.delivery.ui import HOST, PORT, run_list
from pipeline.mlflow_client.tracking_uri import DATABASE, sqlite_path
from pipeline.terminal.bars import EpochBar, in_order, in_words
from pipeline.terminal.shell import command, quoted, shown, standing_here
from pipeline.tracking.journal import Journal, RunFolder, now_ms
from pipeline.tracking.lines import waiting
from pipeline.values import counted

TOLD = 5  # refusals that are told one by one


def verbosity(config: RunConfig) -> int:
    """0, 1 or 2, as Keras' verbose; auto is 1 in a terminal and 2 elsewhere."""
    if config.verbose == "auto":
        return 1 if sys.stdout.isatty() else 2
    return int(config.verbose)


class EpochLines:
    """One line per epoch, as Keras' verbose=2 prints it, with what waits for MLflow where something does."""

    def __init__(self, epochs: int, journal: Journal) -> None:
        self.epochs, self.journal = epochs, journal

    def __call__(self, epoch: int, metrics: dict[str, float]) -> None:
        values = " - ".join(f"{name}: {in_words(name, value)}" for name, value in in_order(metrics).items())
        trouble = trouble_words(self.journal)
        waiting = f" - {trouble}" if trouble else ""
        number = f"epoch {epoch:{len(str(self.epochs))}}/{self.epochs}"
        print(f"{number} - {metrics['epoch_seconds']:.1f} s - {values}{waiting}", flush=True)


class BarAndTrouble(EpochBar):
    """A progress bar, and below an epoch's line one when delivery begins to wait, and when it has caught up."""

    def __init__(self, epochs: int, journal: Journal) -> None:
        super().__init__(epochs)
        self.journal, self.waiting = journal, False

    def __call__(self, epoch: int, metrics: dict[str, float]) -> None:
        super().__call__(epoch, metrics)
        trouble = trouble_words(self.journal)
        if bool(trouble) != self.waiting:
            self.waiting = bool(trouble)
            print(f"{trouble or 'MLflow answers again'}", file=sys.stderr, flush=True)


def trouble_words(journal: Journal) -> str:
    """What waits and since when; empty if nothing is in the way."""
    words = [f"{counted(len(journal.held), 'record', 'wait')} for room on the disk"] if journal.held else []
    state = journal.folder.state()
    if trouble := state.get("trouble"):
        seconds = max(0, now_ms() - trouble["since"]) / 1000
        count = waiting(state, journal.count)
        words.append(f"{counted(count, 'record', 'wait')} for MLflow since {seconds:.0f} s ({trouble['error']})")
    return "; ".join(words)


def tell_result(config: RunConfig, folder: RunFolder, test: dict[str, float]) -> None:
    """The test result, where the run is, and what to type next."""
    state = folder.state()
    first = {name: test[name] for name in ("test_loss", "test_accuracy")}
    words = [f"{name.replace('test_', 'test ', 1)}: {value:.4f}" for name, value in {**first, **test}.items()]
    print(f"\n{' - '.join(words)}")
    if not state.get("run_id"):
        print(f"run        files in {shown(folder.path)}; MLflow has not heard of it yet")
        return
    print(f"run        {state['run_id']} in {state['tracking_uri']}, files in {shown(folder.path)}")
    for name, version in state.get("versions", {}).items():
        print(f"model      {name} version {version}")
    print("next       " + "\n           ".join(_next_commands(config, state)))


def _next_commands(config: RunConfig, state: dict[str, Any]) -> list[str]:
    """What to type next, as it works where the user stands."""
    uri, name = state.get("tracking_uri", ""), config.registered_as
    local = not uri.startswith("http")
    page = run_list(f"http://{HOST}:{PORT}" if local else uri, state.get("experiment_id", ""))
    if standing_here() and Path("Makefile").exists() and sqlite_path(uri) == Path(DATABASE).absolute():
        model = f" MODEL={quoted(name)}" if name != "mnist-mlp" else ""
        ui, serve = "make ui", f"make serve PORT={PORT + 1}{model}"
    else:
        ui = f"mlflow ui --backend-store-uri {quoted(uri)}"
        model = quoted(f"models:/{name}@champion")
        serve = (
            f"MLFLOW_TRACKING_URI={quoted(uri)} mlflow models serve -m {model} --env-manager local --port {PORT + 1}"
        )
    lines = [f"{ui}   # then compare the runs: {page}" if local else f"compare the runs: {page}"]
    return [*lines, f"{serve}   # ask the champion"] if name else lines


def tell_delivery(folder: RunFolder, delivered: bool) -> bool:
    """Tell what MLflow refused and what it does not have yet, if anything; returns whether somebody has to act.

    Records that merely wait for a server that does not answer need nobody: the next command delivers them.
    """
    state = folder.state()
    name, place = folder.path.name, folder.path.parent
    refused = [each["words"] for each in state.get("refused", []) if isinstance(each, dict) and each["final"]]
    for words in refused[:TOLD]:
        print(f"MLflow refused for good: {words}", file=sys.stderr)
    if refused:
        more = f"and {len(refused) - TOLD} more; " if len(refused) > TOLD else ""
        print(f"{more}to send it again: {command('sync', name, '--retry', runs_dir=place)}", file=sys.stderr)
    if delivered:
        return bool(refused)
    count = waiting(state, len(folder.events()))
    trouble = state.get("trouble") or {}
    reason = trouble.get("error", "no answer in time")
    advice = trouble.get("advice") or f"when MLflow answers again: {command('sync', runs_dir=place)}"
    print(
        f"not delivered: {counted(count, 'record', 'wait')} in {shown(folder.path)} ({reason}); {advice}",
        file=sys.stderr,
    )
    return bool(refused or trouble.get("advice"))
