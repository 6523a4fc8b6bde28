"""The model registry: a run's network as an MLflow model, its version, its alias."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils import requirements_utils

from pipeline import predictor, searches
from pipeline.versions import CHAMPION

MODEL = "model"

SIGNATURE = ModelSignature(
    inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 28, 28))]),
    outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 10))]),
)


def log_model(client: mlflow.MlflowClient, run_id: str, network: Path, example: Path) -> str:
    """Store the network as the run's MLflow model, once however often it is called; returns the model id.

    Args:
        client: where to.
        run_id: the run that made it.
        network: the ONNX file.
        example: an .npy file of images (N, 28, 28), the input example.
    """
    experiment_id = client.get_run(run_id).info.experiment_id
    for model in searches.logged_models(client, experiment_id, run_id):
        if model.status == LoggedModelStatus.READY:
            return str(model.model_id)
        client.delete_logged_model(model.model_id)  # left behind by a delivery that was cut off
    model_id = client.create_logged_model(
        experiment_id, name=MODEL, source_run_id=run_id, model_type="classifier"
    ).model_id
    # Else MLflow reads the file lists of all installed packages, 1.1 s, to check pins that are read from them here.
    requirements_utils._MODULES_TO_PACKAGES = {}  # type: ignore[assignment]
    Model.log(
        artifact_path=None,
        flavor=mlflow.pyfunc,
        name=MODEL,
        run_id=run_id,
        model_id=model_id,
        python_model=predictor.__file__,
        artifacts={predictor.NETWORK: str(network)},
        signature=SIGNATURE,
        input_example=np.load(example).astype(np.float32),
        pip_requirements=[f"{name}=={version(name)}" for name in predictor.REQUIREMENTS],
    )
    return str(model_id)


def register(client: mlflow.MlflowClient, name: str, run_id: str, model_id: str, tags: dict[str, str]) -> str:
    """Register the run's model as a version of `name`, once however often it is called; returns the version.

    The first version ever becomes the champion.
    """
    try:
        client.create_registered_model(name, description="28x28 grey images -> probabilities of ten classes")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    entry = version_of_run(client, name, run_id)
    if entry is None:
        entry = client.create_model_version(
            name, source=f"models:/{model_id}", run_id=run_id, model_id=model_id, tags=tags
        )
    if int(entry.version) == 1 and CHAMPION not in client.get_registered_model(name).aliases:
        client.set_registered_model_alias(name, CHAMPION, entry.version)
    return str(entry.version)


def version_of_run(client: mlflow.MlflowClient, name: str, run_id: str) -> Any:
    """The version that the run registered, or None."""
    versions = searches.versions(client, name, run_id)
    return versions[0] if versions else None
