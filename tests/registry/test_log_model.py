"""Registered once, however often it is delivered: the model, its version, its alias."""

import os

import numpy as np
import pytest
import yaml
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from pipeline.data_spec import MNIST
from pipeline.mlflow_client.connection import RETRIES
from pipeline.networks.mlp import MLP
from pipeline.registry import log_model, packing, predictor
from pipeline.training.onnx_export import export_onnx
from tests.fake_model_registry import FakeRegistry
from tests.registry.test_versions import network

READY, PENDING = LoggedModelStatus.READY, LoggedModelStatus.PENDING
TAGS = {"dataset": "digits"}


@pytest.fixture(autouse=True)
def nothing_packed(monkeypatch):
    """Each test packs its model as the first of its process."""
    monkeypatch.setattr(packing, "_last", None)


def register(client, **description):
    return log_model.register(client, "m", "r", "m-r", dict(TAGS), **description)


def empty():
    """A registry that knows no model at all."""
    client = FakeRegistry()
    client.aliases.clear()
    return client


def test_the_first_version_of_a_new_model_becomes_champion_and_says_so():
    client = empty()
    assert register(client, description="98 %", about="what it takes") == "1"
    assert client.writes == [
        ("model", "m", "what it takes"),
        ("version", "1", "models:/m-r", "r", TAGS, "98 %", "m-r"),
        ("alias", "champion", "1"),
        ("tag", "1", "first_champion", "true"),
    ]


def test_the_next_version_gets_no_alias():
    client = FakeRegistry("m", 1, champion="1")
    assert register(client) == "2"
    assert client.writes == [("version", "2", "models:/m-r", "r", TAGS, None, "m-r")]


@pytest.mark.parametrize("deliveries", [2, 3])
def test_delivered_again_it_writes_nothing(deliveries):
    client = empty()
    register(client)
    before = list(client.writes)
    assert [register(client) for _ in range(1, deliveries)] == ["1"] * (deliveries - 1)
    assert client.writes == before


def test_delivered_again_it_does_not_take_champion_back():
    client = empty()
    register(client)
    client.add("m", 2)
    client.aliases["m"] = {"champion": "2"}
    before = list(client.writes)
    assert register(client) == "1"
    client.aliases["m"] = {}
    assert register(client) == "1"
    assert (client.writes, client.aliases) == (before, {"m": {}})


def test_of_a_model_without_champion_only_the_oldest_version_becomes_it():
    client = FakeRegistry("m", 2)
    assert register(client) == "3"
    assert client.aliases == {"m": {}}
    del client.entries[:2]
    assert register(client) == "3"
    assert client.aliases == {"m": {"champion": "3"}}
    assert client.entries[0].tags == {**TAGS, "first_champion": "true"}


def test_the_oldest_version_does_not_take_champion_from_another():
    client = FakeRegistry()
    client.add("m", 1, **TAGS).run_id = "r"
    client.entries[0].source = "models:/m-r"
    client.add("m", 2)
    client.aliases["m"] = {"champion": "2"}
    assert register(client) == "1"
    assert client.writes == []


def test_version_9_is_older_than_version_10():
    client = FakeRegistry()
    client.add("m", 10)
    client.add("m", 9).run_id = "r"
    assert register(client) == "9"
    assert client.aliases == {"m": {"champion": "9"}}


def test_a_version_whose_answer_was_lost_is_found_again_and_not_made_twice(monkeypatch):
    client = empty()
    real = client.create_model_version

    def lost(*words, **options):
        real(*words, **options)
        raise MlflowException("API request failed with timeout exception")

    monkeypatch.setattr(client, "create_model_version", lost)
    with pytest.raises(MlflowException):
        register(client)
    assert register(client) == "1"
    assert [each.version for each in client.entries] == [1]
    assert client.aliases == {"m": {"champion": "1"}}


def test_a_model_that_cannot_be_made_is_no_model_that_there_is(monkeypatch):
    def dead(*words, **options):
        raise MlflowException("API request failed with timeout exception")

    client = empty()
    monkeypatch.setattr(client, "create_registered_model", dead)
    with pytest.raises(MlflowException, match="timeout"):
        register(client)
    assert client.writes == []


