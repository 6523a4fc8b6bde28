"""Values as a person typed them: taken exactly, shown short where wrong or many, and guessed at where misspelt."""

import contextlib
import difflib
import math
from collections.abc import Callable, Iterable
from fractions import Fraction

Value = str | int | float | bool
MOST_CHARACTERS = 10_000  # of a value: no path or number is longer
TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def exactly(value: object, kind: type) -> Value:
    """The value as text, a whole number, a number, or true or false: nothing is rounded or guessed.

    Args:
        value: text from a flag, anything from a file.
        kind: str, int, float or bool.

    Raises:
        ValueError: if the value is none, saying what is.
    """
    convert, wanted = KINDS[kind]
    if isinstance(value, str | int | float) and (kind is bool or not isinstance(value, bool)):
        with contextlib.suppress(ValueError):
            text = str(value).strip()
            if "\0" not in text and len(text) <= MOST_CHARACTERS:
                return convert(text)
    raise ValueError(f"{short(repr(value))} is not {wanted}")


def _truth(text: str) -> bool:
    if text.lower() not in TRUTHS:
        raise ValueError
    return TRUTHS[text.lower()]


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


KINDS: dict[type, tuple[Callable[[str], Value], str]] = {
    str: (str, "text"),
    int: (_whole, "a whole number"),
    float: (_real, "a number"),
    bool: (_truth, "true or false"),
}


def short(text: str) -> str:
    """The text, or its beginning where it is long."""
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def some(names: Iterable[str], most: int = 5) -> str:
    """`a, b, c and 4 more`: the first names, and how many there are beyond."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most:,} more" if len(listed) > most else "")


def counted(number: int, thing: str, verb: str = "") -> str:
    """`1 column`, `1,200 columns`; with the verb "wait" `1 record waits`, `2 records wait`."""
    if number == 1:
        verb = "is" if verb == "are" else f"{verb}s" * bool(verb)
    return " ".join(filter(None, (f"{number:,}", f"{thing}{'s' * (number != 1)}", verb)))


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: bytes of a name that are no text reach Python as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'epochs'?` if something known is close, else nothing."""
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """What is known and close to the word, or nothing."""
    return next(iter(difflib.get_close_matches(word[:80], list(known), n=1)), "")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The line for a name that nobody knows."""
    return f"unknown {kind} {short(repr(name))}{did_you_mean(name.lstrip('-').replace('-', '_'), known)}"


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
