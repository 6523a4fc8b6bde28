"""A connection of the service without a socket: what the server wrote, when it closed, a client that may not read."""

import asyncio

import uvicorn
from uvicorn.server import ServerState

from pipeline.serving.connections import CROWDED, Connection, Limits, Room
from tests.asgi import run_fast

PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"GET /half HTTP/1.1\r\nHost: x\r\nX-"


class Wire(asyncio.Transport):
    """What a connection believes is its socket. A client that does not read leaves all that was written untaken."""

    def __init__(self, address, reads=True):
        super().__init__({"peername": (address, 1) if address else None})
        self.written, self.reads, self.closing, self.aborted, self.lost = b"", reads, False, False, False
        self.ended_at = None

    def write(self, data):
        assert not self.closing, "written to what is closed"
        self.written += data

    def close(self):
        self.closing = True
        if self.reads:
            self._lose()

    def abort(self):
        assert not self.aborted, "aborted twice"
        self.aborted = self.closing = True
        self._lose()

    def read_all(self):
        """The client reads after all."""
        self.reads = True
        if self.closing:
            self._lose()

    def _lose(self):
        if not self.lost:
            self.lost = True
            loop = asyncio.get_running_loop()
            self.ended_at = loop.time()
            loop.call_soon(self.connection.connection_lost, None)

    def is_closing(self):
        return self.closing

    def get_write_buffer_size(self):
        return 0 if self.reads else len(self.written)

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


class Served:
    """A room, its connections' application and the reasons for which connections were ended."""

    def __init__(self, limits=None):
        self.reasons, self.scopes, self.state = [], [], ServerState()
        self.room = Room(limits or Limits(), self.reasons.append)
        idle = self.room.limits.idle
        self.config = uvicorn.Config(
            self.app, interface="asgi3", proxy_headers=False, lifespan="off", log_config=None, timeout_keep_alive=idle
        )
        self.config.load()
        self.app_state = {}

    async def app(self, scope, receive, send):
        """Answer its path, at once or after as many seconds as the query says."""
        self.scopes.append(scope)
        await asyncio.sleep(float(scope["query_string"] or 0))
        body = scope["path"].encode() + b" crowded" * (CROWDED in scope["state"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    def connect(self, said=b"", address="192.0.2.1", **options):
        wire = Wire(address, **options)
        loop = asyncio.get_running_loop()
        connection = Connection(self.config, self.state, self.app_state, loop, room=self.room)
        wire.connection = connection
        connection.connection_made(wire)
        wire.say = connection.data_received
        if said:
            wire.say(said)
        return wire


async def until(seconds):
    """Wait until that instant of the loop's clock."""
    await asyncio.sleep(seconds - asyncio.get_running_loop().time())


def answers(wire):
    """Status lines and bodies of what was written."""
    found, rest = [], wire.written
    while rest:
        head, rest = rest.split(b"\r\n\r\n", 1)
        size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        found.append((head.split(b"\r\n")[0].decode(), rest[:size].decode()))
        rest = rest[size:]
    return found


def scenario(play, limits=None):
    """Play with connections, on a clock that jumps; returns the reasons for which connections were ended."""

    async def run():
        served = Served(limits)
        await play(served)
        return served

    served = run_fast(run())
    return served.reasons