def test_what_makes_something_is_never_repeated_by_mlflow_itself(monkeypatch, tmp_path):
    monkeypatch.setenv(RETRIES, "7")
    client, seen = empty(), {}
    for name in ("create_registered_model", "create_model_version", "create_logged_model", "log_outputs"):
        real = getattr(client, name)

        def spy(*words, name=name, real=real, **options):
            seen[name] = os.environ[RETRIES]
            return real(*words, **options)

        monkeypatch.setattr(client, name, spy)
    monkeypatch.setattr(packing.mlflow.pyfunc, "save_model", lambda **options: None)
    monkeypatch.setattr(packing.np, "load", lambda path: np.zeros((2, 28, 28), np.uint8))
    client.log_model_artifacts = lambda *words: None
    client.add_run("r")
    (tmp_path / "example").touch()
    log_model.log_model(client, "r", tmp_path / "network", tmp_path / "example")
    register(client)
    assert seen == dict.fromkeys(seen, "0")
    assert len(seen) == 4
    assert os.environ[RETRIES] == "7"


# Doubles


def double(client, number, **changes):
    entry = client.add("m", number, **changes.pop("tags", TAGS))
    entry.run_id, entry.source = changes.get("run_id", "r"), changes.get("source", "models:/m-r")


def test_what_a_repeated_creation_made_is_taken_away_the_first_stays():
    client = FakeRegistry("m", 1, champion="1")
    for number in (2, 3, 10):
        double(client, number)
    assert register(client) == "2"
    assert client.writes == [("delete", "3"), ("delete", "10")]


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "another"},
        {"source": "models:/m-other"},
        {"tags": {"dataset": "mnist"}},
        {"tags": {**TAGS, "mine": "yes"}},
        {"tags": {**TAGS, "first_champion": "true"}},
    ],
)
def test_a_later_version_that_is_not_quite_the_same_stays(change):
    client = FakeRegistry("m", 1, champion="1")
    double(client, 2)
    double(client, 3, **change)
    assert register(client) == "2"
    assert client.writes == []


@pytest.mark.parametrize("alias", ["champion", "previous", "mine"])
def test_a_double_that_somebody_has_named_stays(alias):
    client = FakeRegistry("m", 1, **{"champion": "1", alias: "3"})
    double(client, 2)
    double(client, 3)
    assert register(client) == "2"
    assert client.writes == []


def test_the_double_of_a_champion_by_birth_goes():
    client = FakeRegistry("m")
    double(client, 1, tags={**TAGS, "first_champion": "true"})
    double(client, 2)
    assert register(client) == "1"
    assert client.writes == [("delete", "2")]


def test_doubles_of_other_models_of_the_run_stay():
    client = FakeRegistry("m", 1, champion="1")
    double(client, 2)
    client.add("n", 3, **TAGS).run_id = "r"
    client.entries[-1].source = "models:/m-r"
    register(client)
    assert client.writes == []


def test_the_version_of_a_run_is_the_first_of_this_model():
    client = FakeRegistry("m", 3)
    client.add("n", 1).run_id = "r"
    for number in (12, 11, 9):
        client.add("m", number).run_id = "r"
    assert log_model.version_of_run(client, "m", "r").version == 9
    assert log_model.version_of_run(client, "m", "nobody") is None


# The run's model


def test_of_several_models_of_a_run_the_ready_one_stays_then_the_oldest():
    client = FakeRegistry()
    client.add_run("r")
    for name, status, created in (("a", PENDING, 1), ("c", READY, 3), ("b", READY, 3), ("d", READY, 4)):
        client.add_model(name, "r", status=status, created=created)
    client.add_model("other", "r", name="mine", created=0)
    client.add_model("foreign", "s", created=0)
    assert log_model.only_model(client, "r").model_id == "b"
    assert client.writes == [("delete", "c"), ("delete", "d"), ("delete", "a")]
    assert [each.model_id for each in client.models] == ["b", "other", "foreign"]


