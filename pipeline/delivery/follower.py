"""A journal that is read again and again while it grows: from where the last reading ended."""

from pipeline.tracking import lines
from pipeline.tracking.journal import JOURNAL, RunFolder
from pipeline.tracking.lines import LOST, Event


class Follower:
    """Reads a run's events; of a run that logs ten thousand times each event once, not five thousand times.

    What is damaged behind its back it notices only when the journal has become shorter, or in its new part.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.end: Event | None = None  # what closed the run, as far as was read; None: it goes on
        self._events: list[Event] = []
        self._bytes = 0

    def events(self) -> list[Event]:
        """All events, as the folder gives them."""
        new = self._new()
        if new is None:
            events, self._bytes = self.folder.read()
            self._events, self.end = events, None
            self._note_end(events)
            if any(event["kind"] == LOST for event in events):
                self._bytes = 0
        else:
            self._events = self._events + new
            self._note_end(new)
        return self._events

    def _note_end(self, events: list[Event]) -> None:
        last = next((event for event in reversed(events) if event["kind"] in ("end", "resume")), None)
        if last:
            self.end = last if last["kind"] == "end" else None

    def _new(self) -> list[Event] | None:
        """The events behind those that are known, if they follow them whole; else None: read everything."""
        if not self._bytes:
            return None
        with (self.folder.path / JOURNAL).open("rb") as file:
            file.seek(self._bytes - 1)
            last, *content = file.readlines() or [b""]
        if last != b"\n":  # it was cut
            return None
        whole = [line for line in content if line.endswith(b"\n")]
        events = [event for line in whole if (event := lines.parse(line[:-1]))]
        numbers = list(range(len(self._events), len(self._events) + len(whole)))
        if [event.get("n") for event in events] != numbers:
            return None
        self._bytes += sum(map(len, whole))
        return events
