"""The service as its clients meet it: a real process, real sockets, torch not importable."""

import collections
import io
import itertools
import json
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import zlib

import httpx
import mlflow
import numpy as np
import onnxruntime
import pytest
import sqlalchemy.exc
from PIL import Image

from pipeline import cli
from pipeline.data import datasets
from tests import faults, small_models
from tests.conftest import DELIVERED_WITHIN_S, Service, environment, ready_store, run_pipeline

DIGITS = datasets.load("digits", "").test.inputs


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(base_url=service.address, timeout=DELIVERED_WITHIN_S) as client:
        yield client


@pytest.fixture(scope="module")
def registry(model_store):
    return mlflow.MlflowClient(model_store, model_store)


def expected(model_store, version, images):
    folder = model_store.removeprefix("sqlite:///").removesuffix("/mlflow.db")
    return expected_of(f"{folder}/{version}.onnx", images)


def expected_of(network, images):
    session = onnxruntime.InferenceSession(network)
    return session.run(None, {session.get_inputs()[0].name: np.asarray(images, np.float32)})[0]


def png(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image, np.uint8)).save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def wait_for_version(client, version):
    faults.wait_until(lambda: client.get("/ready").json()["version"] == version)


def test_json_routes_file_route_and_pyfunc_give_the_same_probabilities(client, model_store):
    images = DIGITS[:5]
    given = client.post("/invocations", json={"inputs": images.tolist()})
    assert given.headers["X-Model-Version"] == "1"
    by_json = np.array(given.json()["predictions"])
    by_file = [
        client.post("/predict", content=png(image), headers={"Content-Type": "image/png"}).json()["predictions"][0]
        for image in images
    ]
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(model_store)
    pyfunc = mlflow.pyfunc.load_model("models:/mnist-mlp/1").predict(images.astype(np.float32))
    mlflow.set_tracking_uri(before)
    assert np.abs(by_json - pyfunc).max() < 1e-6
    assert np.abs(np.array([each["probabilities"] for each in by_file]) - pyfunc).max() < 1e-6
    assert [each["class"] for each in by_file] == [str(digit) for digit in pyfunc.argmax(axis=1)]


def test_the_answer_is_that_of_mlflows_own_server(client, model_store):
    """Byte for byte in values: float32 as the float64 that it is."""
    answer = client.post("/invocations", json={"inputs": DIGITS[:2].tolist()}).json()
    assert list(answer) == ["predictions"]
    exact = expected(model_store, 1, DIGITS[:2]).astype(np.float64)
    assert np.abs(np.array(answer["predictions"]) - exact).max() < 1e-7
    assert np.float32(answer["predictions"]).astype(np.float64).tolist() == answer["predictions"]


def test_several_files_are_answered_in_their_order_with_what_the_model_saw(client):
    files = [("file", (f"{k}.png", png(DIGITS[k]), "image/png")) for k in range(3)]
    answer = client.post("/predict?show=true", files=files).json()
    assert [each["name"] for each in answer["predictions"]] == ["0.png", "1.png", "2.png"]
    assert (answer["model"], answer["version"]) == ("mnist-mlp", "1")
    import base64

    seen = base64.b64decode(answer["predictions"][1]["seen"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(seen))), DIGITS[1])


def test_probes_and_facts(client):
    assert client.get("/ping").status_code == 200
    assert client.get("/ready").json() == {"model": "mnist-mlp", "version": "1"}
    assert client.get("/health").json()["status"] == "following"
    assert client.get("/version").text == mlflow.__version__
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/invocations", "/predict", "/ping", "/ready", "/health", "/version", "/metrics", "/model"} == set(paths)


def test_metrics_count_requests_errors_classes_and_batches(client):
    def value(name):
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    names = ('pipeline_requests_total{route="/invocations",status="200"}', "pipeline_predicted_class_total")
    names += ('pipeline_errors_total{kind="invalid_parameter_value"}', "pipeline_batch_examples_sum")
    before = [value(name) for name in names]
    client.post("/invocations", json={"inputs": DIGITS[:3].tolist()})
    client.post("/invocations", json={"inputs": [[1]]})
    assert [value(name) - earlier for name, earlier in zip(names, before, strict=True)] == [1, 3, 1, 3]
    assert value('pipeline_model_version{model="mnist-mlp",version="1"}') == 1
    assert value("pipeline_following") == 1