def test_a_run_without_a_model_has_none():
    client = FakeRegistry()
    client.add_run("r")
    client.add_model("other", "r", name="mine")
    assert log_model.only_model(client, "r") is None


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network and an example, as a training leaves them."""
    folder = tmp_path_factory.mktemp("model")
    network(folder / "network.onnx", np.zeros(10))
    np.save(folder / "example.npy", np.full((2, 28, 28), 200, np.uint8))
    return folder / "network.onnx", folder / "example.npy"


@pytest.fixture
def client(monkeypatch):
    """A registry that keeps the files of its models: name -> content."""
    client = FakeRegistry()
    client.add_run("r")
    client.files = {}

    def log_model_artifacts(model_id, folder):
        client.wrote("files", model_id)
        for path in log_model.Path(folder).rglob("*"):
            if path.is_file():
                client.files[str(path.relative_to(folder))] = path.read_bytes()

    client.log_model_artifacts = log_model_artifacts
    return client


def test_a_run_gets_its_model_once_with_network_example_and_signature(client, files):
    assert log_model.log_model(client, "r", *files) == "m-1"
    assert client.writes == [
        ("logged model", "7", "model", "r", "classifier"),
        ("outputs", "r", [("m-1", 0)]),
        ("files", "m-1"),
        ("final", "m-1", READY),
    ]
    about = yaml.safe_load(client.files["MLmodel"])
    assert (about["run_id"], about["model_id"], about["model_uuid"]) == ("r", "m-1", "m-1")
    assert about["artifact_path"] == "somewhere/m-1"
    path = about["flavors"]["python_function"]["artifacts"]["network"]["path"]
    assert client.files[path] == files[0].read_bytes()
    tensor = '{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, %s]}}'
    assert about["signature"]["inputs"] == f"[{tensor % '28, 28'}]"
    assert about["signature"]["outputs"] == f"[{tensor % '10'}]"
    example = yaml.safe_load(client.files["serving_input_example.json"])["inputs"]
    assert np.array_equal(example, np.full((2, 28, 28), 200.0))
    pinned = client.files["requirements.txt"].decode().split()
    assert pinned == [f"{name}=={packing.version(name)}" for name in predictor.REQUIREMENTS]
    assert client.files["predictor.py"] == log_model.Path(predictor.__file__).read_bytes()


def test_nothing_is_guessed_that_is_known(client, files, monkeypatch):
    """Signature and pins are given: MLflow would run the model for the one, read all file lists for the other."""
    given = {}
    monkeypatch.setattr(packing.mlflow.pyfunc, "save_model", lambda **options: given.update(options))
    log_model.log_model(client, "r", *files)
    assert given["signature"] == log_model.signature_of(MNIST)
    assert given["signature"].inputs.to_dict()[0]["tensor-spec"] == {"dtype": "float32", "shape": (-1, 28, 28)}
    assert given["signature"].outputs.to_dict()[0]["tensor-spec"] == {"dtype": "float32", "shape": (-1, 10)}
    assert packing.requirements_utils._MODULES_TO_PACKAGES == {}


def test_logged_again_a_model_that_is_ready_is_left_as_it_is(client, files):
    client.add_model("m-9", "r")
    assert log_model.log_model(client, "r", *files) == "m-9"
    assert client.writes == []


def test_a_model_that_was_cut_off_is_filled_and_listed_once(client, files):
    model = client.add_model("m-9", "r", status=PENDING)
    client.log_outputs("r", [log_model.LoggedModelOutput("m-9", step=0)])
    client.writes.clear()
    assert log_model.log_model(client, "r", *files) == "m-9"
    assert client.writes == [("files", "m-9"), ("final", "m-9", READY)]
    assert model.status == READY


def test_a_run_that_mlflow_gives_without_outputs_gets_them(client, files):
    client.get_run("r").outputs = None
    client.log_outputs = lambda run_id, models: client.wrote("outputs", run_id, len(models))
    log_model.log_model(client, "r", *files)
    assert ("outputs", "r", 1) in client.writes


def test_the_next_model_of_the_kind_has_the_files_that_mlflow_itself_would_write(client, files, tmp_path, monkeypatch):
    log_model.log_model(client, "r", *files)
    other = tmp_path / "a: b"
    other.mkdir()
    network(other / "network.onnx", np.ones(10))
    client.add_run("s")
    client.files = {}
    log_model.log_model(client, "s", other / "network.onnx", files[1])
    quickly, client.files = client.files, {}
    monkeypatch.setattr(packing, "_last", None)
    client.models.clear()
    log_model.log_model(client, "s", other / "network.onnx", files[1])
    abouts = [yaml.safe_load(each.pop("MLmodel")) for each in (quickly, client.files)]
    for about in abouts:
        del about["utc_time_created"], about["model_id"], about["model_uuid"], about["artifact_path"]
    assert abouts[0] == abouts[1]
    assert (abouts[0]["run_id"], quickly["artifacts/network.onnx"]) == ("s", (other / "network.onnx").read_bytes())
    assert quickly == client.files


def test_another_example_or_another_shape_is_packed_anew(client, files, tmp_path, monkeypatch):
    packed = []
    real = packing.mlflow.pyfunc.save_model
    monkeypatch.setattr(packing.mlflow.pyfunc, "save_model", lambda **options: (packed.append(1), real(**options)))
    for run_id, value in (("r", 200), ("s", 200), ("t", 100)):
        client.add_run(run_id)
        np.save(tmp_path / "example.npy", np.full((2, 28, 28), value, np.uint8))
        log_model.log_model(client, run_id, files[0], tmp_path / "example.npy")
    assert len(packed) == 2
    assert yaml.safe_load(client.files["input_example.json"])[0][0][0] == 100.0


def test_what_is_known_is_not_asked(client, files):
    asked = []
    for name in ("get_run", "search_logged_models", "search_model_versions", "create_registered_model"):
        real = getattr(client, name)
        setattr(
            client, name, lambda *words, name=name, real=real, **more: (asked.append(name), real(*words, **more))[1]
        )
    assert log_model.log_model(client, "r", *files, experiment_id="7", is_new=True) == "m-1"
    assert asked == []
    client.add("m", 1)
    client.aliases["m"] = {"champion": "1"}
    assert log_model.register(client, "m", "r", "m-1", {}, known={"m"}, is_new=True) == "2"
    assert asked == []


def test_a_model_that_the_registry_has_lost_is_made_again_with_the_next_attempt():
    client, known = empty(), set()
    real = client.create_model_version
    log_model.register(client, "m", "r", "m-r", {}, known=known)
    assert known == {"m"}

    def gone(*words, **options):
        raise MlflowException("no such model", RESOURCE_DOES_NOT_EXIST)

    client.create_model_version = gone
    with pytest.raises(MlflowException):
        log_model.register(client, "m", "s", "m-s", {}, known=known)
    client.create_model_version = real
    assert known == set()
    assert log_model.register(client, "m", "s", "m-s", {}, known=known) == "2"
    assert known == {"m"}


def local(client, place):
    """The registry keeps its models' files in this folder."""
    real = client.add_model

    def add_model(*words, **more):
        model = real(*words, **more)
        model.artifact_location = str(place / model.model_id)
        return model

    client.add_model = add_model


