"""What a node has to say, kept until the experiment's process has it: numbered, in order, never more than a window."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Message = dict[str, Any]
PIECE = 4 << 20  # bytes of files in one message
WINDOW, MOST_WAITING = 2 * PIECE, 256  # bytes and messages that may wait
POLL_S = 10.0
LINGER_S = 0.05  # that what nobody waits for waits for what comes next: a poll an epoch, and not three
PROGRESS_S = 2.0  # between two polls for how far an epoch is, and nothing else: each takes from the training
URGENT = ("ready", "end")
FEW = 512  # bytes that a message takes beside the files in it


class Link:
    """The node's end of the connection. The training's thread sends, Ray's thread is polled.

    A message stays until a poll says that it was taken, so a poll that got lost is repeated and loses nothing.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int, Message]] = []
        self._sent = self._taken = self._bytes = 0
        self._refusal: OSError | None = None
        self._is_urgent = False
        self._progress: Message | None = None  # not queued: the next one, or what comes after it, takes its place

    def send(self, message: Message) -> None:
        """Queue a message; waits where too much is queued already.

        Raises:
            OSError: if the experiment's process could not write what was sent before.
        """
        size = FEW + sum(len(data) for _, _, data in message.get("pieces", ()))
        with self._changed:
            while self._waiting and (self._bytes + size > WINDOW or len(self._waiting) >= MOST_WAITING):
                self._hurry()
                self._changed.wait()
            self._raise_refusal()
            self._append(message, size)

    def send_files(self, files: Sequence[tuple[str, Path]], **rest: Any) -> None:
        """Send files by their names in the run's folder, which take their places together; `rest` goes with the last.

        Raises:
            OSError: as `send`; or if a file cannot be read.
        """
        pieces: list[tuple[str, int, bytes]] = []
        for piece in _pieces(files):
            if pieces and sum(len(data) for _, _, data in pieces) + len(piece[2]) > PIECE:
                self.send({"pieces": pieces})
                pieces = []
            pieces.append(piece)
        self.send({**({"pieces": pieces, "place": [name for name, _ in files]} if files else {}), **rest})

    def tell(self, **news: Any) -> None:
        """Say how it goes; what is only nice to know is left out while too much waits."""
        with self._changed:
            if "at" in news:
                self._progress = {"news": news}
                self._changed.notify_all()
                return
            if "line" in news and len(self._waiting) >= MOST_WAITING:
                return
            self._append({"news": news}, FEW)
            if any(name in news for name in URGENT):
                self._hurry()

    def wait_until_taken(self) -> None:
        """Wait until the experiment's process has everything on its disk.

        Raises:
            OSError: if it could not write something.
        """
        with self._changed:
            last = self._sent
            self._hurry()
            while self._taken < last:
                self._changed.wait()
            self._raise_refusal()

    def poll(
        self, taken: int, refusal: tuple[int, str] | None = None, patience_s: float = POLL_S
    ) -> list[tuple[int, Message]]:
        """What waits, with its numbers; waits a while for something to come.

        Args:
            taken: number of the last message that is on the disk there.
            refusal: errno and words, if the disk there has refused one of them.
            patience_s: longest wait.
        """
        with self._changed:
            if refusal:
                self._refusal = OSError(*refusal)
            while self._waiting and self._waiting[0][0] <= taken:
                self._bytes -= self._waiting.pop(0)[1]
            self._taken = max(self._taken, taken)
            self._is_urgent = self._is_urgent and bool(self._waiting)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._progress, patience_s)
            if self._progress:
                self._changed.wait_for(lambda: self._waiting, min(PROGRESS_S, patience_s))
            if self._waiting:
                self._changed.wait_for(lambda: self._is_urgent, min(LINGER_S, patience_s))
            elif self._progress:
                self._append(self._progress, FEW)
            self._is_urgent = False
            return [(number, message) for number, _, message in self._waiting]

    def _append(self, message: Message, size: int) -> None:
        self._progress = None
        self._sent += 1
        self._bytes += size
        self._waiting.append((self._sent, size, message))
        self._changed.notify_all()

    def _hurry(self) -> None:
        self._is_urgent = True
        self._changed.notify_all()

    def _raise_refusal(self) -> None:
        if self._refusal:
            refusal, self._refusal = self._refusal, None
            raise refusal


def _pieces(files: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, int, bytes]]:
    """Name, place in the file, bytes; an empty file is one empty piece."""
    for name, path in files:
        with path.open("rb") as file:
            offset = 0
            while (data := file.read(PIECE)) or not offset:
                yield name, offset, data
                offset += len(data)
                if not data:
                    break
