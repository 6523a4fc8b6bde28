"""What a knob may be, and what is wrong with a value, in words."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipeline.config import signatures
from pipeline.config.roles import MOST, names_of
from pipeline.values import did_you_mean, short, unknown_name

LIMITS = {
    **{"gt": "above", "ge": "at least", "lt": "below", "le": "at most", "multiple_of": "a multiple of"},
    **{"min_length": "length at least", "max_length": "length at most", "pattern": "of the form"},
}


class ConfigError(ValueError):
    """Wrong knobs, all of them at once.

    Attributes:
        problems: one line for each.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n  ".join(["wrong input:", *problems]) if len(problems) > 1 else problems[0])


def kind_of(field: FieldInfo) -> type:
    """The type of a knob's value: str, int, float or bool."""
    kind: Any = field.annotation
    return str if get_args(kind) else kind


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The words that a knob may have; none: any."""
    return get_args(field.annotation)


def range_of(field: FieldInfo, value: float = 0) -> str:
    """What a knob may be: `one of mnist, kmnist`, `at least 0, below 1`, or nothing.

    Args:
        field: the knob.
        value: what it was given; the largest whole number of any knob is told if it was larger.
    """
    if choices := choices_of(field):
        return "one of " + ", ".join(choices)
    if names := names_of(field):
        return names.words
    limits = [
        (words, getattr(each, key)) for each in field.metadata for key, words in LIMITS.items() if hasattr(each, key)
    ]
    return ", ".join(
        f"{words} {f'{limit:g}' if isinstance(limit, float) else limit}"
        for words, limit in limits
        if limit != MOST or value > MOST
    )


def problem_of(error: ErrorDetails, fields: Mapping[str, FieldInfo]) -> str:
    """One of pydantic's errors as a line: what was given, what is allowed."""
    name, value = str(error["loc"][0]), error["input"]
    match error["type"]:
        case "missing":
            return f"{name} is missing: it has no default"
        case "extra_forbidden":
            return _unknown(name, fields)
        case "value_error":
            return f"{name} {error['ctx']['error']}"
        case "literal_error":
            close = did_you_mean(value, choices_of(fields[name]))
            return f"{name} {short(repr(value))} is not {range_of(fields[name])}{close}"
        case _:
            return f"{name} {short(repr(value))} is out of range: {range_of(fields[name], value) or 'finite'}"


def _unknown(name: str, fields: Mapping[str, FieldInfo]) -> str:
    """The line for a knob that there is not, or that another network or dataset has."""
    for owner in (*signatures.NETWORKS, *signatures.DATASETS):
        if name in signatures.knobs_of(owner):
            kind = "network" if owner in signatures.NETWORKS else "dataset"
            return f"{name} is a knob of {kind} {owner}, which is not the one that was chosen"
    return unknown_name("knob", name, fields)
