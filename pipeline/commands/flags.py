"""The knobs as flags and as a file: what was typed, checked word by word; and the help that lists them."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.commands.parsing import Parser
from pipeline.config import COMMON, KNOBS, OWNERS, ROLES, ConfigError, RunConfig, class_of, problems_of
from pipeline.config.signatures import DATASETS, NETWORKS, knobs_of
from pipeline.config.words import range_of
from pipeline.terminal.shell import home

ELSEWHERE = {name for owner in (*NETWORKS, *DATASETS) for name in knobs_of(owner)}
MLPROJECTS = [name for name, role in ROLES.items() if role.of_mlproject]


def parse_knobs(parser: Parser, arguments: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Split the arguments into options and knobs as typed; the option `config` is what the file holds.

    Raises:
        ConfigError: naming every word that is neither, and with it every wrong value.
        ValueError: for a file that cannot be read.
    """
    owners, file = _owners_and_file(parser, arguments)
    known = class_of(owners)
    _add_flags(parser, known)
    options, unknown = parser.parse_known_args(parser.joined(arguments))
    options.config = file
    values = {name: value for name, value in vars(options).items() if name in ELSEWHERE | known.model_fields.keys()}
    problems = [parser.unknown(word) for word in unknown if word.startswith("-")]
    problems += [f"what is {word!r}? Knobs are given as --name value" for word in unknown if not word.startswith("-")]
    if problems:
        raise ConfigError(problems + problems_of({**owners, **values}))
    return options, values


def _owners_and_file(parser: Parser, arguments: list[str]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Which network and dataset are given, by flag or else by the file: they bring knobs of their own. And the file."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in (*OWNERS, "config"):
        first.add_argument(f"--{name}", f"--{name.replace('_', '-')}", nargs="?")
    given = {name: value for name, value in vars(first.parse_known_args(parser.joined(arguments))[0]).items() if value}
    path = given.pop("config", None)
    if path is None or {"-h", "--help"} & set(arguments):
        return given, None
    file = read_knobs(Path(home(path)))
    return {**{name: file[name] for name in OWNERS if name in file}, **given}, file


def _add_flags(parser: Parser, known: type[RunConfig]) -> None:
    parser.usage = (
        f"{parser.prog} [--config FILE] [--KNOB VALUE ...]\n       {parser.prog} --resume RUN [--epochs MORE]"
    )
    parser.add_argument(
        "--resume", type=home, metavar="RUN", help="`last`, a run folder, its name or its MLflow run id"
    )
    parser.add_argument(
        "--config",
        type=home,
        metavar="FILE",
        help="YAML file of knobs; flags win over it (every run logs its own config.yaml)",
    )
    parser.add_argument("--project_defaults", action="store_true", help=argparse.SUPPRESS)
    knobs = parser.add_argument_group("knobs")
    sample = RunConfig().as_dict()
    for name, knob in known.model_fields.items():
        default = sample[name] if name in COMMON else knob.default
        what = "it has no default" if knob.is_required() else f"default: {default if default != '' else 'empty'}"
        facts = "; ".join(filter(None, [range_of(knob), what]))
        words = f"{knob.description or ''} ({facts})".strip().replace("%", "%%")
        knobs.add_argument(f"--{name}", metavar="", default=argparse.SUPPRESS, help=words)
    for name in ELSEWHERE - known.model_fields.keys():  # the config says whose they are
        knobs.add_argument(f"--{name}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def given_knobs(
    values: Mapping[str, Any], file: Mapping[str, Any] | None, project_defaults: bool = False
) -> dict[str, Any]:
    """The knobs that were given: those of a file, if there is one, with the flags' values over them.

    Args:
        values: knobs from flags, as typed.
        file: the knobs of a file, if one is given.
        project_defaults: the flags come from MLproject, which gives every knob that it declares, typed or not: of
            those the ones that only repeat the default do not win over the file.

    """
    given = {
        name: value
        for name, value in values.items()
        if not (project_defaults and name in MLPROJECTS and str(value) == str(KNOBS[name].default))
    }
    return {**(file or {}), **given}


def read_knobs(path: Path) -> dict[str, Any]:
    """The knobs of a YAML file.

    Raises:
        ValueError: if it cannot be read or holds something else.
    """
    from pipeline.config.yaml_files import read_yaml

    try:
        _, content = read_yaml(path, "config file")
    except OSError as error:
        raise ValueError(f"config file {path} cannot be read ({error.strerror}); give a YAML file of knobs") from None
    except ValueError as error:
        raise ValueError(f"{error}; expected lines like `epochs: 20`") from None
    if not isinstance(content, dict):
        raise ValueError(f"config file {path} holds {type(content).__name__}, expected lines like `epochs: 20`")
    return content
