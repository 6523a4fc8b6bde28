"""The knobs as flags and as a file: what was typed, checked word by word; and the help that lists them."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from pipeline.config import ConfigError, RunConfig
from pipeline.terminal.shell import home
from pipeline.values import range_text, unknown_name

# The knobs that MLproject gives whether a person typed them or not; a test holds the two together.
OF_MLPROJECT = (
    "epochs",
    "batch_size",
    "hidden_units",
    "hidden_layers",
    "dropout",
    "optimizer",
    "learning_rate",
    "seed",
    "dataset",
    "validation_size",
)


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
    for name in ("data_dir", "runs_dir"):
        if name in values:
            values[name] = home(values[name])
    parsed.config, parsed.resume = (home(word) if word else word for word in (parsed.config, parsed.resume))
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
    """The config of a file, if one is given, with the flags' values over it; see `given_knobs`.

    Raises:
        ValueError: for a file that cannot be read; ConfigError for wrong knobs, all at once.
    """
    return RunConfig.from_mapping(given_knobs(values, file, project_defaults))


def given_knobs(values: dict[str, Any], file: str | None, project_defaults: bool = False) -> dict[str, Any]:
    """The knobs that were given: those of a file, if there is one, with the flags' values over them.

    Args:
        values: knobs from flags, as typed.
        file: a YAML file of knobs.
        project_defaults: the flags come from MLproject, which gives every knob that it declares, typed or not: of
            those the ones that only repeat the default do not win over the file.

    Raises:
        ValueError: for a file that cannot be read.
    """
    given = without_defaults(values) if project_defaults else values
    return given if file is None else {**read_knobs(Path(file)), **given}


def without_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """The values without those that MLproject may have given by itself."""
    default = RunConfig().as_dict()
    return {
        name: value for name, value in values.items() if name not in OF_MLPROJECT or str(value) != str(default[name])
    }


def read_knobs(path: Path) -> dict[str, Any]:
    """The knobs of a YAML file.

    Raises:
        ValueError: if it cannot be read or holds something else.
    """
    from pipeline.yaml_files import read_yaml

    try:
        _, content = read_yaml(path, "config file")
    except OSError as error:
        raise ValueError(f"config file {path} cannot be read ({error.strerror}); give a YAML file of knobs") from None
    except ValueError as error:
        raise ValueError(f"{error}; expected lines like `epochs: 20`") from None
    if not isinstance(content, dict):
        raise ValueError(f"config file {path} holds {type(content).__name__}, expected lines like `epochs: 20`")
    return content


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
        value = getattr(default, knob.name)
        facts = "; ".join(filter(None, [range_text(knob), f"default: {value if value != '' else 'empty'}"]))
        lines += [f"  --{knob.name:<18}{knob.metadata['meaning']}", f"{'':22}({facts})"]
    return "\n".join(lines)
