"""The formats of a run's files, above all the journal's: one event a line, `checksum json`.

A damaged line costs its own event and no other.

Every event carries its number `n`, so that a line that is torn apart, or two that have run together, shift none of the
others: where an event is missing a placeholder of kind `lost` stands, with what can still be read of it.
"""

import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Event = dict[str, Any]

PARTS, EPOCH = ("values", "not_finite"), "epoch"  # of metrics; what Lightning says beside them
LOST = "lost"
CHECKSUM = "checksum"

_BEGIN = re.compile(rb"(?=[0-9a-f]{8} \{\"[^,:}\]])")  # and not the end of a text that looks like it
_KIND = re.compile(rb'"kind":"([a-z]+)"')
_STEP = re.compile(rb'"step":(\d{1,9})')
_NUMBER = re.compile(rb'"n":(\d{1,9})[,}]')
_HALF = re.compile("[\ud800-\udfff]")


def as_text(value: object) -> str:
    """What a record holds of a value that it takes as text, whatever a class of the user's does.

    What no protocol takes, half a character (a byte of a name that is no UTF-8), becomes U+FFFD.
    """
    try:
        return _HALF.sub("\ufffd", str(value))
    except Exception as error:  # a record that lacks a word is no reason to end
        return f"<{type(value).__name__} that has no text: {type(error).__name__}>"


def as_texts(values: Mapping[Any, Any]) -> dict[str, str]:
    """The values under their names, both as texts."""
    return {as_text(name): as_text(value) for name, value in values.items()}


