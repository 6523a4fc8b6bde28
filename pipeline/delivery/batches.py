"""What events of a journal mean on their way: which go in one request, which undo an earlier one, where they go."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pipeline.tracking.lines import LOST, Event

# MLflow's own limits of one request.
MOST = {"params": 100, "tags": 100, "values": 1000}
MOST_TOGETHER = 1000
BATCHED = ("start", "params", "metrics", "tags")
BARRIERS = ("resume", "end")  # they change the run's status, in their turn
FILES = ("artifact", "removal", "model")  # what goes to the artifact store, which may be another's
OWN_TAGS = 3  # that a start gets besides its own: its key, its parent, its name


def next_batch(events: list[Event], first: int) -> tuple[list[Event], int]:
    """The events from there on that fit into one request, and the index behind the last that was looked at.

    Files, datasets and models in between are passed over: what they are does not depend on what is logged.
    """
    sizes: Counter[str] = Counter()
    for index in range(first, len(events)):
        event = events[index]
        if event["kind"] in BARRIERS:
            return _batched(events[first:index]), index
        if event["kind"] in BATCHED:
            sizes.update({name: len(event.get(name, ())) for name in MOST})
            sizes["tags"] += OWN_TAGS * (event["kind"] == "start")
            if sizes.total() > MOST_TOGETHER or any(sizes[name] > most for name, most in MOST.items()):
                return _batched(events[first:index]), index
    return _batched(events[first:]), len(events)


def _batched(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event["kind"] in BATCHED]


def is_overtaken(event: Event, later: Iterable[Event]) -> bool:
    """Whether a later event says of the same artifact what becomes of it: that it is another now, or taken back."""
    path = event.get("path")
    return any(path is not None and each.get("path") == path for each in later)


def without_overwritten(event: Event, later: list[Event]) -> Event:
    """The event without the tags that events after it, which MLflow has already, have given another value."""
    overwritten = {name for each in later for name in each.get("tags", {}) if each["kind"] != "model"}
    if event["kind"] == "model" or not overwritten & set(event.get("tags", {})):
        return event
    return {**event, "tags": {name: text for name, text in event["tags"].items() if name not in overwritten}}


def directed(events: list[Event], elsewhere: dict[str, Any]) -> list[Event]:
    """The events with the run's begin as it is to be now, if somebody has sent the record elsewhere (`resend`)."""
    if not elsewhere or not events or events[0]["kind"] == LOST:
        return events
    named: dict[str, Any] = {name: elsewhere[name] for name in ("run_key", "experiment_name") if name in elsewhere}
    kept = events[0]["experiment_id"] if elsewhere["keep_experiment_id"] else None
    return [{**events[0], **named, "mlflow_run_id": None, "experiment_id": kept}, *events[1:]]