def test_a_store_on_the_same_disk_shares_the_networks_file_which_a_later_export_leaves_alone(client, files, tmp_path):
    own = tmp_path / "network.onnx"
    own.write_bytes(files[0].read_bytes())
    local(client, tmp_path / "store")
    for run_id in ("r", "s"):  # the first of its kind, and the next
        client.add_run(run_id)
        client.files = {}
        model_id = log_model.log_model(client, run_id, own, files[1])
        stored = tmp_path / "store" / model_id / "artifacts/network.onnx"
        assert stored.samefile(own)
        assert "MLmodel" in client.files
        assert "artifacts/network.onnx" not in client.files
    before = stored.read_bytes()
    export_onnx(MLP(MNIST, 4), MNIST, own)
    assert (stored.read_bytes(), own.read_bytes() == before) == (before, False)


def test_a_model_that_was_cut_off_after_its_network_was_shared_is_filled(client, files, tmp_path):
    local(client, tmp_path / "store")
    stored = tmp_path / "store/m-1/artifacts/network.onnx"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"half")
    assert log_model.log_model(client, "r", *files) == "m-1"
    assert stored.samefile(files[0])


def test_where_no_second_name_can_be_given_the_network_is_copied(client, files, tmp_path, monkeypatch):
    def refused(self, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(packing.Path, "hardlink_to", refused)
    local(client, tmp_path / "store")
    log_model.log_model(client, "r", *files)
    assert client.files["artifacts/network.onnx"] == files[0].read_bytes()
