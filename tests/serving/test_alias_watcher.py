"""The watcher on a real registry, in this process: what a version is, and what cannot be one."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from pipeline.data_spec import MNIST
from pipeline.mlflow_client.connection import connect
from pipeline.networks.mlp import MLP
from pipeline.registry import log_model
from pipeline.registry.versions import NotServableError, UnknownModelError
from pipeline.serving.alias_watcher import AliasWatcher
from pipeline.serving.metrics import Telemetry
from pipeline.training.onnx_export import IR, OPSET, export_onnx
from tests.conftest import ready_store

IMAGES = np.full((2, 28, 28), 100, np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    before = mlflow.get_tracking_uri()
    client = connect(ready_store(folder))
    experiment = client.create_experiment("models", artifact_location=str(folder / "artifacts"))
    np.save(folder / "example.npy", np.zeros((2, 28, 28), np.uint8))

    def new(name, seed):
        """Register version after version of other weights; returns the entry."""
        torch.manual_seed(seed)
        export_onnx(MLP(MNIST, 4), MNIST, folder / "network.onnx")
        run_id = client.create_run(experiment).info.run_id
        model_id = log_model.log_model(client, run_id, folder / "network.onnx", folder / "example.npy")
        version = log_model.register(client, name, run_id, model_id, {})
        client.set_registered_model_alias(name, "champion", version)
        return client.get_model_version(name, version)

    yield client, new
    mlflow.set_tracking_uri(before)


def watcher_of(client, name):
    return AliasWatcher(client, name, "champion", 1.0, Telemetry())


def test_a_model_deleted_and_made_anew_is_exchanged_though_its_number_is_the_same(store):
    client, new = store
    first = new("anew", 1)
    watcher = watcher_of(client, "anew")
    watcher.look()
    before = watcher.current.predict(IMAGES)
    client.delete_registered_model("anew")
    with pytest.raises(UnknownModelError, match="no registered model"):
        watcher.look()
    assert watcher.current.run_id == first.run_id
    second = new("anew", 2)
    watcher.look()
    assert (str(first.version), str(second.version), watcher.current.version) == ("1", "1", "1")
    assert watcher.current.run_id == second.run_id
    assert not np.array_equal(watcher.current.predict(IMAGES), before)


def test_a_version_deleted_while_it_serves_goes_on_and_is_told(store):
    client, new = store
    entry = new("deleted", 1)
    watcher = watcher_of(client, "deleted")
    watcher.look()
    client.delete_model_version("deleted", entry.version)
    with pytest.raises(UnknownModelError, match="no alias 'champion'"):
        watcher.look()
    assert watcher.current.run_id == entry.run_id


def network(folder):
    return next(folder.rglob("*.onnx"))


def cut_short(folder):
    path = network(folder)
    path.write_bytes(path.read_bytes()[:1000])


def of_another_flavour(folder):
    (folder / "MLmodel").write_text("flavors: {sklearn: {pickled_model: model.pkl}}")


def of_another_shape(folder):
    tensors = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 5]) for name in ("images", "same")]
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["same"])], "g", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph, ir_version=IR, opset_imports=[helper.make_opsetid("", OPSET)]), network(folder))


@pytest.mark.parametrize("damage", [shutil.rmtree, cut_short, of_another_flavour, of_another_shape])
def test_what_is_no_model_of_ours_leaves_the_old_one_serving(store, damage):
    client, new = store
    name = damage.__name__
    first = new(name, 1)
    watcher = watcher_of(client, name)
    watcher.look()
    second = new(name, 2)
    location = client.get_logged_model(second.source.removeprefix("models:/")).artifact_location
    damage(Path(location.removeprefix("file://")))
    with pytest.raises(NotServableError, match=f"{name} version 2"):
        watcher.look()
    assert watcher.current.run_id == first.run_id
    with pytest.raises(NotServableError, match=f"{name} version 2"):
        watcher_of(client, name).look()


def test_a_version_from_before_networks_described_themselves_takes_mnists_images(store):
    client, new = store
    entry = new("old", 1)
    location = client.get_logged_model(entry.source.removeprefix("models:/")).artifact_location
    path = network(Path(location.removeprefix("file://")))
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    watcher = watcher_of(client, "old")
    watcher.look()
    assert watcher.current.spec == MNIST
    assert watcher.current.predict(IMAGES).shape == (2, 10)
