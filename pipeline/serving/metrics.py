"""What can be watched: Prometheus metrics and structured log lines."""

import asyncio
import contextlib
import functools
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.addresses import without_secrets

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, float("inf"))
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
        self.images = Histogram("batch_images", "Images per request.", buckets=IMAGES, **kept)
        self.version = Gauge("model_version", "1 for the version that serves.", ["model", "version"], **kept)
        self.registry_up = Gauge("following", "1 if the last look at the alias went well.", **kept)
        self.follow_failures = Counter("follow_failures", "Looks at the alias that failed.", ["reason"], **kept)
        self.exchanges = Counter("model_exchanges", "Times that a version began to serve.", **kept)
        self.connections = Gauge("connections", "Connections that are open.", **kept)
        self.ends = Counter("connections_ended", "Connections closed early, by reason.", ["reason"], **kept)
        self.predictions = Predictions()
        self.registry.register(self.predictions)
        self.access = AccessLog()
        self._by_answer: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        if (route, status) not in self._by_answer:
            self._by_answer[route, status] = self.requests.labels(route, str(status)), self.seconds.labels(route)
        requests, durations = self._by_answer[route, status]
        requests.inc()
        durations.observe(seconds)

    def predicted(self, probabilities: NDArray[np.float32]) -> None:
        """Count predictions (N, 10)."""
        self.images.observe(len(probabilities))
        self.predictions.add(probabilities)

    def serving(self, model: str, version: str) -> None:
        """Note the version that serves now."""
        self.version.clear()
        self.version.labels(model, version).set(1)
        self.exchanges.inc()

    def follow_ok(self, ok: bool) -> None:
        """Note how the last look at the alias went."""
        self.registry_up.set(1 if ok else 0)

    def follow_failed(self, reason: str) -> None:
        """Count a look that failed: the registry did not answer, or the version did not open."""
        self.follow_failures.labels(reason).inc()

    def ended(self, reason: str) -> None:
        """Count a connection that was closed early."""
        self.ends.labels(reason).inc()

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Predictions(Collector):
    """Digits and confidences, counted a whole request at a time: `Histogram` would take them one by one."""

    def __init__(self) -> None:
        self.digits = np.zeros(10, np.int64)
        self.confidences = np.zeros(len(CONFIDENCES), np.int64)
        self.sum = 0.0

    def add(self, probabilities: NDArray[np.float32]) -> None:
        """Count (N, 10) probabilities."""
        sure = probabilities.max(axis=1)
        np.add.at(self.digits, probabilities.argmax(axis=1), 1)
        np.add.at(self.confidences, np.searchsorted(BOUNDS, sure), 1)
        self.sum += float(sure.sum())

    def collect(self) -> Iterator[Metric]:
        digits = CounterMetricFamily("pipeline_predicted_digit", "Predictions by digit.", labels=["digit"])
        for digit, count in enumerate(self.digits.tolist()):
            digits.add_metric([str(digit)], count)
        yield digits
        upto = np.cumsum(self.confidences).tolist()
        buckets = [(str(bound), count) for bound, count in zip(CONFIDENCES, upto, strict=True)]
        yield HistogramMetricFamily(
            "pipeline_confidence", "Probability of the predicted digit.", [*buckets[:-1], ("+Inf", upto[-1])], self.sum
        )


class AccessLog:
    """A JSON line for each request, written by the event loop a few at a time."""

    def __init__(self) -> None:
        """Write to the error output; nothing where the log level keeps back information."""
        self.stream = sys.stderr.buffer
        self._lines: list[bytes] = []

    def write(self, facts: dict[str, Any]) -> None:
        if not access.isEnabledFor(logging.INFO):
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(WRITTEN_WITHIN_S, self.flush)
        self._lines.append(orjson.dumps({"time": _instant(time.time()), "level": "info", **facts}))

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            return
        with contextlib.suppress(OSError, ValueError):  # nobody reads the log, or its disk is full: service goes on
            self.stream.write(b"\n".join(lines) + b"\n")
            self.stream.flush()


def _instant(seconds: float) -> str:
    """`2026-11-23T16:16:28.123Z`."""
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03d}Z"


@functools.lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message and whatever facts the record carries."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": _instant(record.created), "level": record.levelname.lower()}
        line |= {"message": record.getMessage(), **getattr(record, "facts", {})}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return without_secrets(orjson.dumps(line, default=str).decode())


def log_as_json(level: str) -> None:
    """Let every logger of the process write such lines to the error output."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers, root.level = [handler], getattr(logging, level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
