"""`figures`: what a light run leaves is drawn when somebody asks, as a full run has it, and MLflow gets it."""

import mlflow
import pytest

from pipeline.cli import main
from pipeline.tracking.folders import all_folders
from pipeline.tracking.journal import Journal

QUICK = ("--dataset", "digits", "--epochs", "2", "--hidden_units", "8", "--verbose", "0")
FILES = {
    "test_predictions.csv",
    "pictures/learning_curves.png",
    "pictures/confusion_matrix.png",
    "pictures/mistakes.png",
}


def files_of(folder):
    """Everything below the run's artifacts."""
    return {str(path.relative_to(folder.artifacts)) for path in folder.artifacts.rglob("*") if path.is_file()}


def in_mlflow(folder):
    client, run_id = mlflow.MlflowClient(), folder.state()["run_id"]
    above = client.list_artifacts(run_id)
    return {each.path for each in above} | {
        below.path for each in above if each.is_dir for below in client.list_artifacts(run_id, each.path)
    }


@pytest.mark.usefixtures("own_store")
def test_a_light_run_gets_the_very_files_of_a_full_one(capfd):
    assert main(["train", *QUICK, "--record", "full", "--model_name", ""]) == 0
    assert main(["train", *QUICK, "--record", "light"]) == 0
    full, light = all_folders("runs")
    assert files_of(full) - files_of(light) == FILES
    assert not full.checkpoints.exists()
    assert not light.checkpoints.exists()
    capfd.readouterr()
    assert main(["figures", light.path.name]) == 0
    told = capfd.readouterr()
    assert f"{light.path.name}: test_predictions.csv, pictures/ in runs/{light.path.name}/artifacts\n" in told.out
    assert told.err == ""
    for name in (*FILES, "predictions.npz"):
        assert (light.artifacts / name).read_bytes() == (full.artifacts / name).read_bytes(), name
    assert in_mlflow(light) >= FILES
    assert light.ended()["status"] == "FINISHED"
    assert mlflow.MlflowClient().get_run(light.state()["run_id"]).info.status == "FINISHED"


@pytest.fixture
def light(own_store, monkeypatch):
    """A finished light run."""
    assert main(["train", *QUICK, "--record", "light", "--model_name", ""]) == 0
    return all_folders("runs")[0]


def test_a_light_record_without_a_model_is_without_its_network(light):
    assert files_of(light) == {"config.yaml", "packages.txt", "predictions.npz"} | (
        files_of(light) & {"uncommitted.diff"}
    )
    assert not (light.path / "model").exists()
    assert "model" not in {event["kind"] for event in light.events()}


def test_data_that_are_gone_cost_the_gallery_and_are_told(light, monkeypatch, capfd):
    from pipeline.recording import drawing

    def gone(**knobs):
        raise ValueError("digits are gone")

    monkeypatch.setattr(drawing.datasets, "load", gone)
    assert main(["figures", "last"]) == 1
    assert f"{light.path.name}, FINISHED: not drawn: mistakes.png: digits are gone" in capfd.readouterr().err
    assert files_of(light) >= FILES - {"pictures/mistakes.png"}


def test_an_unfinished_run_has_its_curves_drawn_and_can_be_gone_on_with(light, capfd):
    (light.artifacts / "predictions.npz").unlink()
    (light.path / "delivery.json").unlink()
    (light.path / "vital.jsonl").write_bytes((light.path / "vital.jsonl").read_bytes().splitlines(keepends=True)[0])
    lines = (light.path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    epoch_2 = next(index for index, line in enumerate(lines) if b'"step":2' in line)
    (light.path / "journal.jsonl").write_bytes(b"".join(lines[:epoch_2]))
    assert main(["figures", "last"]) == 1
    assert ", FAILED: not drawn: test_predictions.csv, confusion_matrix.png" in capfd.readouterr().err
    assert "pictures/learning_curves.png" in files_of(light)
    assert main(["train", "--resume", "last", "--verbose", "0"]) == 0
    assert light.ended()["status"] == "FINISHED"
    assert main(["figures", "last"]) == 0


def test_a_run_that_another_process_is_at_is_left_alone(light, capfd):
    journal = Journal(light)
    assert main(["figures", "last"]) == 2
    assert "is still running in another process" in capfd.readouterr().err
    journal.close()


@pytest.mark.parametrize(("words", "told"), [([], "required: RUN"), (["nobody"], "nobody")])
def test_who_names_no_run_is_told_so(capfd, words, told):
    assert main(["figures", *words]) == 2
    assert told in capfd.readouterr().err
