"""What the subcommands' parsers share: errors as one line, values checked as they are read."""

import argparse
import contextlib
import math
from collections.abc import Callable
from typing import Any, NoReturn

from pipeline.config import ConfigError, RunConfig
from pipeline.terminal.shell import home
from pipeline.values import nearest, short


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are ValueErrors; flags are written with dashes or underscores."""

    def __init__(self, subcommand: str, description: str = "") -> None:
        super().__init__(prog=f"python -m pipeline {subcommand}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")

    def with_runs_dir(self) -> "Parser":
        """Take --runs_dir as well."""
        self.add_argument(
            "--runs_dir", type=home, default=RunConfig().runs_dir, help="where runs lie (default: %(default)s)"
        )
        return self

    def with_data_dir(self, default: str = "data, for MNIST the environment's MNIST_DIR") -> "Parser":
        """Take --data_dir as well; `default` says in words where the data lies without it."""
        self.add_argument("--data_dir", type=home, help=f"where the data lies (default: {default})")
        return self

    def read(self, arguments: list[str]) -> argparse.Namespace:
        """The options; --help prints and ends with exit code 0.

        Raises:
            ValueError: for a flag without its value; ConfigError for words that it does not know.
        """
        options, unknown = self.parse_known_intermixed_args(self.joined(arguments))
        if unknown:
            raise ConfigError([self.unknown(word) for word in unknown])
        return options

    def unknown(self, word: str) -> str:
        """The line for a flag that is none."""
        name = word.split("=")[0]
        flags = {each.dest: each.option_strings[-1] for each in self._actions if each.option_strings}
        near = nearest(name.lstrip("-").replace("-", "_"), flags)
        return f"unknown flag {short(repr(name))}; " + (f"did you mean {flags[near]}?" if near else "see --help")

    def joined(self, arguments: list[str]) -> list[str]:
        """`--name value` as `--name=value`, so that values may begin with a dash and unknown flags keep theirs.

        Raises:
            ValueError: for a flag without its value.
        """
        actions = {name.replace("-", "_"): each for each in self._actions for name in each.option_strings}
        joined, words = [], arguments[::-1]
        while words:
            name, equals, value = words.pop().partition("=")
            action = actions.get(name.replace("-", "_")) if name.startswith("--") else None
            name = action.option_strings[-1] if action else name
            if name.startswith("--") and not equals and not (action and action.nargs == 0):
                if words and not words[-1].startswith("--"):
                    equals, value = "=", words.pop()
                elif action:
                    raise ValueError(f"{name} has no value" + (f": the next word is {words[-1]}" if words else ""))
            joined.append(name + equals + value)
        return joined


def within(kind: Callable[[str], float], low: float, high: float, wanted: str) -> Callable[[str], Any]:
    """What makes a number of an option's text, as argparse's `type`, and refuses one outside its range."""

    def convert(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= (number := kind(text)) <= high:
                return number
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")

    return convert


port = within(int, 0, 65535, "a port from 0 to 65535")
seconds = within(float, 0.05, 3600, "a number of seconds from 0.05 to 3600")


def count(text: str) -> int:
    """A whole number from 1; 0 for auto."""
    number: int = 0 if text == "auto" else within(int, 1, math.inf, "a whole number from 1, or auto")(text)
    return number
