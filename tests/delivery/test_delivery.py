"""A hostile proxy in front of a real server, and what the delivery of a run's record makes of it."""

import contextlib
import errno
import os
import shutil
import sqlite3
import sys
import threading
import uuid

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException, RestException

from pipeline.delivery import sync as sync_module
from pipeline.delivery.delivery import BlockedError, Delivery, LeftError
from pipeline.delivery.opening import Known
from pipeline.delivery.upload_loop import UploadLoop
from pipeline.mlflow_client import connection, errors
from pipeline.registry import log_model
from pipeline.tracking.journal import Journal, RunFolder
from tests import faults
from tests.proxy import FAULTS, Proxy


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = faults.Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server, monkeypatch):
    proxy = Proxy(server.uri)
    monkeypatch.setattr(sync_module, "connect", connection.connect)
    yield proxy
    proxy.close()


@pytest.fixture(autouse=True)
def own_uri():
    """No test leaves its store or its patience to the next."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    mlflow.set_tracking_uri(None)


@pytest.fixture
def folder(tmp_path):
    return begun(tmp_path / "runs" / "run")


def begun(path, experiment=None, parent=""):
    """A run folder with a short record: start, two epochs, a file."""
    journal = Journal(RunFolder(path))
    journal.append(
        "start",
        run_key=uuid.uuid4().hex,
        mlflow_run_id=None,
        experiment_id=None,
        experiment_name=experiment or f"delivery {uuid.uuid4().hex[:8]}",
        params={"epochs": 2, "seed": 1},
        parent=parent,
        tags={"mlflow.runName": "a run", "note": "first"},
    )
    for step in (1, 2):
        journal.metrics({"train_loss": 1.0 / step, "val_loss": 2.0 / step}, step)
    journal.folder.artifacts.mkdir()
    (journal.folder.artifacts / "notes.txt").write_text("what happened\n")
    journal.artifact(journal.folder.artifacts / "notes.txt")
    journal.close()
    return journal.folder


def append(folder, kind, **content):
    journal = Journal(folder)
    journal.append(kind, **content)
    journal.close()


def finished(folder):
    append(folder, "end", status="FINISHED", tags={})
    return folder


def model(folder, name="", weights=16):
    """Add a small network to the record."""
    import torch

    from pipeline.data_spec import MNIST
    from pipeline.networks.mlp import MLP
    from pipeline.training.onnx_export import export_onnx

    torch.manual_seed(1)
    export_onnx(MLP(MNIST, weights), MNIST, folder.path / "network.onnx")
    np.save(folder.path / "example.npy", np.zeros((2, 28, 28), np.uint8))
    append(folder, "model", model_name=name, tags={"dataset": "digits"}, network="network.onnx", example="example.npy")
    return folder


def delivery(folder, uri):
    return Delivery(folder, connection.connect(uri))


def delivered(one, tries=30):
    """Deliver until it goes through, as an uploader does."""
    met = []
    for _ in range(tries):
        try:
            one.deliver()
        except BlockedError:
            raise
        except Exception as error:
            met.append(repr(error)[:300])
            continue
        return one
    raise AssertionError(f"never delivered: {met}")


def runs_of(client, folder):
    experiment = client.get_experiment_by_name(folder.started()["experiment_name"])
    key = folder.started()["run_key"]
    return client.search_runs([experiment.experiment_id], f"tags.`pipeline.run` = '{key}'")


def values(client, run_id, name="train_loss"):
    return [(each.step, each.value) for each in client.get_metric_history(run_id, name)]


WHOLE = [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize("status", ["401", "403", "404", "429"])
def test_a_page_of_a_proxy_is_no_word_of_mlflow_and_costs_no_value(folder, proxy, status):
    finished(folder)
    one = delivery(folder, proxy.uri)
    proxy.first(3, status, "log-batch")
    with pytest.raises(MlflowException) as caught:
        one.writer._start(folder.events()[0], (), True)
    assert f"{proxy.uri} answers {status}" in errors.in_words(caught.value)
    delivered(one)
    assert one.left == []
    (run,) = runs_of(one.writer.client, folder)
    assert (run.info.status, run.data.params) == ("FINISHED", {"epochs": "2", "seed": "1"})
    assert values(one.writer.client, run.info.run_id) == WHOLE
    assert "pipeline.refused" not in run.data.tags


@pytest.mark.parametrize("fault", ["502 after", "reset after"])
def test_what_was_created_before_its_answer_was_lost_is_found_and_not_created_again(folder, proxy, fault, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # as a user may have it
    name = f"model {uuid.uuid4().hex[:8]}"
    finished(model(folder, name))
    lost = set()

    def each_first(method, path):
        new = method == "POST" and path not in lost
        lost.add(path)
        return fault if new else None

    proxy.fault = each_first
    one = delivered(delivery(folder, proxy.uri))
    client = one.writer.client
    (run,) = runs_of(client, folder)
    assert run.info.status == "FINISHED"
    assert values(client, run.info.run_id) == WHOLE
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert client.get_model_version_by_alias(name, "champion").version == version.version
    assert len(run.outputs.model_outputs) == 1
    assert len(client.search_logged_models([run.info.experiment_id])) == 1
    creations = [path for method, path, _ in proxy.seen if path.endswith(("/runs/create", "/model-versions/create"))]
    assert len(creations) == len(set(creations)) == 2


def test_of_an_event_with_a_bad_value_the_good_ones_arrive_and_the_bad_one_stays_listed(folder, server):
    journal = Journal(folder)
    journal.metrics({"train_loss": 0.25}, 3)
    journal.append("params", params={"epochs": 77, "width": 5})
    journal.close()
    append(folder, "tags", tags={"good": "1"})
    finished(folder)
    one = delivery(folder, server.uri)
    one.deliver()
    assert [(left.event, left.names, left.final) for left in one.refused] == [(5, ["epochs"], True)]
    run = one.writer.client.get_run(one.run_id)
    assert values(one.writer.client, one.run_id) == [*WHOLE, (3, 0.25)]
    assert (run.data.params["width"], run.data.tags["good"]) == ("5", "1")
    assert run.info.status == "FAILED"
    assert run.data.tags["failure_reason"] == "MLflow refused a part of the record, see pipeline.refused"
    assert run.data.tags["pipeline.refused"].startswith("params epochs: ")
    assert Delivery(folder, one.writer.client).refused == one.refused


def test_retry_sends_what_was_refused_again_and_then_status_and_tags_are_put_right(folder, server, monkeypatch):
    finished(folder)
    one = delivery(folder, server.uri)
    real = one.writer.client.log_batch
    refuse = RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "not today"})

    def picky(run_id, metrics=(), **batch):
        if any(metric.key == "val_loss" for metric in metrics):
            raise refuse
        return real(run_id, metrics=metrics, **batch)

    monkeypatch.setattr(one.writer.client, "log_batch", picky)
    one.deliver()
    assert [left.names for left in one.refused] == [["val_loss"]] * 2
    one.deliver()  # without retry nothing is sent again
    monkeypatch.undo()
    assert one.writer.client.get_run(one.run_id).info.status == "FAILED"
    again = Delivery(folder, one.writer.client)
    again.deliver()
    assert len(again.refused) == 2
    again.deliver(retry=True)
    run = one.writer.client.get_run(one.run_id)
    assert (again.left, run.info.status) == ([], "FINISHED")
    assert not {"pipeline.refused", "failure_reason"} & set(run.data.tags)
    assert values(one.writer.client, one.run_id, "val_loss") == [(1, 2.0), (2, 1.0)]
    assert folder.state()["refused"] == []


def test_an_event_that_a_gateway_never_takes_does_not_stop_the_others_and_is_tried_again(folder, proxy):
    finished(folder)
    proxy.always("403", "mlflow-artifacts")
    one = delivery(folder, proxy.uri)
    with pytest.raises(LeftError, match=r"artifact: .*answers 403"):
        one.deliver()
    assert one.writer.client.get_run(one.run_id).info.status == "FINISHED"
    assert (one.delivered, one.refused) == (len(folder.events()), [])
    proxy.clear()
    one.deliver()
    assert [each.path for each in one.writer.client.list_artifacts(one.run_id)] == ["notes.txt"]


def test_a_file_that_is_gone_from_the_folder_is_told_and_the_rest_arrives(folder, server):
    finished(folder)
    (folder.artifacts / "notes.txt").unlink()
    one = delivery(folder, server.uri)
    one.deliver()
    assert [left.words for left in one.refused] == ["artifact: notes.txt is no longer in the run's folder"]
    assert values(one.writer.client, one.run_id) == WHOLE


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_a_deleted_run_or_experiment_is_one_line_and_everything_arrives_once_it_is_restored(folder, proxy, what):
    one = delivered(delivery(folder, proxy.uri))
    client, experiment = one.writer.client, one.writer.client.get_run(one.run_id).info.experiment_id
    client.delete_run(one.run_id) if what == "run" else client.delete_experiment(experiment)
    for step in range(3, 50):
        append(folder, "metrics", values={"train_loss": 1.0 / step}, step=step)
    finished(folder)
    asked = len(proxy.seen)
    with pytest.raises(BlockedError, match="is deleted in MLflow") as caught:
        one.deliver()
    assert len(proxy.seen) - asked <= 6
    assert f"mlflow {what}s restore" in caught.value.advice
    assert "python -m pipeline sync run --as-new" in caught.value.advice
    client.restore_run(one.run_id) if what == "run" else client.restore_experiment(experiment)
    one.deliver()
    assert one.left == []
    assert len(values(client, one.run_id)) == 49
    assert client.get_run(one.run_id).info.status == "FINISHED"


def test_an_experiment_that_is_deleted_before_the_run_begins_is_one_line(folder, server):
    client = connection.connect(server.uri)
    client.delete_experiment(client.create_experiment(folder.started()["experiment_name"]))
    with pytest.raises(BlockedError, match="is deleted in MLflow") as caught:
        delivery(folder, server.uri).deliver()
    assert "mlflow experiments restore -x " in caught.value.advice


def test_a_server_that_has_lost_its_database_is_told_by_a_later_sync_too(folder, server, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    finished(folder)
    folder.write_state({"run_id": "f" * 32, "delivered": len(folder.events()), "tracking_uri": server.uri})
    assert sync_module.sync([str(folder.path)], str(folder.path.parent)) == 1
    error = capsys.readouterr().err
    assert f"{server.uri} does not know run {'f' * 32} (any more); send it as a new run: python -m pipeline" in error
    append(folder, "tags", tags={"more": "1"})
    assert sync_module.sync([str(folder.path)], str(folder.path.parent)) == 1
    assert "1 record waits" in capsys.readouterr().err


def test_sync_tells_by_its_exit_code_what_it_found(folder, proxy, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    finished(folder)
    proxy.always("401")
    assert sync_module.sync([], str(folder.path.parent)) == 3
    told = capsys.readouterr()
    assert "answers 401; check MLFLOW_TRACKING_USERNAME" in told.err
    assert "MLflow has everything" not in told.out
    proxy.clear()
    append(folder, "params", params={"epochs": 77, "fine": 2})
    assert sync_module.sync([], str(folder.path.parent)) == 1
    told = capsys.readouterr()
    assert "MLflow has everything" not in told.out
    assert "to send it again: python -m pipeline sync run --retry" in told.err


def test_a_run_that_was_named_and_may_not_be_written_is_not_called_complete(folder, capsys, monkeypatch):
    finished(folder)
    monkeypatch.setattr(sync_module.os, "access", lambda path, mode: False)
    words = "run: passed over: this user may not write it; its owner can deliver it, or you a copy of your own\n"
    assert sync_module.sync([str(folder.path)], str(folder.path.parent)) == 1
    assert capsys.readouterr() == ("", f"{folder.path.parent.name}/{words}")
    assert sync_module.sync([], str(folder.path.parent)) == 0
    assert capsys.readouterr() == ("MLflow has everything of 0 runs\n", f"{folder.path.parent.name}/{words}")


def test_one_sync_goes_on_as_long_as_it_gets_on(folder, proxy, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    monkeypatch.setattr(sync_module, "PAUSE_S", 0)
    finished(folder)
    met = set()

    def each_first(method, path):
        new = method == "POST" and path not in met
        met.add(path)
        return "502 after" if new else None

    proxy.fault = each_first
    assert sync_module.sync([], str(folder.path.parent)) == 3  # creating experiment, run and tag: nothing arrived yet
    assert sync_module.sync([], str(folder.path.parent)) == 0
    (run,) = runs_of(mlflow.MlflowClient(proxy.uri), folder)
    assert (run.info.status, values(mlflow.MlflowClient(proxy.uri), run.info.run_id)) == ("FINISHED", WHOLE)


def test_sync_delivers_parents_first_wherever_their_names_sort(tmp_path, server, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    child = finished(begun(tmp_path / "runs" / "a", "nested", parent="b"))
    parent = finished(begun(tmp_path / "runs" / "b", "nested"))
    assert sync_module.sync([], str(tmp_path / "runs")) == 0
    run = mlflow.MlflowClient(server.uri).get_run(child.state()["run_id"])
    assert run.data.tags["mlflow.parentRunId"] == parent.state()["run_id"]
    assert "MLflow has everything of 2 runs" in capsys.readouterr().out


def test_a_run_whose_parent_is_missing_arrives_all_the_same_and_is_nested_later(tmp_path, server):
    child = finished(begun(tmp_path / "runs" / "a", parent="b"))
    one = delivery(child, server.uri)
    with pytest.raises(LeftError, match="the record of b, which this run belongs to, is not beside its folder"):
        one.deliver()
    assert values(one.writer.client, one.run_id) == WHOLE
    parent = delivery(finished(begun(tmp_path / "runs" / "b")), server.uri)
    parent.deliver()
    one.deliver()
    assert one.writer.client.get_run(one.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


def test_doubles_that_an_older_version_left_are_closed_with_the_run(folder, server):
    client = connection.connect(server.uri)
    experiment = client.create_experiment(folder.started()["experiment_name"])
    for _ in range(2):
        client.create_run(experiment, tags={"pipeline.run": folder.started()["run_key"]})
    one = delivery(finished(folder), server.uri)
    one.deliver()
    (run,) = runs_of(client, folder)
    assert (run.info.run_id, run.info.status) == (one.run_id, "FINISHED")


def test_champion_goes_to_the_first_version_there_is_and_is_not_given_back_by_a_second_delivery(tmp_path, server):
    client = connection.connect(server.uri)
    name = f"model {uuid.uuid4().hex[:8]}"
    client.create_registered_model(name)
    first = delivery(model(begun(tmp_path / "runs" / "0"), name), server.uri)
    first.deliver()
    client.delete_model_version(name, "1")
    folder = model(begun(tmp_path / "runs" / "1"), name)
    second = delivery(folder, server.uri)
    second.deliver()
    assert client.get_model_version_by_alias(name, "champion").version in (2, "2")
    source = client.get_model_version(name, "2")
    double = client.create_model_version(
        name,
        source.source,
        second.run_id,
        tags={k: v for k, v in source.tags.items() if k != log_model.CROWNED},
        model_id=source.source.removeprefix("models:/"),
    )
    client.delete_registered_model_alias(name, "champion")
    folder.write_state({})
    delivery(folder, server.uri).deliver()
    assert [str(each.version) for each in client.search_model_versions(f"name = '{name}'")] == ["2"], double
    assert client.get_registered_model(name).aliases == {}


@pytest.mark.slow
def test_slow_answers_get_more_time_unless_the_user_has_said_how_much(folder, proxy, monkeypatch):
    monkeypatch.setattr(connection, "FIRST_TIMEOUT_S", 1)
    monkeypatch.setitem(connection.QUIET_AND_IMPATIENT, connection.TIMEOUT, "1")
    proxy.silence_s = 1.5
    proxy.always("silence", "log-batch")
    one = delivery(finished(folder), proxy.uri)
    delivered(one, 5)
    assert one.left == []
    assert len(runs_of(mlflow.MlflowClient(proxy.target), folder)) == 1
    assert os.environ[connection.TIMEOUT] in ("2", "4", "8")  # as long as the server behind the proxy takes as well
    os.environ[connection.TIMEOUT] = "3"
    assert not connection.wait_longer()
    assert os.environ[connection.TIMEOUT] == "3"


def test_a_state_that_cannot_be_written_doubles_nothing(folder, server, monkeypatch):
    def full(self, state):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "write_state", full)
    name = f"model {uuid.uuid4().hex[:8]}"
    finished(model(folder, name))
    delivery(folder, server.uri).deliver()
    one = delivery(folder, server.uri)  # the process died, and nothing was written down
    assert one.run_id == ""
    one.deliver()
    (run,) = runs_of(one.writer.client, folder)
    assert values(one.writer.client, run.info.run_id) == WHOLE
    assert len(run.outputs.model_outputs) == len(one.writer.client.search_model_versions(f"name = '{name}'")) == 1


def test_the_uploader_outlives_a_log_and_a_state_that_cannot_be_written(folder, server, monkeypatch):
    finished(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(RunFolder, "write_state", _refuse)
    sending = UploadLoop(folder)
    with open("/dev/full", "w") as log:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", log)
        assert not sending._deliver()
    assert "no answer from" in sending.trouble[folder.path]["error"]
    monkeypatch.undo()
    os.environ["MLFLOW_TRACKING_URI"] = server.uri
    sending.deliveries.clear()
    assert sending._deliver()
    assert folder.state()["delivered"] == len(folder.events())


def _refuse(*words):
    raise OSError(errno.ENOSPC, "No space left on device")


def sqlite_uri(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_a_locked_database_is_waited_for_and_then_has_everything(folder, tmp_path):
    one = delivered(delivery(folder, sqlite_uri(tmp_path)))
    finished(folder)
    other = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError) as caught:
        Delivery(folder, _connect_hastily(sqlite_uri(tmp_path)))
    assert errors.in_words(caught.value) == f"{sqlite_uri(tmp_path)}: database is locked"
    threading.Timer(1.0, lambda: other.execute("ROLLBACK")).start()
    one.deliver()  # MLflow itself waits for 20 s
    assert one.writer.client.get_run(one.run_id).info.status == "FINISHED"
    assert (one.left, values(one.writer.client, one.run_id)) == ([], WHOLE)


def _connect_hastily(uri):
    with contextlib.ExitStack() as stack:
        real = sqlite3.connect
        stack.callback(setattr, sqlite3, "connect", real)
        sqlite3.connect = lambda path: real(path, timeout=0.1)
        return connection.connect(uri)


def test_a_damaged_database_is_one_line_at_once_and_loses_nothing(folder, tmp_path, capsys, monkeypatch):
    finished(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri(tmp_path))
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 1000)
    assert sync_module.sync([], str(folder.path.parent)) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"records still wait ({sqlite_uri(tmp_path)}: file is not a database)")
    assert folder.state().get("delivered", 0) == 0


def test_a_database_that_is_damaged_on_the_way_is_waited_for(folder, tmp_path):
    one = delivered(delivery(folder, sqlite_uri(tmp_path)))
    finished(folder)
    whole = (tmp_path / "mlflow.db").read_bytes()
    (tmp_path / "mlflow.db").write_bytes(b"\0" * len(whole))
    with pytest.raises(Exception) as caught:  # noqa: PT011
        one.deliver()
    assert not isinstance(caught.value, BlockedError | LeftError)
    assert (one.left, one.delivered) == ([], len(folder.events()) - 1)
    (tmp_path / "mlflow.db").write_bytes(whole)
    delivered(one)
    assert one.writer.client.get_run(one.run_id).info.status == "FINISHED"


def test_a_disk_that_is_full_is_not_called_a_server_that_does_not_answer():
    assert errors.in_words(OSError(errno.ENOSPC, "No space left on device")) == "no space left on the disk"
    error = PermissionError(errno.EACCES, "Permission denied", "/store/mlflow.db.lock")
    assert errors.in_words(error) == "Permission denied: /store/mlflow.db.lock"


@pytest.mark.parametrize("fault", FAULTS)
def test_through_every_fault_of_the_proxy_the_whole_record_arrives_once(folder, proxy, fault, monkeypatch):
    proxy.silence_s = 3.5
    finished(folder)
    one = delivery(folder, proxy.uri)
    proxy.first(2, fault, "log-batch")
    if fault == "silence":
        monkeypatch.setenv(connection.TIMEOUT, "3")  # each call of the delivery has no more
    delivered(one)
    monkeypatch.setenv(connection.TIMEOUT, "60")
    (run,) = runs_of(one.writer.client, folder)
    assert [met for _, _, met in proxy.seen if met] == [fault] * 2
    assert (one.left, run.info.status, run.data.params) == ([], "FINISHED", {"epochs": "2", "seed": "1"})
    assert values(one.writer.client, run.info.run_id) == WHOLE
    assert [each.path for each in one.writer.client.list_artifacts(run.info.run_id)] == ["notes.txt"]


def test_a_copy_of_the_folder_delivers_into_the_same_run(folder, server, tmp_path):
    finished(folder)
    delivery(folder, server.uri).deliver()
    copy = RunFolder(tmp_path / "elsewhere" / "renamed")
    shutil.copytree(folder.path, copy.path)
    copy.write_state({})
    one = delivery(copy, server.uri)
    one.deliver()
    assert [run.info.run_id for run in runs_of(one.writer.client, folder)] == [folder.state()["run_id"]] == [one.run_id]
    assert values(one.writer.client, one.run_id) == WHOLE


def test_over_http_a_run_after_the_first_makes_no_call_that_only_asks(proxy, tmp_path):
    """MLflow's client asks by itself where a run's files lie, unless it is told (`connection.remember_place`)."""
    client, known, name = connection.connect(proxy.uri), Known(since=0), f"calls {uuid.uuid4().hex[:8]}"
    for number in range(2):
        proxy.seen.clear()
        Delivery(finished(model(begun(tmp_path / "runs" / str(number), name))), client, known).deliver()
    calls = [f"{method} {path.removeprefix('/api/2.0/')}" for method, path, _ in proxy.seen]
    files = [call for call in calls if call.startswith("PUT mlflow-artifacts/")]
    model_id = next(call for call in calls if call.startswith("PATCH")).rpartition("/")[2]
    assert [call for call in calls if call not in files] == [
        "POST mlflow/runs/create",
        "POST mlflow/runs/log-batch",
        "POST mlflow/logged-models",
        "POST mlflow/runs/outputs",
        f"PATCH mlflow/logged-models/{model_id}",
        "POST mlflow/runs/update",
    ]
    assert len(files) == 1 + 8  # its own, and MLflow's of a model
