"""The only reader of argv. A ValueError becomes one message on stderr and exit code 2."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.config import ConfigError, RunConfig, range_text, unknown_name
from pipeline.interrupts import Interrupted

USER_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m pipeline VERB ...`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except ValueError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return USER_ERROR
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
    return VERBS[verb](rest)


def _train(arguments: list[str]) -> int:
    options, values = parse_knobs(arguments)
    if options.help:
        print(train_help())
        return 0
    runs_dir = values.get("runs_dir", RunConfig().runs_dir)
    from pipeline import workflow

    run = options.resume or workflow.local_run_of_mlflow(runs_dir)
    if run is not None:
        given = _without_defaults(values) if options.project_defaults else values
        if options.config:
            given = {**_read_knobs(Path(options.config)), **given}
        RunConfig.from_mapping(given)
        return workflow.resume(run, given, runs_dir)
    return workflow.train(load_config(values, options.config, options.project_defaults))


def _sync(arguments: list[str]) -> int:
    parser = _verb_parser("sync", "Deliver to MLflow whatever runs have left undelivered.")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folder, name or MLflow run id (default: all)")
    options = _parsed(parser, arguments)
    from pipeline.sync import sync

    return sync(options.runs, options.runs_dir)


def _reproduce(arguments: list[str]) -> int:
    parser = _verb_parser("reproduce", "Train again from what a run recorded and compare every number.")
    parser.add_argument("run", metavar="RUN", help="`last`, a run folder, name or MLflow run id")
    parser.add_argument("--data_dir", help="where the data lies now (default: where the run found it)")
    options = _parsed(parser, arguments)
    from pipeline.reproduction import reproduce

    return reproduce(options.run, options.runs_dir, options.data_dir)


VERBS = {"train": _train, "sync": _sync, "reproduce": _reproduce}
HELP = """usage: python -m pipeline VERB ...

Keras' MNIST MLP as an experiment-tracked pipeline.

  train       train once, record the run in MLflow, register the model; or resume a run
  sync        deliver to MLflow whatever runs have left undelivered
  reproduce   train again from what a run recorded and compare every number

Each verb has its own --help."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def _verb_parser(verb: str, description: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m pipeline {verb}", description=description, allow_abbrev=False)
    parser.add_argument("--runs_dir", default=RunConfig().runs_dir, help="where runs lie (default: %(default)s)")
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


def parse_knobs(arguments: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Split the arguments into options and knobs as typed.

    Raises:
        ConfigError: naming every word that is neither.
    """
    knobs = [knob.name for knob in dataclasses.fields(RunConfig)]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--config")
    parser.add_argument("--resume")
    parser.add_argument("--project_defaults", action="store_true")
    for name in knobs:
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=name)
    try:
        parsed, unknown = parser.parse_known_args(_joined(arguments))
    except argparse.ArgumentError as error:
        raise ValueError(f"{error.argument_name}: {error.message}") from None
    problems = [
        unknown_name("flag", word.split("=")[0], ["config", "resume", *knobs])
        for word in unknown
        if word.startswith("-")
    ]
    problems += [f"what is {word!r}? Knobs are given as --name value" for word in unknown if not word.startswith("-")]
    values = {name: value for name in knobs if (value := getattr(parsed, name)) is not None}
    if problems and not parsed.help:
        raise ConfigError(problems + _problems_of(values))
    return parsed, values


def _joined(arguments: list[str]) -> list[str]:
    """`--name value` as `--name=value`, so that values may begin with a dash and unknown flags keep theirs."""
    joined: list[str] = []
    words = iter(arguments)
    for word in words:
        if word.startswith("--") and "=" not in word and word not in ("--help", "--project_defaults"):
            value = next(words, None)
            if value is not None and value.startswith("--"):
                raise ValueError(f"{word} has no value: the next word is {value}")
            if value is None:
                raise ValueError(f"{word} has no value")
            word = f"{word}={value}"
        joined.append(word)
    return joined


def _problems_of(values: dict[str, str]) -> list[str]:
    try:
        RunConfig.from_mapping(values)
    except ConfigError as error:
        return error.problems
    return []


def load_config(values: dict[str, Any], file: str | None, project_defaults: bool = False) -> RunConfig:
    """The config of a file, if one is given, with the flags' values over it.

    Args:
        values: knobs from flags, as typed.
        file: a YAML file of knobs.
        project_defaults: the flags come from MLproject, which gives every declared knob, default or not: those that
            only repeat the default do not win over the file.

    Raises:
        ValueError: for a file that cannot be read; ConfigError for wrong knobs, all at once.
    """
    if file is None:
        return RunConfig.from_mapping(values)
    if project_defaults:
        values = _without_defaults(values)
    return RunConfig.from_mapping({**_read_knobs(Path(file)), **values})


def _without_defaults(values: dict[str, Any]) -> dict[str, Any]:
    default = RunConfig().as_dict()
    return {name: value for name, value in values.items() if str(value) != str(default[name])}


def _read_knobs(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"config file {path} cannot be read ({error.strerror}); give a YAML file of knobs") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"config file {path} is not YAML ({reason}); expected lines like `epochs: 20`") from None
    if not isinstance(content, dict):
        raise ValueError(f"config file {path} holds {type(content).__name__}, expected lines like `epochs: 20`")
    return {str(name): value for name, value in content.items()}


def train_help() -> str:
    """The help of the train verb: every knob with meaning, range and default."""
    lines = [
        "usage: python -m pipeline train [--config FILE] [--KNOB VALUE ...]",
        "       python -m pipeline train --resume RUN [--epochs MORE]",
        "",
        "Train once, record the run in MLflow, register the model; or go on with an interrupted run.",
        "",
        "  --resume RUN        `last`, a run folder, its name or its MLflow run id",
        "  --config FILE       YAML file of knobs; flags win over it (every run logs its own config.yaml)",
        "",
        "knobs:",
    ]
    default = RunConfig()
    for knob in dataclasses.fields(RunConfig):
        value = "DATASET-mlp" if knob.name == "model_name" else getattr(default, knob.name)
        facts = "; ".join(filter(None, [range_text(knob), f"default: {value if value != '' else 'empty'}"]))
        lines += [f"  --{knob.name:<18}{knob.metadata['meaning']}", f"{'':22}({facts})"]
    return "\n".join(lines)
