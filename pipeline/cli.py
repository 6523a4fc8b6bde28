"""The only reader of argv. A ValueError becomes one message on stderr and exit code 2."""

import importlib
import sys
from collections.abc import Sequence

from pipeline.launchers import set_launchers_aside, take_part
from pipeline.redaction import without_secrets
from pipeline.signals import Interrupted, uninterrupted
from pipeline.terminal.shell import DONE, NOT_ALL, UNREACHABLE, USER_ERROR, UnreachableError
from pipeline.values import unknown_name

SUBCOMMANDS = {
    "train": "train once, record the run in MLflow, register the model; or resume a run",
    "sync": "deliver to MLflow whatever runs have left undelivered",
    "reproduce": "train again from what a run recorded and compare every number",
    "figures": "draw a run's pictures and tables, which a light record leaves out",
    "experiment": "train a question's variants x seeds and compare them",
    "compare": "compare runs, with error bars",
    "report": "write the lab book, experiments/README.md, from the records",
    "promote": "let a version become the champion, if it is shown to be better; or roll back",
    "serve": "serve the champion over HTTP, with a page to draw on; follows the alias",
}
HELP = """usage: python -m pipeline SUBCOMMAND ...

Keras' MNIST MLP as an experiment-tracked pipeline.

{}

Each subcommand has its own --help."""
TRAINING = ("train", "experiment", "reproduce")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m pipeline SUBCOMMAND ...`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except (ValueError, UnreachableError) as error:
        from pipeline.config import own_code  # only now: it brings pydantic

        if own_code.raised_in_own(error):
            raise
        print(f"pipeline: {without_secrets(str(error))}", file=sys.stderr)
        return USER_ERROR if isinstance(error, ValueError) else UNREACHABLE
    except BrokenPipeError:
        return NOT_ALL
    except SystemExit as end:  # argparse's, after --help, or that of a user's own code
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(f"pipeline: {without_secrets(str(end.code))}", file=sys.stderr)
        return USER_ERROR
    except Interrupted as interruption:
        print(f"pipeline: stopped by {interruption}", file=sys.stderr)
        return interruption.exit_code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP.format("\n".join(f"  {name:<12}{words}" for name, words in SUBCOMMANDS.items())))
        return DONE if arguments else USER_ERROR
    name, rest = arguments[0], arguments[1:]
    if name not in SUBCOMMANDS:
        unknown = unknown_name("subcommand", name, SUBCOMMANDS)
        raise ValueError(f"{unknown} (there are: {', '.join(SUBCOMMANDS)}; see --help)")
    if name in TRAINING and not (name == TRAINING[0] and take_part(rest)):
        set_launchers_aside()
    with uninterrupted():  # an interrupted import of pydantic's is a panic of Rust's
        from pipeline.commands.parsing import Parser  # only now, as the subcommand: each brings its own libraries

        command = importlib.import_module(f"pipeline.commands.{name}")
    return int(command.main(Parser(name, SUBCOMMANDS[name]), rest))
