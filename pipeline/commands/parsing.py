"""What the subcommands' parsers share: errors as one line, values checked as they are read."""

import argparse
from typing import NoReturn

from pipeline.config import RunConfig
from pipeline.terminal.shell import home
from pipeline.values import unknown_name


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are ValueErrors, and which takes no abbreviations."""

    def __init__(self, subcommand: str, description: str) -> None:
        super().__init__(prog=f"python -m pipeline {subcommand}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")

    def with_runs_dir(self) -> "Parser":
        self.add_argument(
            "--runs_dir", type=home, default=RunConfig().runs_dir, help="where runs lie (default: %(default)s)"
        )
        return self

    def read(self, arguments: list[str]) -> argparse.Namespace:
        """The options; --help prints and ends with exit code 0.

        Raises:
            ValueError: for words that it does not know.
        """
        options, unknown = self.parse_known_args(arguments)
        known = [action.dest for action in self._actions]
        if unknown:
            raise ValueError("; ".join(unknown_name("flag", word, known) for word in unknown))
        return options


def count(text: str) -> int:
    """A whole number from 1; 0 for auto."""
    if text == "auto":
        return 0
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1, or auto")
    return int(text)


def port(text: str) -> int:
    """A port from 0 to 65535."""
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """A number of seconds from 0.05 to an hour."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.05 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.05 to 3600")
    return number
