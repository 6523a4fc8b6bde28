"""The only reader of argv. A ValueError becomes one message on stderr and exit code 2."""

import argparse
import gc
import sys
from collections.abc import Sequence
from typing import NoReturn

from pipeline.addresses import without_secrets
from pipeline.commands.flags import given_knobs, parse_knobs, train_help
from pipeline.config import AUTO, RunConfig
from pipeline.imports import gc_paused
from pipeline.launchers import set_launchers_aside
from pipeline.signals import Interrupted
from pipeline.terminal.shell import UNREACHABLE, USER_ERROR, UnreachableError, home
from pipeline.values import unknown_name


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m pipeline VERB ...`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except ValueError as error:
        print(f"pipeline: {without_secrets(str(error))}", file=sys.stderr)
        return USER_ERROR
    except UnreachableError as error:
        print(f"pipeline: {without_secrets(str(error))}", file=sys.stderr)
        return UNREACHABLE
    except BrokenPipeError:
        return 1
    except Interrupted as interruption:
        print(f"pipeline: stopped by {interruption}", file=sys.stderr)
        return interruption.exit_code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0 if arguments else USER_ERROR
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        raise ValueError(f"{unknown_name('verb', verb, VERBS)} (verbs: {', '.join(VERBS)}; see --help)")
    if verb in TRAINING:
        set_launchers_aside()
    return VERBS[verb](rest)


def _train(arguments: list[str]) -> int:
    options, values = parse_knobs(arguments)
    if options.help:
        print(train_help())
        return 0
    given = given_knobs(values, options.config, options.project_defaults)
    config = RunConfig.from_mapping(given)
    from pipeline.commands import train

    run = options.resume or train.local_run_of_mlflow(config.runs_dir)
    return train.train(config) if run is None else train.resume(run, given, config.runs_dir)


def _sync(arguments: list[str]) -> int:
    parser = _verb_parser("sync", "Deliver to MLflow whatever runs have left undelivered.")
    parser.add_argument(
        "runs", nargs="*", type=home, metavar="RUN", help="run folder, name or MLflow run id (default: all)"
    )
    parser.add_argument("--retry", action="store_true", help="send again also what MLflow has refused for good")
    parser.add_argument("--experiment_name", default="", help="send the RUNs to this MLflow experiment instead")
    parser.add_argument("--as-new", "--as_new", action="store_true", help="send all of the RUNs again, as new runs")
    options = _parsed(parser, arguments)
    from pipeline.delivery.sync import sync

    return sync(options.runs, options.runs_dir, options.retry, options.experiment_name, options.as_new)


def _reproduce(arguments: list[str]) -> int:
    parser = _verb_parser("reproduce", "Train again from what a run recorded and compare every number.")
    parser.add_argument("run", type=home, metavar="RUN", help="`last`, a run folder, name or MLflow run id")
    parser.add_argument("--data_dir", type=home, help="where the data lies now (default: where the run found it)")
    options = _parsed(parser, arguments)
    from pipeline.commands.reproduce import reproduce

    return reproduce(options.run, options.runs_dir, options.data_dir)


def _experiment(arguments: list[str]) -> int:
    parser = _verb_parser("experiment", "Train a question's variants x seeds, where missing, and compare them.")
    parser.add_argument("file", type=home, metavar="FILE", help="the question: experiments/dropout.yaml, for example")
    parser.add_argument("--jobs", type=_count, default=0, help="runs at a time (default: auto, one for each core)")
    parser.add_argument(
        "--data_dir", type=home, help="where the data lies (default: data, for MNIST the environment's MNIST_DIR)"
    )
    options = _parsed(parser, arguments)
    from pipeline.experiments.experiment import experiment

    everywhere = {"data_dir": options.data_dir} if options.data_dir else {}
    return experiment(options.file, options.jobs, options.runs_dir, everywhere)


def _compare(arguments: list[str]) -> int:
    parser = _Parser(
        prog="python -m pipeline compare", description="Compare runs, with error bars.", allow_abbrev=False
    )
    parser.add_argument("what", nargs="*", metavar="WHAT", help="experiments, run ids or run names (default: all)")
    parser.add_argument("--filter", default="", help="MLflow's: \"params.optimizer = 'sgd'\"")
    parser.add_argument("--baseline", help="the group that the others are compared with")
    parser.add_argument("--metric", default="val_accuracy", help="the final value that decides (default: %(default)s)")
    parser.add_argument(
        "--smallest", type=float, help="smallest difference of interest (default: 0.001 of an accuracy)"
    )
    parser.add_argument("--out", type=home, metavar="DIR", help="write an HTML report, pictures, CSV and JSON there")
    options = _parsed(parser, arguments)
    gc.disable()  # a short life: collecting what the imports made would take a tenth of it
    from pipeline.commands.compare import compare

    return compare(options.what, options.filter, options.baseline, options.metric, options.smallest, options.out)


def _report(arguments: list[str]) -> int:
    parser = _Parser(
        prog="python -m pipeline report",
        description="Write the lab book, experiments/README.md, from the records.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "files", nargs="*", type=home, metavar="FILE", help="experiment files to measure anew (default: all)"
    )
    parser.add_argument(
        "--folder", type=home, default="experiments", help="where the lab book lies (default: %(default)s)"
    )
    options = _parsed(parser, arguments)
    from pipeline.commands.compare import report

    return report(options.files, options.folder)


def _promote(arguments: list[str]) -> int:
    parser = _verb_parser("promote", "Let a version take the alias champion, if it is shown to be no worse.")
    parser.add_argument(
        "target", nargs="?", metavar="RUN_OR_VERSION", default="newest", help="(default: %(default)s version)"
    )
    parser.add_argument("--model", default="mnist-mlp", help="the registered model (default: %(default)s)")
    parser.add_argument(
        "--data_dir", type=home, help="where the data lies (default: data, for MNIST the environment's MNIST_DIR)"
    )
    parser.add_argument("--dry-run", "--dry_run", action="store_true", help="compare and tell, change nothing")
    parser.add_argument(
        "--force", metavar="REASON", help="promote whatever the comparison says; the reason is recorded"
    )
    parser.add_argument("--rollback", action="store_true", help="give the alias back to the version that had it before")
    options = _parsed(parser, arguments)
    if options.rollback and (options.target != "newest" or options.force or options.dry_run):
        raise ValueError("--rollback goes alone: it takes the version that has the alias `previous`")
    if options.force is not None and not options.force.strip():
        raise ValueError("--force needs a reason, which is recorded: --force 'bug in the old preprocessing'")
    from pipeline.registry.promotion import promote, rollback

    if options.rollback:
        return rollback(options.model)
    data_dir = options.data_dir or AUTO  # where the champion's data lie by default
    return promote(options.target, options.model, options.runs_dir, data_dir, options.dry_run, options.force or "")


def _serve(arguments: list[str]) -> int:
    parser = _Parser(
        prog="python -m pipeline serve",
        description="Serve the champion over HTTP, and whichever version becomes it. PIPELINE_TOKEN asks for a token.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", default="mnist-mlp", help="the registered model (default: %(default)s)")
    parser.add_argument("--alias", default="champion", help="which of its versions (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=5000, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--allowed_hosts",
        type=lambda text: [name for name in text.replace(",", " ").split() if name],
        default=[],
        help="names by which clients may call it besides addresses, localhost and names without a dot: a,b or *",
    )
    parser.add_argument("--poll", type=_seconds, default=1.0, help="seconds between looks at the alias (default: 1)")
    parser.add_argument("--log_level", default="info", choices=("debug", "info", "warning", "error"))
    options = _parsed(parser, arguments)
    with gc_paused():
        from pipeline.serving.server import serve

    return serve(
        options.model,
        options.alias,
        options.host,
        options.port,
        options.poll,
        options.log_level,
        options.allowed_hosts,
    )


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.05 to 3600")
    return seconds


VERBS = {
    "train": _train,
    "sync": _sync,
    "reproduce": _reproduce,
    "experiment": _experiment,
    "compare": _compare,
    "report": _report,
    "promote": _promote,
    "serve": _serve,
}
TRAINING = ("train", "experiment", "reproduce")
HELP = """usage: python -m pipeline VERB ...

Keras' MNIST MLP as an experiment-tracked pipeline.

  train       train once, record the run in MLflow, register the model; or resume a run
  sync        deliver to MLflow whatever runs have left undelivered
  reproduce   train again from what a run recorded and compare every number
  experiment  train a question's variants x seeds and compare them
  compare     compare runs, with error bars
  report      write the lab book, experiments/README.md, from the records
  promote     let a version become the champion, if it is shown to be no worse; or roll back
  serve       serve the champion over HTTP, with a page to draw on; follows the alias

Each verb has its own --help."""


def _count(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1, or auto")
    return int(text)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def _verb_parser(verb: str, description: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m pipeline {verb}", description=description, allow_abbrev=False)
    parser.add_argument(
        "--runs_dir", type=home, default=RunConfig().runs_dir, help="where runs lie (default: %(default)s)"
    )
    return parser


def _parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The options; --help prints and ends with exit code 0.

    Raises:
        ValueError: for words that it does not know.
    """
    options, unknown = parser.parse_known_args(arguments)
    known = [action.dest for action in parser._actions]
    if unknown:
        raise ValueError("; ".join(unknown_name("flag", word, known) for word in unknown))
    return options
