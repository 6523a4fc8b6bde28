"""A knob's value as a person gave it: converted exactly, checked against its range, and told where it is wrong."""

import contextlib
import dataclasses
import difflib
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

MOST_CHARACTERS = 10_000  # of a value: no path or number is longer
MOST = 2**53  # of a whole number: the largest up to which MLflow's and JSON's numbers are exact

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def convert(knob: "dataclasses.Field[Any]", value: object) -> str | int | float | bool:
    """The value as the knob's type, exactly: nothing is rounded or guessed.

    Raises:
        ValueError: if the value is not of the knob's type.
    """
    kind = {"int": int, "float": float, "bool": bool, "str": str}[_type_name(knob)]
    converters: dict[type, Any] = {int: _whole, float: _real, bool: _truth, str: str}
    if isinstance(value, str | int | float) and (kind is bool or not isinstance(value, bool)):
        with contextlib.suppress(ValueError):
            converted: str | int | float | bool = converters[kind](_typed(value))
            return converted
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
    raise ValueError(f"{knob.name} {_short(repr(value))} is not {wanted}")


def _typed(value: object) -> str:
    """The value as text.

    Raises:
        ValueError: if it holds a character that no path, name or parameter may have.
    """
    text = str(value).strip()
    if "\0" in text or len(text) > MOST_CHARACTERS:
        raise ValueError
    return text


def _type_name(knob: "dataclasses.Field[Any]") -> str:
    return knob.type if isinstance(knob.type, str) else knob.type.__name__


def _truth(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError
    return text.lower() in _TRUE


def _whole(text: str) -> int:
    """`12`, `12.0`, `1.2e1`, exactly."""
    number = _real(text)
    if not math.isfinite(number) or ("e" not in text.lower() and "." not in text):
        return int(text)
    exact = Fraction(text)
    if exact.denominator != 1:
        raise ValueError
    return exact.numerator


def _real(text: str) -> float:
    """The number; what Python takes and nobody means (`1_000`, digits of other scripts) is none. -0 is 0."""
    if not text.isascii() or "_" in text:
        raise ValueError
    return float(text) + 0.0


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def range_text(knob: "dataclasses.Field[Any]") -> str:
    """The allowed values in words: `one of mnist, kmnist`, `at least 0, below 1`, or nothing."""
    words = knob.metadata
    if words["choices"]:
        return "one of " + ", ".join(words["choices"])
    names = {"above": "above", "minimum": "at least", "maximum": "at most", "below": "below"}
    return ", ".join(f"{text} {words[name]:g}" for name, text in names.items() if words[name] is not None)


def range_problem(knob: "dataclasses.Field[Any]", value: Any) -> str | None:
    """What is wrong with the value, or None."""
    words = knob.metadata
    if words["choices"]:
        if value in words["choices"]:
            return None
        guess = did_you_mean(str(value)[:80], words["choices"])
        return f"{knob.name} {_short(repr(value))} is not {range_text(knob)}{guess}"
    if not isinstance(value, int | float):
        return None
    inside = (
        (abs(value) <= MOST if isinstance(value, int) else math.isfinite(value))
        and (words["above"] is None or value > words["above"])
        and (words["minimum"] is None or value >= words["minimum"])
        and (words["maximum"] is None or value <= words["maximum"])
        and (words["below"] is None or value < words["below"])
    )
    if inside:
        return None
    allowed = range_text(knob) or "finite"
    too_large = isinstance(value, int) and value > MOST and words["maximum"] is None
    return f"{knob.name} {_short(str(value))} is out of range: {allowed}{f', at most {MOST:g}' if too_large else ''}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'epochs'?` if something known is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The line for a name that nobody knows."""
    return f"unknown {kind} {_short(repr(name))}{did_you_mean(name[:80].lstrip('-').replace('-', '_'), known)}"
