"""What Prometheus reads and what the log lines say, to the letter: dashboards and alarms hang on it."""

import asyncio
import io
import json
import logging
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client.exposition import generate_latest

from pipeline.serving import metrics
from pipeline.serving.metrics import AccessLog, JsonLines, Telemetry, log_as_json

DIGITS = tuple("0123456789")
DESCRIBED = [
    "# HELP pipeline_requests_total Requests by route and status.",
    "# TYPE pipeline_requests_total counter",
    "# HELP pipeline_errors_total Refused or failed requests by kind.",
    "# TYPE pipeline_errors_total counter",
    "# HELP pipeline_request_seconds Time to answer.",
    "# TYPE pipeline_request_seconds histogram",
    "# HELP pipeline_batch_examples Examples per request.",
    "# TYPE pipeline_batch_examples histogram",
    "# HELP pipeline_model_version 1 for the version that serves.",
    "# TYPE pipeline_model_version gauge",
    "# HELP pipeline_following 1 if the last look at the alias went well.",
    "# TYPE pipeline_following gauge",
    "# HELP pipeline_follow_failures_total Looks at the alias that failed.",
    "# TYPE pipeline_follow_failures_total counter",
    "# HELP pipeline_model_exchanges_total Times that a version began to serve.",
    "# TYPE pipeline_model_exchanges_total counter",
    "# HELP pipeline_connections Connections that are open.",
    "# TYPE pipeline_connections gauge",
    "# HELP pipeline_connections_ended_total Connections closed early, by reason.",
    "# TYPE pipeline_connections_ended_total counter",
    "# HELP pipeline_predicted_class_total Predictions by class.",
    "# TYPE pipeline_predicted_class_total counter",
    "# HELP pipeline_confidence Probability of the predicted class.",
    "# TYPE pipeline_confidence histogram",
]


def lines_of(watched, beginning):
    return [line for line in generate_latest(watched.registry).decode().splitlines() if line.startswith(beginning)]


def test_every_metric_has_its_name_kind_and_meaning():
    described = lines_of(Telemetry(), ("# HELP pipeline", "# TYPE pipeline"))
    for line in DESCRIBED:
        assert line in described
    assert lines_of(Telemetry(), "process_cpu_seconds_total")
    assert lines_of(Telemetry(), "python_info")


def test_answers_are_counted_by_route_and_status_and_timed_by_route():
    watched = Telemetry()
    for status, seconds in ((200, 0.25), (200, 0.5), (413, 3)):
        watched.answered("/invocations", status, seconds)
    watched.answered("/ping", 200, 0.125)
    assert lines_of(watched, "pipeline_requests_total") == [
        'pipeline_requests_total{route="/invocations",status="200"} 2.0',
        'pipeline_requests_total{route="/invocations",status="413"} 1.0',
        'pipeline_requests_total{route="/ping",status="200"} 1.0',
    ]
    assert lines_of(watched, "pipeline_request_seconds_sum") == [
        'pipeline_request_seconds_sum{route="/invocations"} 3.75',
        'pipeline_request_seconds_sum{route="/ping"} 0.125',
    ]
    buckets = lines_of(watched, 'pipeline_request_seconds_bucket{le="0.5",route="/inv')
    assert buckets == ['pipeline_request_seconds_bucket{le="0.5",route="/invocations"} 2.0']


def test_errors_are_counted_by_kind_and_connections_by_what_ended_them():
    watched = Telemetry()
    watched.errors.labels(kind="too_large").inc()
    for reason in ("slow", "slow", "idle"):
        watched.ends.labels(reason).inc()
    watched.connections.set(3)
    assert lines_of(watched, "pipeline_errors_total") == ['pipeline_errors_total{kind="too_large"} 1.0']
    assert lines_of(watched, "pipeline_connections_ended_total") == [
        'pipeline_connections_ended_total{reason="slow"} 2.0',
        'pipeline_connections_ended_total{reason="idle"} 1.0',
    ]
    assert lines_of(watched, "pipeline_connections ") == ["pipeline_connections 3.0"]
    assert isinstance(watched.access, AccessLog)


def test_times_are_counted_in_buckets_from_half_a_millisecond_to_ten_seconds():
    watched = Telemetry()
    watched.answered("/ping", 200, 0.001)
    bounds = [line.split('"')[1] for line in lines_of(watched, "pipeline_request_seconds_bucket")]
    assert bounds == [str(float(bound)) for bound in metrics.SECONDS] + ["+Inf"]


