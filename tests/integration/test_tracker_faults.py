"""A tracker that is away, dies, freezes, fails or refuses: nothing is lost, and nothing comes twice."""

import http.server
import json
import shutil
import signal
import threading
import time
import zlib

import mlflow
import pytest

from pipeline.tracking.journal import Journal
from tests import faults
from tests.conftest import DELIVERED_WITHIN_S, environment, run_pipeline

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture
def server(tmp_path):
    server = faults.Server(tmp_path / "server")
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_that_never_answers_costs_the_record_nothing_but_time(tmp_path, undisturbed):
    done = run_pipeline(
        "train", *faults.SHORT, cwd=tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9", **faults.THREADS
    )
    assert done.returncode == 0
    folder = faults.only_folder(tmp_path)
    assert f"records wait in runs/{folder.path.name} (no answer from http://127.0.0.1:9)" in done.stderr
    assert "when MLflow answers again: python -m pipeline sync" in done.stderr
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder.path, copy / "runs" / folder.path.name)
    synced = run_pipeline("sync", cwd=copy, MLFLOW_TRACKING_URI=faults.store(copy))
    assert synced.returncode == 0, synced.stderr
    assert faults.differences(undisturbed, faults.full_record(faults.store(copy), copy)) == []
    again = run_pipeline("sync", cwd=copy, MLFLOW_TRACKING_URI=faults.store(copy))
    assert again.stdout == "MLflow has everything of 1 run\n"
    run = mlflow.MlflowClient(tracking_uri=faults.store(copy)).get_run(folder.state().get("run_id") or _run_id(copy))
    assert run.info.start_time == folder.started()["time"]


def _run_id(folder):
    return faults.only_folder(folder).state()["run_id"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_server_that_fails_in_the_middle_and_returns_gets_everything_once(tmp_path, server, undisturbed, fault):
    server.start()
    training = faults.start_pipeline("train", *faults.SHORT, cwd=tmp_path, MLFLOW_TRACKING_URI=server.uri)
    faults.wait_until(lambda: faults.epochs_recorded(tmp_path) >= 1)
    server.kill() if fault == "killed" else server.signal(signal.SIGSTOP)
    assert training.wait(DELIVERED_WITHIN_S) == 0
    server.start() if fault == "killed" else server.signal(signal.SIGCONT)
    done = run_pipeline("sync", cwd=tmp_path, MLFLOW_TRACKING_URI=server.uri)
    assert done.returncode == 0, done.stderr
    assert faults.differences(undisturbed, faults.full_record(server.uri, tmp_path)) == []


class Failing(http.server.BaseHTTPRequestHandler):
    """Answers everything with 500, after a while."""

    def answer(self):
        time.sleep(0.3)
        self.send_error(500)

    do_GET = do_POST = do_PATCH = do_PUT = answer  # noqa: N815

    def log_message(self, *words):
        pass


@pytest.mark.slow
def test_a_server_that_answers_500_and_slowly_is_waited_for(tmp_path, undisturbed):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as failing:
        threading.Thread(target=failing.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{failing.server_port}"
        done = run_pipeline("train", *faults.SHORT, cwd=tmp_path, MLFLOW_TRACKING_URI=uri, **faults.THREADS)
        failing.shutdown()
    assert done.returncode == 0, done.stderr
    assert "not delivered: " in done.stderr
    assert "when MLflow answers again: python -m pipeline sync" in done.stderr
    synced = run_pipeline("sync", cwd=tmp_path, MLFLOW_TRACKING_URI=faults.store(tmp_path))
    assert synced.returncode == 0, synced.stderr
    assert faults.differences(undisturbed, faults.full_record(faults.store(tmp_path), tmp_path)) == []


@pytest.mark.slow
def test_what_the_server_refuses_for_good_does_not_block_the_rest_and_is_told(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(  # the check before a training would refuse the name
        "import sys\n"
        "if 'train' in sys.argv:\n"
        "    import pipeline.mlflow_client.preflight\n"
        "    pipeline.mlflow_client.preflight.check_names = lambda params: None\n"
    )
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    wrong_name = ["--model_name", "a/b", "--experiment_name", "x" * 10]
    done = run_pipeline("train", *faults.SHORT, *wrong_name, cwd=tmp_path, PYTHONPATH=path, **faults.THREADS)
    assert done.returncode == 1
    assert "MLflow refused for good: model: " in done.stderr
    run = faults.run_of(tmp_path)
    assert (run.info.status, run.data.tags["failure_reason"][:29]) == ("FAILED", "MLflow refused a part of the ")
    assert "pipeline.refused" in run.data.tags
    assert len(faults.metrics_in_mlflow(faults.store(tmp_path), run.info.run_id)["train_loss"]) == 3


@pytest.mark.slow
def test_eight_uploaders_on_one_fresh_database_all_deliver(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    done = run_pipeline("train", *faults.SHORT, cwd=made, MLFLOW_TRACKING_URI="http://127.0.0.1:9", **faults.THREADS)
    assert done.returncode == 0
    source = faults.only_folder(made).path
    synced, fresh = [], f"sqlite:///{tmp_path}/fresh.db"
    for k in range(8):
        folder = tmp_path / f"copy{k}"
        shutil.copytree(source, folder / "runs/run")
        journal = Journal(faults.only_folder(folder))
        journal.close()
        (folder / "runs/run/journal.jsonl").write_bytes(_renamed(folder / "runs/run/journal.jsonl", k))
        synced.append(faults.start_pipeline("sync", cwd=folder, MLFLOW_TRACKING_URI=fresh))
    assert [process.wait(DELIVERED_WITHIN_S) for process in synced] == [0] * 8
    client = mlflow.MlflowClient(tracking_uri=fresh, registry_uri=fresh)
    runs = client.search_runs([client.get_experiment_by_name("mnist-mlp").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    assert sorted(int(v.version) for v in client.search_model_versions("name = 'digits-mlp'")) == list(range(1, 9))
    for k in range(8):
        assert "locked" not in (tmp_path / f"copy{k}/output").read_text()


def _renamed(journal, number):
    """The journal as that of another run: another key, the same events."""
    lines = []
    for line in journal.read_bytes().splitlines():
        event = json.loads(line.partition(b" ")[2])
        if event["kind"] == "start":
            event["run_key"] += str(number)
        text = json.dumps(event).encode()
        lines.append(b"%08x %s\n" % (zlib.crc32(text), text))
    return b"".join(lines)
