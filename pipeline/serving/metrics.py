"""What can be watched: Prometheus metrics, and log lines as JSON."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.orjson import OrjsonFormatter

from pipeline.redaction import without_secrets

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
EXAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
BOUNDS = np.array(CONFIDENCES, np.float32)
WRITTEN_WITHIN_S = 0.05
access = logging.getLogger("pipeline.access")


class Telemetry:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        kept: dict[str, Any] = {"namespace": "pipeline", "registry": self.registry}
        self.requests = Counter("requests", "Requests by route and status.", ["route", "status"], **kept)
        self.errors = Counter("errors", "Refused or failed requests by kind.", ["kind"], **kept)
        self.seconds = Histogram("request_seconds", "Time to answer.", ["route"], buckets=SECONDS, **kept)
        self.examples = Histogram("batch_examples", "Examples per request.", buckets=EXAMPLES, **kept)
        self.version = Gauge("model_version", "1 for the version that serves.", ["model", "version"], **kept)
        self.following = Gauge("following", "1 if the last look at the alias went well.", **kept)
        self.follow_failures = Counter("follow_failures", "Looks at the alias that failed.", ["reason"], **kept)
        self.exchanges = Counter("model_exchanges", "Times that a version began to serve.", **kept)
        self.connections = Gauge("connections", "Connections that are open.", **kept)
        self.ends = Counter("connections_ended", "Connections closed early, by reason.", ["reason"], **kept)
        self.classes = Counter("predicted_class", "Predictions by class.", ["class"], **kept)
        self._of_class: dict[str, Counter] = {}
        self.confidence = Histogram("confidence", "Probability of the predicted class.", buckets=CONFIDENCES, **kept)
        self.access = AccessLog()
        # `labels` takes a lock and a look-up of its own, at each request.
        self._of = cache(lambda route, status: (self.requests.labels(route, status), self.seconds.labels(route)))

    def answered(self, route: str, status: int, seconds: float) -> None:
        requests, durations = self._of(route, status)
        requests.inc()
        durations.observe(seconds)

    def predicted(self, probabilities: NDArray[np.float32], classes: Sequence[str]) -> None:
        """Count the predictions of a request, (N, classes).

        Not by `observe`, one at a time: that would take 8 % of the time of a request for 64 images. What a version that
        was just replaced says of a class that the new one does not have is not counted.
        """
        self.examples.observe(len(probabilities))
        for best in probabilities.argmax(axis=1).tolist():
            if counter := self._of_class.get(classes[best]):
                counter.inc()
        sure = probabilities.max(axis=1)
        for bucket, count in enumerate(np.bincount(np.searchsorted(BOUNDS, sure)).tolist()):
            if count:
                self.confidence._buckets[bucket].inc(count)
        self.confidence._sum.inc(float(sure.sum()))

    def serving(self, model: str, version: str, classes: Sequence[str]) -> None:
        """Note the version that serves now, and its classes."""
        self.version.clear()
        self.version.labels(model, version).set(1)
        self.exchanges.inc()
        for gone in self._of_class.keys() - set(classes):
            self.classes.remove(gone)
        self._of_class = {name: self.classes.labels(name) for name in classes}


class AccessLog:
    """A JSON line for each request, written by the event loop a few at a time; nothing where the level keeps it back.

    Through `logging` and its formatter a line would take eight times as long, a tenth of all that a request takes.
    """

    def __init__(self) -> None:
        self.stream = sys.stderr.buffer
        self._lines: list[bytes] = []

    def write(self, facts: dict[str, Any]) -> None:
        if not access.isEnabledFor(logging.INFO):
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(WRITTEN_WITHIN_S, self.flush)
        now = _instant(datetime.now(UTC))
        self._lines.append(orjson.dumps({"time": now, "level": "info", "message": "request", **facts}))

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            return
        with contextlib.suppress(OSError, ValueError):  # nobody reads the log, or its disk is full: service goes on
            self.stream.write(b"\n".join(lines) + b"\n")
            self.stream.flush()


def _instant(time: datetime) -> str:
    """`2026-11-23T16:16:18.123Z`."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonLines(OrjsonFormatter):
    """One JSON object a line: time, level, message and whatever facts the record carries as `extra`."""

    def __init__(self) -> None:
        names = {"asctime": "time", "levelname": "level", "exc_info": "traceback"}
        known = [*RESERVED_ATTRS, "color_message"]  # uvicorn's message again, for a terminal
        shown = ["asctime", "levelname", "message"]
        super().__init__(shown, rename_fields=names, reserved_attrs=known, json_default=str)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _instant(datetime.fromtimestamp(record.created, UTC))

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return log_data | {"level": log_data["level"].lower()}

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def log_as_json(level: str) -> None:
    """Let every logger of the process write such lines to the error output."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
