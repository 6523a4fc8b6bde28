"""What can be watched: Prometheus metrics and structured log lines."""

import logging
import sys
import time
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)


class Telemetry:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        """Begin to count."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        kept: dict[str, Any] = {"namespace": "pipeline", "registry": self.registry}
        self.requests = Counter("requests", "Requests by route and status.", ["route", "status"], **kept)
        self.errors = Counter("errors", "Refused or failed requests by kind.", ["kind"], **kept)
        self.seconds = Histogram("request_seconds", "Time to answer.", ["route"], buckets=SECONDS, **kept)
        self.images = Histogram("batch_images", "Images per request.", buckets=IMAGES, **kept)
        self.digits = Counter("predicted_digit", "Predictions by digit.", ["digit"], **kept)
        self.confidence = Histogram("confidence", "Probability of the predicted digit.", buckets=CONFIDENCES, **kept)
        self.version = Gauge("model_version", "1 for the version that serves.", ["model", "version"], **kept)
        self.registry_up = Gauge("following", "1 if the last look at the alias went well.", **kept)
        self.follow_failures = Counter("follow_failures", "Looks at the alias that failed.", ["reason"], **kept)
        self.exchanges = Counter("model_exchanges", "Times that a version began to serve.", **kept)
        self._digits = [self.digits.labels(str(digit)) for digit in range(10)]

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def predicted(self, probabilities: NDArray[np.float32]) -> None:
        """Count predictions (N, 10)."""
        self.images.observe(len(probabilities))
        for digit, count in enumerate(np.bincount(probabilities.argmax(axis=1), minlength=10)):
            if count:
                self._digits[digit].inc(int(count))
        for value in probabilities.max(axis=1).tolist():
            self.confidence.observe(value)

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

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message and whatever facts the record carries."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {"time": f"{when}.{record.msecs:03.0f}Z", "level": record.levelname.lower()}
        line |= {"message": record.getMessage(), **getattr(record, "facts", {})}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def log_as_json(level: str) -> None:
    """Let every logger of the process write such lines to the error output."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers, root.level = [handler], getattr(logging, level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