def test_each_request_is_a_line_of_json(client, service):
    client.post("/invocations", json={"inputs": DIGITS[:2].tolist()}, params={"secret": "x"})

    def last_line():  # it is written when the answer is out
        lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
        return ([{}] + [each for each in lines if each.get("path") == "/invocations"])[-1]

    faults.wait_until(lambda: last_line().get("examples") == 2)
    line = last_line()
    assert (line["method"], line["status"], line["version"]) == ("POST", 200, "1")
    assert "secret" not in json.dumps(line)


def bomb():
    """A PNG of 50,000 x 50,000 pixels in two hundred bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


JSON, PNG = "application/json", "image/png"
WRONG = {
    "not JSON": ("/invocations", JSON, b"{", 400, "not JSON"),
    "NaN": ("/invocations", JSON, b'{"inputs": [[[NaN]]]}', 400, "not JSON"),
    "empty": ("/invocations", JSON, b"", 400, "not JSON"),
    "no inputs": ("/invocations", JSON, b'{"input": []}', 400, "'input'"),
    "a list": ("/invocations", JSON, b"[1]", 400, "found list"),
    "text": ("/invocations", JSON, b'{"inputs": "seven"}', 400, "not numbers"),
    "numbers as text": ("/invocations", JSON, json.dumps({"inputs": [[["1"] * 28] * 28]}).encode(), 400, "not numbers"),
    "truth": ("/invocations", JSON, json.dumps({"inputs": [[[True] * 28] * 28]}).encode(), 400, "not numbers"),
    "null": ("/invocations", JSON, b'{"inputs": null}', 400, "inputs"),
    "both keys": ("/invocations", JSON, b'{"inputs": [], "instances": []}', 400, "both"),
    "wrong shape": ("/invocations", JSON, b'{"inputs": [[1, 2]]}', 400, "found shape (1, 2)"),
    "ragged": ("/invocations", JSON, b'{"inputs": [[1], [1, 2]]}', 400, "one shape"),
    "negative": ("/invocations", JSON, json.dumps({"inputs": [[[-1] * 28] * 28]}).encode(), 400, "from -1"),
    "huge": ("/invocations", JSON, json.dumps({"inputs": [[[1e300] * 28] * 28]}).encode(), 400, "inf"),
    "beyond float": ("/invocations", JSON, b'{"inputs": [[[' + b"9" * 400 + b"]]]}", 400, "send"),
    "scaled": ("/invocations", JSON, json.dumps({"inputs": [[[0.5] * 28] * 28]}).encode(), 400, "scaled to 0..1"),
    "nested": ("/invocations", JSON, b"[" * 100_000, 400, "not JSON"),
    "too many": ("/invocations", JSON, json.dumps({"inputs": [[0]] * 1025}).encode(), 400, "at most 1024"),
    "as XML": ("/invocations", "text/xml", b"<a/>", 415, "application/json"),
    "no image": ("/predict", PNG, b"seven", 400, "neither PNG nor JPEG"),
    "no bytes": ("/predict", PNG, b"", 400, "neither PNG nor JPEG"),
    "truncated": ("/predict", PNG, png(DIGITS[0])[:80], 400, "cannot be read"),
    "blank": ("/predict", PNG, png(np.full((50, 50), 255)), 400, "blank"),
    "bomb": ("/predict", PNG, bomb(), 400, "50000 x 50000 pixels"),
    "a GIF": ("/predict", PNG, png(DIGITS[0], format="GIF"), 400, "neither PNG nor JPEG"),
    "as text": ("/predict", "text/plain", b"seven", 415, "image/png"),
    "form without boundary": ("/predict", "multipart/form-data", b"x", 400, "form cannot be read"),
    "torn form": ("/predict", "multipart/form-data; boundary=b", b"--b\r\nContent", 400, "send"),
    "wrong flag": ("/predict?show=perhaps", PNG, png(DIGITS[0]), 400, "show"),
    "no route": ("/predictions", JSON, b"{}", 404, "POST /invocations"),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_refusal_says_what_to_send(client, name):
    path, kind, body, status, words = WRONG[name]
    answer = client.post(path, content=body, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["message"]
    assert answer.json()["error_code"]


def test_a_method_that_is_not_allowed_names_the_one_that_is(client):
    answer = client.get("/invocations")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert "use POST" in answer.json()["message"]


def test_too_large_a_body_is_refused_before_it_is_read(client, service):
    host, port = service.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999\r\n\r\n")
        assert b"413" in connection.recv(1000).splitlines()[0]


def test_an_alias_that_moves_under_load_fails_no_request_and_gives_each_its_own_answer_by_one_version(
    client, registry, model_store, service
):
    """Three clients send images that no other sends, one to four at a time, as pixels and as files."""
    right = {str(version): expected(model_store, version, DIGITS[:300]) for version in (1, 2)}
    assert np.abs(right["1"] - right["2"]).max(axis=1).min() > 1e-3  # each answer tells the versions apart
    stop, wrong, versions = threading.Event(), [], set()

    def ask(own, places):
        if places[0] % 2:
            return own.post("/invocations", json={"inputs": DIGITS[places].tolist()}), lambda each: each
        files = [("file", (f"{place}.png", png(DIGITS[place]), "image/png")) for place in places]
        return own.post("/predict", files=files), lambda each: each["probabilities"]

    def load(first):
        with httpx.Client(base_url=service.address, timeout=DELIVERED_WITHIN_S) as own:
            for turn in itertools.count():
                if stop.is_set():
                    return
                places = [first + (turn + k) % 100 for k in range(1 + turn % 4)]
                answer, probabilities = ask(own, places)
                version = answer.headers.get("X-Model-Version", "")
                versions.add(version)
                if answer.status_code != 200:
                    wrong.append(answer.text)
                    continue
                found = np.array([probabilities(each) for each in answer.json()["predictions"]])
                if found.shape != (len(places), 10) or np.abs(found - right[version][places]).max() > 1e-6:
                    wrong.append((version, places))

    threads = [threading.Thread(target=load, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    try:
        for move in range(10):
            version = "2" if move % 2 == 0 else "1"
            registry.set_registered_model_alias("mnist-mlp", "champion", version)
            wait_for_version(client, version)
    finally:
        registry.set_registered_model_alias("mnist-mlp", "champion", "1")
        stop.set()
        for thread in threads:
            thread.join()
    wait_for_version(client, "1")
    assert wrong == []
    assert versions == {"1", "2"}


def test_an_alias_that_moves_to_another_shape_under_load_gives_every_client_its_answer_or_what_to_send(tmp_path):
    """One client sends photographs and one rows, whichever version serves: each is answered, or told what is taken."""
    uri = ready_store(tmp_path)
    registry = small_models.register(uri, "things", [small_models.PHOTOS, small_models.FLOWERS], tmp_path)
    running = Service(uri, tmp_path, "--model", "things")
    random = np.random.default_rng(0)
    sent = {"1": random.integers(0, 256, (3, 6, 9, 3)).tolist(), "2": random.normal(size=(3, 3)).tolist()}
    right = {version: expected_of(tmp_path / f"things-{version}.onnx", examples) for version, examples in sent.items()}
    stop, wrong, counts = threading.Event(), [], collections.Counter()

    def load(version):
        with httpx.Client(base_url=running.address, timeout=DELIVERED_WITHIN_S) as own:
            while not stop.is_set():
                answer = own.post("/invocations", json={"inputs": sent[version]})
                counts[version, answer.status_code] += 1
                if answer.status_code == 400 and answer.json()["message"].startswith("found shape (3, "):
                    continue
                if answer.status_code != 200 or answer.headers["X-Model-Version"] != version:
                    wrong.append(answer.text)
                elif np.abs(np.array(answer.json()["predictions"]) - right[version]).max() > 1e-6:
                    wrong.append(version)

    threads = [threading.Thread(target=load, args=(version,)) for version in sent]
    for thread in threads:
        thread.start()
    try:
        with httpx.Client(base_url=running.address, timeout=DELIVERED_WITHIN_S) as client:
            for version in ("2", "1", "2", "1"):
                registry.set_registered_model_alias("things", "champion", version)
                wait_for_version(client, version)
                assert client.get("/model").json()["kind"] == ("table" if version == "2" else "image")
                other = "1" if version == "2" else "2"
                faults.wait_until(lambda: counts[version, 200] and counts[other, 400])  # noqa: B023
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        running.stop()
    assert wrong == []
    assert counts.keys() == {("1", 200), ("1", 400), ("2", 200), ("2", 400)}


def test_a_version_that_does_not_open_leaves_the_old_one_serving_and_is_told(client, registry, tmp_path):
    (tmp_path / "MLmodel").write_text("flavors: {}")
    broken = registry.create_model_version("mnist-mlp", source=str(tmp_path))
    try:
        registry.set_registered_model_alias("mnist-mlp", "champion", broken.version)
        faults.wait_until(lambda: client.get("/health").json()["trouble"])
        health = client.get("/health").json()
        assert health["status"] == "not following"
        assert f"version {broken.version} cannot be opened" in health["trouble"]
        assert client.post("/invocations", json={"inputs": DIGITS[:1].tolist()}).headers["X-Model-Version"] == "1"
        assert "pipeline_following 0.0" in client.get("/metrics").text
    finally:
        registry.set_registered_model_alias("mnist-mlp", "champion", "1")
        registry.delete_model_version("mnist-mlp", str(broken.version))
    faults.wait_until(lambda: client.get("/health").json()["status"] == "following")


def test_sigterm_finishes_what_is_in_flight(model_store, tmp_path):
    running = Service(model_store, tmp_path)
    host, port = running.address.removeprefix("http://").split(":")
    body = json.dumps({"inputs": DIGITS[7:8].tolist()}).encode()
    head = "POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body[:100])
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(body[100:])
        answer = b""
        while part := connection.recv(65536):  # to its end: the connection is closed
            answer += part
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"200 OK" in head.splitlines()[0]
    assert np.abs(json.loads(content)["predictions"] - expected(model_store, 1, DIGITS[7:8])).max() < 1e-6
    assert running.process.wait(DELIVERED_WITHIN_S) == 0


def test_a_token_is_asked_for_where_the_environment_names_one(model_store, tmp_path):
    running = Service(model_store, tmp_path, PIPELINE_TOKEN="s3cret")
    with httpx.Client(base_url=running.address, timeout=DELIVERED_WITHIN_S) as client:
        body = {"inputs": DIGITS[:1].tolist()}
        refused = client.post("/invocations", json=body)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "Authorization: Bearer TOKEN" in refused.json()["message"]
        assert client.post("/invocations", json=body, headers={"Authorization": "Bearer s3cres"}).status_code == 401
        assert client.post("/invocations", json=body, headers={"Authorization": "Bearer s3cret"}).status_code == 200
        assert client.get("/ready").status_code == 200
        assert client.get("/metrics").status_code == 401
    running.stop()


def test_a_model_that_cannot_be_served_is_one_clear_line(model_store, tmp_path):
    wrong = ("--model", "mnist-mpl", "--port", "0")
    done = run_pipeline("serve", *wrong, cwd=tmp_path, MLFLOW_TRACKING_URI=model_store)
    assert (done.returncode, done.stdout) == (2, "")
    told = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert "did you mean 'mnist-mlp'? (models there: mnist-mlp; --model names one)" in told[0]


def test_so_is_an_alias_or_a_port(model_store, service, capsys, monkeypatch):
    monkeypatch.setattr("pipeline.serving.server.log_as_json", lambda level: None)  # the tests' own log stays theirs
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(model_store)

    def said(*arguments):
        assert cli.main(["serve", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()

    try:
        assert "no alias 'campion'; did you mean 'champion'?" in said("--alias", "campion", "--port", "0")[0]
        port = service.address.rsplit(":", 1)[1]
        assert "Address already in use); give another with --port" in said("--port", port)[0]
        assert "'http' is not a port" in said("--port", "http")[0]
    finally:
        mlflow.set_tracking_uri(before)


UNUSABLE = {
    "127.0.0.1:5000": "lacks its scheme; did you mean http://127.0.0.1:5000?",
    "htp://mlflow.test": "has the unknown scheme 'htp'; did you mean 'http'?",
    "http://mlflow.test:port": "is no address (its port is no number",
    "sqlite:///damaged.db": "is no database that can be read (file is not a database); or set MLFLOW_TRACKING_URI",
    "sqlite:///newer.db": "was made by a newer MLflow or by another program",
    "sqlite:///nowhere.db": "the file does not exist; run from the project's folder, or set MLFLOW_TRACKING_URI",
}


def serve_told(capsys, monkeypatch, uri):
    """Exit code and error lines of a `serve` that does not come to serving from that store."""
    monkeypatch.setattr("pipeline.serving.server.log_as_json", lambda level: None)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        code = cli.main(["serve", "--port", "0"])
    finally:
        mlflow.set_tracking_uri(before)
    out, err = capsys.readouterr()
    assert out == ""
    return code, err.splitlines()


@pytest.mark.parametrize("uri", UNUSABLE)
def test_so_is_a_store_that_cannot_be_opened_and_none_is_made(capsys, monkeypatch, tmp_path, uri):
    (tmp_path / "damaged.db").write_bytes(b"no database at all" * 100)
    with sqlite3.connect(tmp_path / "newer.db") as database:
        database.execute("CREATE TABLE alembic_version AS SELECT 'v9' AS version_num")
    database.close()
    before = sorted(tmp_path.iterdir())
    code, (line,) = serve_told(capsys, monkeypatch, uri)
    assert code == 2
    assert UNUSABLE[uri] in line
    assert sorted(tmp_path.iterdir()) == before


def test_a_database_server_that_is_down_is_one_line_as_well(capsys, monkeypatch):
    def connect(**options):
        raise sqlalchemy.exc.OperationalError("SELECT 1", {}, sqlite3.OperationalError("connection refused"))

    monkeypatch.setattr("pipeline.serving.server.connect", connect)
    code, lines = serve_told(capsys, monkeypatch, "sqlite:///x.db")
    assert code == 3
    assert lines == ["pipeline: sqlite:///x.db: connection refused; try again when it does"]


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_an_address_of_ipv6_is_listened_at_and_answers_by_its_name(model_store, tmp_path):
    running = Service(model_store, tmp_path, "--host", "::1")
    assert running.address.startswith("http://[::1]:")
    assert httpx.get(running.address + "/model", timeout=DELIVERED_WITHIN_S).json()["model"] == "mnist-mlp"
    taken = run_pipeline("serve", "--host", "::1", "--port", running.address.rsplit(":", 1)[1], cwd=tmp_path)
    assert running.stop() == 0
    assert taken.returncode == 2


def test_it_does_not_load_torch(service, model_store):
    code = (
        "import sys; import pipeline.serving.server; print('torch' in sys.modules, 'pytorch_lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


@pytest.mark.parametrize("path", ["/", "/ping", "/ready", "/health", "/version", "/metrics", "/model"])
def test_head_is_get_without_its_body(client, path):
    head, got = client.head(path), client.get(path)
    assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", got.headers["content-type"])


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_compressed_body_is_refused_as_such(client, encoding):
    headers = {"Content-Type": JSON, "Content-Encoding": encoding}
    answer = client.post("/invocations", content=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415
    assert answer.json()["message"] == f"the body is compressed ({encoding}); send it plain, as it is"


def test_a_name_that_a_foreign_site_can_point_here_is_refused_but_for_probes(client):
    def status(host, path="/"):
        return client.get(path, headers={"Host": host}).status_code

    assert [status(host) for host in ("evil.example:80", "127.0.0.1.evil.example")] == [403, 403]
    assert [status(host) for host in ("localhost:5000", "digits", "[::1]:80", "10.0.0.7")] == [200, 200, 200, 200]
    assert status("evil.example", "/ready") == 200
    assert "--allowed_hosts" in client.get("/", headers={"Host": "evil.example"}).json()["message"]


def test_a_dead_registry_with_a_password_is_told_without_it(tmp_path):
    secrets = {"PIPELINE_TOKEN": "tok3n-of-clients", "AWS_SECRET_ACCESS_KEY": "aws/S3cret+key"}
    running = Service("http://bob:S3cretPw@127.0.0.1:1", tmp_path, "--log_level", "debug", **secrets)
    with httpx.Client(base_url=running.address, timeout=DELIVERED_WITHIN_S) as client:
        authorised = {"Authorization": f"Bearer {secrets['PIPELINE_TOKEN']}"}
        paths = ["/ping", "/ready", "/health", "/version", "/metrics", "/", "/openapi.json", "/model"]
        told = "".join(client.get(path, headers=authorised).text for path in paths)
        told += client.post("/invocations", json={"inputs": []}, headers=authorised).text
        told += client.post("/invocations", json={"inputs": []}).text
    assert running.stop() == 0
    told += running.log.read_text()
    assert "no answer from http://127.0.0.1:1" in told
    assert [secret for secret in ("S3cretPw", *secrets.values()) if secret in told] == []
