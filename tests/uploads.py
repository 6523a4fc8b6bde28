"""The world as the uploader sees it, with a clock that nobody waits for."""

import os
import sys
from types import SimpleNamespace

from pipeline.delivery import delivery, upload_loop
from pipeline.delivery.delivery import BlockedError
from pipeline.mlflow_client import connection

NO = ConnectionError("refused")
BLOCKED = BlockedError("the run is deleted", "restore it")


class World:
    """A clock that nobody waits for, the uploader's standard input, and what its deliveries meet.

    Attributes:
        news: (time, bytes) that arrive on the input, in order; None instead of bytes: it is closed.
        meets: errors of the deliveries to come, None for one that goes through; afterwards all do.
        met: (time, folder's name) of every delivery.
    """

    def __init__(self):
        self.now, self.news, self.meets, self.met, self.slept, self.done = 100.0, [], [], [], [], {}
        self.read_end, self.write_end = os.pipe()
        self.connected, self.asked_for = [], []

    def fileno(self):
        return self.read_end

    def monotonic(self):
        return self.now

    def strftime(self, form):
        assert form == "%H:%M:%S"
        return "12:34:56"

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def select(self, readable, writable, failing, timeout):
        assert (readable, writable, failing) == ([self.read_end], [], [])
        if not self.news or self.news[0][0] > self.now + timeout:
            assert timeout > 0 or not self.news or self.news[0][0] > self.now
            self.now += timeout
            assert self.now < 10_000, "it waits for ever"
            return [], [], []
        when, content = self.news.pop(0)
        self.now = max(self.now, when)
        if content is None:
            os.close(self.write_end)
        else:
            os.write(self.write_end, content)
        return readable, [], []

    def connect(self, uri):
        self.asked_for.append(uri)
        return f"client of {uri}"

    def deliver(self, folder):
        self.met.append((self.now - 100, folder.path.name))
        error = self.meets.pop(0) if self.meets else None
        if error:
            raise error
        self.done[folder.path] = len(folder.events())

    def put_in_place(self, monkeypatch):
        """Let the uploader live in it."""
        world = self

        class Delivery:
            def __init__(self, folder, client, known):
                self.folder, self.known = folder, known
                world.connected.append((folder.path.name, client))

            done = property(lambda self: world.done.get(self.folder.path, 0))

            def deliver(self):
                self.end = self.folder.ended()
                world.deliver(self.folder)

        system = SimpleNamespace(stdin=self, stdout=sys.stdout, executable=sys.executable)
        for name, instead in (("time", self), ("select", self), ("sys", system)):
            monkeypatch.setattr(upload_loop, name, instead)
        monkeypatch.setattr(upload_loop, "now_ms", lambda: round(self.now * 1000))
        monkeypatch.setattr(delivery, "Delivery", Delivery)
        monkeypatch.setattr(connection, "connect", self.connect)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.test")
        return self