def test_predictions_are_counted_by_class_confidence_and_size_of_the_request():
    watched = Telemetry()
    probabilities = np.full((3, 10), 0.025, np.float32)
    probabilities[[0, 1, 2], [7, 7, 2]] = 0.775, 0.9, 0.15
    watched.serving("mnist-mlp", "1", DIGITS)
    watched.predicted(probabilities, DIGITS)
    watched.predicted(probabilities[:1], DIGITS)
    digits = [line.split()[1] for line in lines_of(watched, "pipeline_predicted_class_total")]
    assert digits == ["0.0", "0.0", "1.0", "0.0", "0.0", "0.0", "0.0", "3.0", "0.0", "0.0"]
    assert lines_of(watched, "pipeline_predicted_class_total")[7].startswith(
        'pipeline_predicted_class_total{class="7"}'
    )
    # A bucket counts what is at most its bound, 0.9 itself included.
    at_most = {line.split('"')[1]: line.split()[1] for line in lines_of(watched, "pipeline_confidence_bucket")}
    assert at_most == dict(
        zip(
            ["0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "0.95", "0.99", "0.999", "+Inf"],
            ["1.0"] * 6 + ["3.0"] + ["4.0"] * 5,
            strict=True,
        )
    )
    assert float(lines_of(watched, "pipeline_confidence_sum")[0].split()[1]) == pytest.approx(0.775 * 2 + 0.9 + 0.15)
    assert lines_of(watched, "pipeline_batch_examples_sum") == ["pipeline_batch_examples_sum 4.0"]
    assert 'pipeline_batch_examples_bucket{le="2.0"} 1.0' in lines_of(watched, "pipeline_batch_examples_bucket")
    assert len(lines_of(watched, "pipeline_batch_examples_bucket")) == 12


def test_a_bound_is_its_buckets_also_where_float32_is_above_it_and_the_least_sure_are_counted():
    watched = Telemetry()
    sure = np.zeros((4, 10), np.float32)
    sure[[0, 1, 2, 3], [1, 2, 2, 3]] = 1.0, 0.15, 0.3, 0.6
    watched.serving("mnist-mlp", "1", DIGITS)
    watched.predicted(sure, DIGITS)
    buckets = {line.split('"')[1]: line.split()[1] for line in lines_of(watched, "pipeline_confidence_bucket")}
    assert list(buckets) == [str(bound) for bound in metrics.CONFIDENCES] + ["+Inf"]
    at_most = {"0.2": 1, "0.3": 2, "0.5": 2, "0.6": 3, "0.999": 3, "+Inf": 4}
    assert {bound: float(buckets[bound]) for bound in at_most} == at_most
    assert lines_of(watched, "pipeline_confidence_count") == ["pipeline_confidence_count 4.0"]
    assert lines_of(watched, "pipeline_predicted_class_total")[2].endswith(" 2.0")


def test_only_the_version_that_serves_is_1_and_exchanges_are_counted():
    watched = Telemetry()
    watched.serving("mnist-mlp", "1", DIGITS)
    watched.serving("mnist-mlp", "2", DIGITS)
    assert lines_of(watched, "pipeline_model_version") == ['pipeline_model_version{model="mnist-mlp",version="2"} 1.0']
    assert lines_of(watched, "pipeline_model_exchanges_total") == ["pipeline_model_exchanges_total 2.0"]


def by_class(watched):
    lines = lines_of(watched, "pipeline_predicted_class_total")
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def test_the_classes_are_those_of_the_version_that_serves_and_what_it_shares_with_the_last_is_counted_on():
    watched = Telemetry()
    watched.serving("pets", "1", ("cat", "dog"))
    watched.predicted(np.float32([[0.75, 0.25], [0.25, 0.75], [0.9, 0.1]]), ("cat", "dog"))
    assert by_class(watched) == {"cat": 2, "dog": 1}
    watched.serving("pets", "2", ("cow", "cat"))
    assert by_class(watched) == {"cow": 0, "cat": 2}
    watched.predicted(np.float32([[0.75, 0.25], [0.25, 0.75]]), ("cat", "dog"))  # read before the alias moved
    assert by_class(watched) == {"cow": 0, "cat": 3}
    watched.serving("pets", "1", ("cat", "dog"))
    assert by_class(watched) == {"cat": 3, "dog": 0}
    watched.predicted(np.float32([[0.25, 0.75]]), ("cat", "dog"))
    assert by_class(watched) == {"cat": 3, "dog": 1}


def test_looks_at_the_alias_are_watched():
    watched = Telemetry()
    watched.following.set(True)
    assert lines_of(watched, "pipeline_following") == ["pipeline_following 1.0"]
    watched.following.set(False)
    watched.follow_failures.labels("registry").inc()
    assert lines_of(watched, "pipeline_following") == ["pipeline_following 0.0"]
    assert lines_of(watched, "pipeline_follow_failures_total") == [
        'pipeline_follow_failures_total{reason="registry"} 1.0'
    ]


@pytest.fixture
def access_level():
    before = metrics.access.level
    metrics.access.setLevel(logging.INFO)
    yield metrics.access
    metrics.access.setLevel(before)


def access_log(monkeypatch):
    """An access log that writes into memory, at a fixed instant."""
    now = datetime.fromtimestamp(1_795_450_588.25, UTC)
    monkeypatch.setattr(metrics, "datetime", SimpleNamespace(now=lambda zone: now.astimezone(zone)))
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=io.BytesIO()))
    return AccessLog()


