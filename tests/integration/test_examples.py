"""The files of examples/ go the whole way: trained, killed, resumed, recorded, promoted over an earlier one, served."""

import json
import re
import shutil
import urllib.request

import mlflow
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By

from examples import badges, wine
from pipeline.data.datasets import load
from tests import faults
from tests.conftest import ROOT, Service, ready_store, run_pipeline
from tests.serving.test_page import browser, opened, shown, text, wait_for  # noqa: F401

pytestmark = pytest.mark.slow  # three minutes
THREADS = {"OMP_NUM_THREADS": "1"}
SMALL = ["--channels", "4", "--batch_size", "64", "--optimizer", "adam", "--learning_rate", "0.003"]
EXTRAS = ["--metric", "examples.extras:f1", "--schedule", "examples.extras:warm_cosine"]
# What is trained -> its knobs; each has a first version of one epoch, then one that is killed and gone on with.
TRAININGS = {
    "badges-smallcnn": [
        *("--dataset", "examples.badges:badges", "--each", "4"),
        *("--network", "examples.small_cnn:SmallCNN", "--blocks", "3", "--channels", "8"),
        *("--batch_size", "32", "--optimizer", "adam", "--learning_rate", "0.01"),  # a quarter right, of 100 classes
    ],
    "wine-mlp": ["--dataset", "examples.wine:wine", "--hidden_units", "16", "--batch_size", "16"],
    "digits-smallcnn": [
        *("--dataset", "digits", "--network", "examples.small_cnn:SmallCNN", "--blocks", "2", *SMALL),
        *(*EXTRAS, "--augment", "examples.extras:noise"),
    ],
}


@pytest.fixture(scope="module", params=TRAININGS)
def trained(request, tmp_path_factory):
    """The example taken as far as the registry; returns its model's name, folder, store and the resumed run."""
    folder = tmp_path_factory.mktemp(request.param)
    uri = ready_store(folder)
    shutil.copytree(ROOT / "examples", folder / "examples")
    knobs = [*TRAININGS[request.param], "--accelerator", "cpu"]
    first = run_pipeline("train", *knobs, "--epochs", "1", cwd=folder, **THREADS)
    assert f"model      {request.param} version 1" in first.stdout, first.stdout + first.stderr
    before = faults.epochs_recorded(folder)
    stays = faults.never_finished(tmp_path_factory.mktemp("stays"))
    killed = faults.start_pipeline("train", *knobs, "--epochs", "12", "--seed", "2", cwd=folder, **stays)
    faults.wait_until(lambda: faults.epochs_recorded(folder) >= before + 2)
    killed.kill()
    assert killed.wait() == -9
    resumed = run_pipeline("train", "--resume", "last", cwd=folder, **THREADS)
    assert f"model      {request.param} version 2" in resumed.stdout, resumed.stdout + resumed.stderr
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(client.get_model_version(request.param, "2").run_id)
    return request.param, folder, uri, run


def test_no_example_is_long():
    for path in (ROOT / "examples").glob("*.py"):
        if path.name != "any_lightning_script.py":
            assert len(path.read_text().splitlines()) <= 40, path.name


def test_what_was_killed_and_gone_on_with_is_bit_for_bit_what_it_would_have_been(trained):
    name, folder, *_ = trained
    again = run_pipeline("reproduce", "last", cwd=folder, **THREADS)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.startswith("identical: all "), name


def test_mlflow_has_the_run_whole_with_its_own_metric_and_what_the_data_are(trained):
    name, _, uri, run = trained
    assert run.info.status == "FINISHED"
    client = mlflow.MlflowClient(tracking_uri=uri)
    wanted = ["train_loss", "val_accuracy"]
    wanted += ["train_f1", "val_f1", "learning_rate"] if name == "digits-smallcnn" else []
    for metric in wanted:
        assert [each.step for each in client.get_metric_history(run.info.run_id, metric)] == list(range(1, 13)), metric
    if name == "digits-smallcnn":
        last = client.get_metric_history(run.info.run_id, "val_f1")[
            -1
        ].value  # on the test images, as none are held out
        assert 0 < run.data.metrics["test_f1"] == last < 1
    shape = {"badges-smallcnn": [-1, 64, 64, 3], "wine-mlp": [-1, 13], "digits-smallcnn": [-1, 28, 28]}[name]
    schema = json.loads(run.inputs.dataset_inputs[0].dataset.schema)["mlflow_tensorspec"]
    assert json.loads(schema["features"])[0]["tensor-spec"]["shape"] == shape
    model = client.get_model_version(name, "2")
    signature = mlflow.models.get_model_info(f"{uri_of_model(client, model)}").signature
    assert list(signature.inputs.to_dict()[0]["tensor-spec"]["shape"]) == shape


def uri_of_model(client, version):
    mlflow.set_tracking_uri(client.tracking_uri)
    return f"models:/{version.name}/{version.version}"


def test_the_better_version_is_promoted_over_the_earlier_one(trained):
    name, folder, uri, _ = trained
    client = mlflow.MlflowClient(tracking_uri=uri)
    promoted = run_pipeline("promote", "2", "--model", name, cwd=folder, **THREADS)
    assert promoted.returncode == 0, promoted.stdout + promoted.stderr
    assert re.search(r"version 2 is champion now|version 2 is the champion already", promoted.stdout)
    assert str(client.get_model_version_by_alias(name, "champion").version) == "2"


@pytest.fixture(scope="module")
def served(trained):
    name, folder, uri, _ = trained
    running = Service(uri, folder, "--model", name, "--alias", "champion")
    yield name, running, running.address
    assert running.stop() == 0


def posted(address, body):
    request = urllib.request.Request(f"{address}/invocations", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return np.array(json.load(answer)["predictions"])


def test_it_is_served_as_json_with_the_accuracy_of_its_run(trained, served):
    name, address = served[0], served[2]
    dataset = {"badges-smallcnn": badges.badges, "wine-mlp": wine.wine}.get(name)
    test = (
        dataset("", **({"each": 4} if name == "badges-smallcnn" else {})).test if dataset else load("digits", "").test
    )
    some = slice(0, 100)
    found = posted(address, {"inputs": test.inputs[some].tolist()})
    classes = {"badges-smallcnn": 100, "wine-mlp": 3, "digits-smallcnn": 10}[name]
    assert found.shape == (len(test.labels[some]), classes)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)


def test_its_page_asks_for_what_it_takes_and_answers(browser, served, tmp_path):  # noqa: F811
    name, _, address = served
    page = opened(browser, address)
    asks = ["row"] if name == "wine-mlp" else ["drawing"]  # an image is shown where a drawing would be
    wait_for(lambda: [each for each in shown(page) if each in ("drawing", "row")] == asks)
    assert text(page, "version").startswith(name)
    if name == "badges-smallcnn":
        Image.fromarray(badges.badges("", each=4).test.inputs[0]).save(tmp_path / "badge.png")
        page.find_element(By.ID, "file").send_keys(str(tmp_path / "badge.png"))
        wait_for(lambda: text(page, "class") in badges.CLASSES)