def bytes_of(path: Path, end: int | None = None) -> bytes:
    """The file's content, or its first (last, if negative) bytes; nothing if there is no file."""
    try:
        with path.open("rb") as file:
            if end is not None and end < 0:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size + end))
                return file.read()
            return file.read(-1 if end is None else end)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def line_of(event: Event) -> bytes:
    """The event as the journal holds it.

    Raises:
        TypeError, ValueError: if JSON does not take it.
    """
    text = json.dumps(event, separators=(",", ":"), allow_nan=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def parse(line: bytes) -> Event | None:
    """The event of a line without its line break; None if it is damaged."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    known = isinstance(event, dict) and isinstance(event.get("kind"), str) and type(event.get("time")) in (int, float)
    return event if known else None


def read(content: bytes, elsewhere: Iterable[Event] = ()) -> tuple[list[Event], int]:
    """All events, and the number of bytes that stand: behind them there is a torn last line, or nothing.

    Args:
        content: the journal's.
        elsewhere: whole events that lie in another file once more; they take the place of lost ones.
    """
    events: list[Event] = []
    damaged: list[Event] = []
    for piece in _pieces(content):
        if piece["kind"] == LOST and "n" not in piece:
            damaged.append(piece)
        else:
            _place(events, piece, damaged)
            damaged = []
    for before, piece in zip([None, *damaged], damaged, strict=False):
        if piece["begins"] or before is None:  # else the rest of the one before, which a new line break tore in two
            events.append(_placeholder(events, piece))
    for event in elsewhere:
        _place(events, event, [])
    return events, _standing(content)


def whole(content: bytes) -> list[Event]:
    """The undamaged events alone."""
    return [piece for piece in _pieces(content) if piece["kind"] != LOST]


def _pieces(content: bytes) -> Iterator[Event]:
    """What the lines hold, each an event or, without a number, what can be read of a damaged one."""
    *lines, torn = content[: _standing(content)].split(b"\n")
    for line in [*lines, torn] if torn else lines:
        event = parse(line)
        yield from [event] if event else _run_together(line)


def _run_together(line: bytes) -> Iterator[Event]:
    """A damaged line may hold several events, whose line breaks were what was damaged."""
    for part in filter(None, _BEGIN.split(line)):
        yield _at_front(part) or _remains(part)


def _at_front(part: bytes) -> Event | None:
    """The whole event that the part begins with, whatever stands behind it in place of the line break."""
    try:
        end = json.JSONDecoder().raw_decode(part[9:].decode("ascii", "replace"))[1]
    except (ValueError, RecursionError):
        return None
    return parse(part[: 9 + end])


def _remains(part: bytes) -> Event:
    """What can be read of a damaged line; none of it is sure."""
    kind, step, number = _KIND.search(part), _STEP.search(part), _NUMBER.search(part)
    about = [kind[1].decode() if kind else "", f"of epoch {step[1].decode()}" if step else ""]
    guess = {"guess": int(number[1])} if number else {}
    begins = _BEGIN.match(part) is not None
    return {"kind": LOST, "was": about[0], "about": " ".join(filter(None, about)), "begins": begins, **guess}


def _place(events: list[Event], event: Event, damaged: list[Event]) -> None:
    """Put the event where it belongs; the gap before it is what was lost."""
    number = event.get("n")
    if type(number) is not int or number < 0:
        number = len(events) + len(damaged)  # written before events had numbers
    remains = {each["guess"]: each for each in damaged if "guess" in each}
    unnumbered = [each for each in damaged if "guess" not in each]
    while len(events) < number:
        found = remains.pop(len(events), None) or (unnumbered.pop(0) if unnumbered else {})
        events.append(_placeholder(events, found))
    if number == len(events):
        events.append(event)
    elif events[number]["kind"] == LOST:
        events[number] = event


def _placeholder(events: list[Event], found: Event) -> Event:
    time = events[-1]["time"] if events else 0
    return {"kind": LOST, "time": time, "n": len(events), "was": found.get("was", ""), "about": found.get("about", "")}


def _standing(content: bytes) -> int:
    """The bytes up to a torn last line. One that only its line break is missing from, or damaged in, is not torn."""
    end = content.rfind(b"\n") + 1
    last = content[end:]
    if parse(last):
        return len(content)
    if parse(last[:-1]):
        return len(content) - 1
    parts = [part for part in _BEGIN.split(last) if part]
    if len(parts) > 1:  # all but the last of those that have run together were whole lines once
        return len(content) - len(parts[-1])
    return end


def state_content(state: Mapping[str, Any]) -> bytes:
    """The uploader's state as its file holds it."""
    return json.dumps({**state, CHECKSUM: _checksum(state)}).encode()


def read_state(content: bytes) -> tuple[dict[str, Any], bool]:
    """The state, and whether it is as it was written; what is not of its type is left out."""
    try:
        state = json.loads(content)
    except (ValueError, RecursionError):
        return {}, False
    if not isinstance(state, dict) or state.pop(CHECKSUM, None) not in (None, _checksum(state)):
        return {}, False
    whole = {name: value for name, value in state.items() if name not in STATE_TYPES or STATE_TYPES[name](value)}
    if not whole.get("run_id"):  # then nothing can have been delivered
        whole.pop("delivered", None)
    return whole, whole == state or not state.get("run_id")


def steps_of(events: Iterable[Event]) -> dict[str, Counter[int]]:
    """How many values stand at each step of each metric, of several fits in one run the last one's.

    Where the steps of a metric go back another fit began, of all metrics if Lightning tells the epoch beside it: what
    a script logs by itself, as by the batch's number, may go back in each epoch. Lightning's `epoch` stands at the
    steps of training and validation in turn, and says nothing by them.
    """
    steps: dict[str, Counter[int]] = {}  # in their order
    for event in (event for event in events if event["kind"] == "metrics"):
        step, names = event["step"], [name for part in PARTS for name in event.get(part, ())]
        back = [name for name in names if name != EPOCH and step < next(reversed(steps.get(name, {})), step)]
        for name in list(steps) if back and EPOCH in names else back:
            del steps[name]
        for name in names:
            steps.setdefault(name, Counter())[step] += 1
    return steps


def takes_one(steps: dict[str, Counter[int]], name: str, step: int) -> bool:
    """Whether a value still stands there, which is taken from the count."""
    if stands := name in steps and steps[name][step] > 0:
        steps[name][step] -= 1
    return stands


def waiting(state: Mapping[str, Any], count: int) -> int:
    """How many of so many records MLflow does not have and may take yet, as the run's state says it."""
    refused = (each for each in state.get("refused", ()) if isinstance(each, dict) and not each["final"])
    return count - int(state.get("delivered", 0)) + len({each["event"] for each in refused})


def _checksum(state: Mapping[str, Any]) -> str:
    text = json.dumps({name: value for name, value in state.items() if name != CHECKSUM}, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"


def _is_trouble(value: object) -> bool:
    return value is None or (
        isinstance(value, dict) and isinstance(value.get("since"), int) and isinstance(value.get("error"), str)
    )


STATE_TYPES = {
    "run_id": lambda value: isinstance(value, str),
    "experiment_id": lambda value: isinstance(value, str),
    "elsewhere": lambda value: isinstance(value, dict),
    "told": lambda value: isinstance(value, str),
    "delivered": lambda value: type(value) is int and value >= 0,
    "refused": lambda value: isinstance(value, list),
    "versions": lambda value: isinstance(value, dict),
    "tracking_uri": lambda value: isinstance(value, str),
    "trouble": _is_trouble,
}