def test_access_lines_are_written_together_soon_after_the_first(monkeypatch, access_level):
    log, asked = access_log(monkeypatch), []

    async def requests():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", lambda seconds, flush: asked.append((seconds, flush)))
        for status in (200, 404):
            log.write({"status": status})
        assert log.stream.getvalue() == b""
        asked[0][1]()

    asyncio.run(requests())
    first, second = log.stream.getvalue().decode().splitlines()
    assert log.stream.getvalue().endswith(b"\n")
    assert first == '{"time":"2026-11-23T16:16:28.250Z","level":"info","message":"request","status":200}'
    assert json.loads(second)["status"] == 404
    assert [seconds for seconds, _ in asked] == [metrics.WRITTEN_WITHIN_S]
    log.flush()
    assert len(log.stream.getvalue().splitlines()) == 2


@pytest.mark.parametrize("second", [1_795_450_588, 1_795_450_589])
def test_an_instant_is_told_to_the_millisecond_below_it(second):
    for fraction, shown in ((0.9999, "999"), (0, "000")):
        told = metrics._instant(datetime.fromtimestamp(second + fraction, UTC))
        assert told == f"2026-11-23T16:16:{second - 1_795_450_560}.{shown}Z"


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_log_that_nobody_takes_stops_nothing_and_its_lines_are_gone(monkeypatch, access_level, error):
    log, asked = access_log(monkeypatch), []

    class Refusing:
        def write(self, content):
            asked.append(content)
            raise error

    log.stream = Refusing()
    loop = SimpleNamespace(call_later=lambda seconds, flush: asked.append(flush))
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    log.write({"path": "one"})
    log.write({"path": "two"})
    assert asked == [log.flush]
    log.flush()
    log.flush()
    assert [content.count(b"\n") for content in asked[1:]] == [2]
    log.write({"path": "three"})
    assert asked[-1] == log.flush


def test_an_access_line_is_not_made_where_the_level_keeps_it_back(monkeypatch, access_level):
    log = access_log(monkeypatch)
    access_level.setLevel(logging.WARNING)
    log.write({"path": "/"})  # would need an event loop
    log.flush()
    assert log.stream.getvalue() == b""


def record(level=logging.WARNING, error=None, **facts):
    made = logging.LogRecord("pipeline", level, __file__, 1, "moved to %s", ("2",), error)
    made.created = 1_795_450_588.5
    vars(made).update(facts)
    return made


def test_a_log_line_is_one_json_object_with_the_facts_and_the_traceback():
    line = JsonLines().format(record(version="2", path=sys))
    assert line.startswith(
        '{"time":"2026-11-23T16:16:28.500Z","level":"warning","message":"moved to 2","version":"2","path":'
    )
    assert json.loads(line)["path"] == str(sys)
    assert "traceback" not in json.loads(JsonLines().format(record()))
    try:
        raise ValueError("broken")
    except ValueError:
        told = json.loads(JsonLines().format(record(logging.ERROR, sys.exc_info())))
    assert told["level"] == "error"
    assert told["traceback"].endswith("ValueError: broken")


def test_every_logger_writes_such_lines_to_the_error_output(monkeypatch):
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers, root.level
    root.handlers = [logging.NullHandler()]
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        log_as_json("warning")
        assert (root.level, len(root.handlers)) == (logging.WARNING, 1)
        for name in ("", "uvicorn", "uvicorn.error", "pipeline.serving"):
            logging.getLogger(name).warning("moved to %s", "2", extra={"version": "2"})
        logging.getLogger("pipeline.serving").info("not told")
    finally:
        root.handlers, root.level = before
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["message"], line["version"]) for line in lines] == [("moved to 2", "2")] * 4


def test_uvicorns_copy_of_a_message_for_terminals_is_no_fact():
    assert "color_message" not in json.loads(JsonLines().format(record(color_message="\x1b[36mmoved")))
