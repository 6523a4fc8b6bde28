"""Who may stay connected: headers come in time, answers are taken, nobody takes all.

uvicorn alone waits for ever for headers that have begun and for a client that does not read, and beyond its limit
answers everybody 503. Here a connection that only waits makes room for one that may have something to ask.
"""

from asyncio import TimerHandle, Transport
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

CROWDED = "crowded"  # in a request's state: only probes are answered on this connection


@dataclass(frozen=True)
class Limits:
    """What connections may take; times in seconds.

    Attributes:
        most: connections that are answered.
        per_address: of these, how many one address may hold. A reverse proxy is one address, so it is nearly all.
        spare: how many more are read, to answer probes, when nobody makes room; any others are closed.
        headers_within: from the first byte of a request, or from connecting, to the end of its headers.
        idle: from an answer to the next request.
        taken_within: until a client has read what was sent.
        last_words: at the end of the service, until idle connections are closed: a request may be on its way.
        header_bytes: of one request.
    """

    most: int = 1000
    per_address: int = 900
    spare: int = 50
    headers_within: float = 10.0
    idle: float = 30.0
    taken_within: float = 20.0
    last_words: float = 0.3
    header_bytes: int = 64 * 1024

    @property
    def files(self) -> int:
        """Open files that the connections may need."""
        return self.most + self.spare

    def scaled_to(self, files: int) -> "Limits":
        """The same shares of fewer connections, if so many files may be open for them."""
        if files >= self.files:
            return self
        most, spare = max(8, files * 9 // 10), max(2, files // 10)
        return replace(self, most=most, per_address=most * 9 // 10, spare=spare)


class Room:
    """Counts the connections of each address, and knows which of them only wait, the longest first.

    `ended` is called with the reason for which a connection was closed early.
    """

    def __init__(self, limits: Limits, ended: Callable[[str], None]) -> None:
        self.limits, self.ended = limits, ended
        self.held: Counter[str] = Counter()
        self.waiting: dict[Connection, None] = {}

    @property
    def total(self) -> int:
        return self.held.total()

    def enter(self, new: "Connection") -> bool:
        """Let a connection in, crowded or not; False: there is no room for it at all."""
        if self.total >= self.limits.files and not self._makes_room(new.address):
            self.ended("turned away")
            return False
        self.held[new.address] += 1
        over = self.held[new.address] > self.limits.per_address or self.total > self.limits.most
        new.crowded = over and not self._makes_room(new.address)
        new.inside = True
        self.waiting[new] = None
        return True

    def _makes_room(self, address: str) -> bool:
        """End the connection that waits longest: the newcomer's neighbour if their share is full, or any."""
        if self.held[address] <= self.limits.per_address:
            address = max((each.address for each in self.waiting), key=self.held.__getitem__, default=address)
        for longest in self.waiting:
            if longest.address == address:
                self.leave(longest)
                longest.end("made room")
                return True
        return False

    def leave(self, connection: "Connection") -> None:
        if connection.inside:
            connection.inside = False
            self.waiting.pop(connection, None)
            self.held[connection.address] -= 1
            if not self.held[connection.address]:
                del self.held[connection.address]


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with a deadline for every state in which only the client can go on."""

    def __init__(self, *arguments: Any, room: Room, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.room, self.limits = room, room.limits
        self.address = ""
        self.crowded = self.inside = self.ending = self.in_headers = self.aborted = False
        self.received = 0  # bytes since the last request was complete, but for what came while it was answered
        self.deadline: TimerHandle | None = None
        self.untaken: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Find room, or close at once; then the headers' time begins."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        if not self.room.enter(self):
            transport.abort()
            return
        if self.crowded:
            self.app_state = {**self.app_state, CROWDED: True}
        self.deadline = self.loop.call_later(self.limits.headers_within, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self.deadline, self.untaken):
            if timer:
                timer.cancel()
        self.deadline = self.untaken = None
        self.room.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; what is no whole request yet has a deadline that further bytes do not put off."""
        if self.cycle is None or self.cycle.response_complete:
            self.received += len(data)
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            if self.in_headers and self.received > self.limits.header_bytes:
                self._refuse(431, f"the headers are larger than {self.limits.header_bytes >> 10} KiB", "large headers")
            elif self.deadline is None and not self.transport.is_closing():
                self.deadline = self.loop.call_later(self.limits.headers_within, self._late)

    def on_message_begin(self) -> None:
        self.in_headers = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request is under way."""
        self.in_headers = False
        if self.deadline:
            self.deadline.cancel()
            self.deadline = None
        self.room.waiting.pop(self, None)  # it is not ended for others
        super().on_headers_complete()
        if self.crowded or self.ending:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """A body has ended, if only after its answer: it is not counted to the next request's headers."""
        self.received = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait again, or see that the last answer is taken."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._last_bytes()
        elif self.cycle.response_complete and self.inside:
            self.room.waiting[self] = None  # the last of those
            if self.in_headers and self.deadline is None:  # they began while the answer was under way
                self.deadline = self.loop.call_later(self.limits.headers_within, self._late)

    def pause_writing(self) -> None:
        """The client does not read; it has a while to begin."""
        super().pause_writing()
        self.untaken = self.untaken or self.loop.call_later(self.limits.taken_within, self.end, "not read")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.untaken and not self.transport.is_closing():
            self.untaken.cancel()
            self.untaken = None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, whether or not its last answer was read."""
        self._late()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is refused in the form of all refusals."""
        self._refuse(400, f"{msg} Send HTTP/1.1, without TLS", "no HTTP")

    def shutdown(self) -> None:
        """The service ends: what is under way is answered, and so is what is on its way to an idle connection."""
        self.ending = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(self.limits.last_words, self._close_if_idle)
        else:
            super().shutdown()

    def end(self, reason: str) -> None:
        if self.aborted or (self.transport.is_closing() and not self.transport.get_write_buffer_size()):
            return
        self.aborted = True
        self.room.ended(reason)
        self.transport.abort()

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
            self._last_bytes()

    def _late(self) -> None:
        self.deadline = None
        if self.in_headers:
            within = f"{self.limits.headers_within:g} s"
            self._refuse(408, f"the headers did not come within {within}; send them at once", "slow headers")
        else:
            self.end("idle")

    def _refuse(self, status: int, message: str, reason: str) -> None:
        if self.transport.is_closing():
            return
        self.room.ended(reason)
        body = orjson.dumps({"error_code": "REQUEST_TIMEOUT" if status == 408 else "BAD_REQUEST", "message": message})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
        self._last_bytes()

    def _last_bytes(self) -> None:
        """A closed connection lives on until its client has read what was sent, but not for ever."""
        self.untaken = self.untaken or self.loop.call_later(self.limits.taken_within, self.end, "not read")
