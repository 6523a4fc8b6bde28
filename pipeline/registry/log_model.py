"""The model registry: a run's network as an MLflow model, its version, its alias."""

import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import LoggedModelOutput
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from pipeline.data_spec import MNIST, DataSpec
from pipeline.mlflow_client import searches
from pipeline.mlflow_client.connection import once, remember_place
from pipeline.registry import packing
from pipeline.registry.versions import CHAMPION

MODEL = "model"
CROWNED = "first_champion"  # on a version that became champion by being the first, so that it does so once


def log_model(
    client: mlflow.MlflowClient,
    run_id: str,
    network: Path,
    example: Path,
    spec: DataSpec = MNIST,
    experiment_id: str = "",
    *,
    is_new: bool = False,
) -> str:
    """Store an ONNX file as the run's MLflow model, once however often it is called; returns the model id.

    Args:
        client: of the tracking server.
        run_id: the run.
        network: the ONNX file.
        example: an .npy file of a few examples (N, ...), raw.
        spec: what the network takes; that of runs from before they said so is MNIST's.
        experiment_id: of the run, where it is known.
        is_new: whether the run is known to have no model yet.
    """
    model = None if is_new else only_model(client, run_id, experiment_id)
    may_be_listed = model is not None
    if model is None:
        experiment_id = experiment_id or client.get_run(run_id).info.experiment_id
        with once():
            model = client.create_logged_model(experiment_id, name=MODEL, source_run_id=run_id, model_type="classifier")
    if model.status != LoggedModelStatus.READY:
        if not may_be_listed or model.model_id not in _listed(client, run_id):
            with once():
                client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        _fill(client, run_id, model, network, example, signature_of(spec))
    return str(model.model_id)


def only_model(client: mlflow.MlflowClient, run_id: str, experiment_id: str = "") -> Any:
    """The run's MLflow model, or None; others that lost answers have left are taken away."""
    experiment_id = experiment_id or client.get_run(run_id).info.experiment_id
    found = searches.logged_models(client, experiment_id, run_id)
    models = sorted(
        (model for model in found if model.name == MODEL),
        key=lambda model: (model.status != LoggedModelStatus.READY, model.creation_timestamp, model.model_id),
    )
    for model in models[1:]:
        client.delete_logged_model(model.model_id)
    return models[0] if models else None


def _listed(client: mlflow.MlflowClient, run_id: str) -> list[str]:
    """The ids of the models that the run shows."""
    outputs = client.get_run(run_id).outputs
    return [each.model_id for each in (outputs.model_outputs if outputs else [])]


def _fill(
    client: mlflow.MlflowClient, run_id: str, model: Any, network: Path, example: Path, signature: ModelSignature
) -> None:
    """Give the model its files; each step may be done again. (`Model.log` would list it among the run's again.)"""
    about = Model(
        artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id, model_id=model.model_id
    )
    with tempfile.TemporaryDirectory() as folder:
        packing.pack(Path(folder) / "model", about, network, example, signature)
        packing.share(Path(folder) / "model", network, model.artifact_location)
        remember_place(model.model_id, model.artifact_location)
        client.log_model_artifacts(model.model_id, f"{folder}/model")
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def signature_of(spec: DataSpec) -> ModelSignature:
    """MLflow's signature of a network that takes such data."""
    number = np.dtype(np.float32)
    return ModelSignature(
        inputs=Schema([TensorSpec(number, (-1, *spec.sent_shape))]),
        outputs=Schema([TensorSpec(number, (-1, len(spec.classes)))]),
    )


def register(
    client: mlflow.MlflowClient,
    name: str,
    run_id: str,
    model_id: str,
    tags: dict[str, str],
    description: str = "",
    about: str = "",
    known: set[str] | None = None,
    *,
    is_new: bool = False,
) -> str:
    """Register the run's model as a version of `name`, once however often it is called; returns the version.

    The oldest version that there is becomes the champion if there is none, once: who takes the alias away has decided.

    Args:
        client: of the registry.
        name: the registered model.
        run_id, model_id: whose model it is.
        tags, description: of the version.
        about: of the registered model, if this is its first version.
        known: names of models that the registry is known to have; this one is put to them.
        is_new: whether the run is known to have no version yet.
    """
    known = set() if known is None else known
    if name not in known:
        _have_registered_model(client, name, about)
        known.add(name)
    entry = None if is_new else version_of_run(client, name, run_id)
    is_alone = is_new and entry is None
    if entry is None:
        try:
            with once():
                entry = client.create_model_version(
                    name, f"models:/{model_id}", run_id, tags=tags, description=description or None, model_id=model_id
                )
        except MlflowException:
            known.discard(name)  # it may have been deleted meanwhile
            raise
    if not is_alone:
        _remove_doubles(client, entry)
    _crown_the_first(client, entry)
    return str(entry.version)


def _have_registered_model(client: mlflow.MlflowClient, name: str, about: str) -> None:
    try:
        with once():
            client.create_registered_model(name, description=about or None)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def version_of_run(client: mlflow.MlflowClient, name: str, run_id: str) -> Any:
    """The version that the run registered, the first of them, or None."""
    return next(iter(searches.versions(client, name, run_id)), None)


def _remove_doubles(client: mlflow.MlflowClient, entry: Any) -> None:
    """Take away what a repeated creation made: the same of the same run, and nobody has given it a name or a tag."""
    for double in searches.versions(client, entry.name, entry.run_id):
        same = (double.source, _without_crown(double)) == (entry.source, _without_crown(entry))
        later = _number(double) > _number(entry) and CROWNED not in double.tags
        if same and later and not client.get_model_version(double.name, double.version).aliases:
            client.delete_model_version(double.name, double.version)


def _crown_the_first(client: mlflow.MlflowClient, entry: Any) -> None:
    if CROWNED in entry.tags:
        return
    champion = client.get_registered_model(entry.name).aliases.get(CHAMPION)
    if champion is not None and str(champion) != str(entry.version):
        return
    versions = searches.versions(client, entry.name)
    if versions and _number(versions[0]) == _number(entry):
        if champion is None:
            client.set_registered_model_alias(entry.name, CHAMPION, entry.version)
        client.set_model_version_tag(entry.name, entry.version, CROWNED, "true")  # also where this had been cut off


def _number(entry: Any) -> int:
    return int(entry.version)


def _without_crown(entry: Any) -> dict[str, str]:
    return {name: text for name, text in entry.tags.items() if name != CROWNED}
