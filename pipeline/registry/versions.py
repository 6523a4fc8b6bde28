"""A registered version as something that predicts: fetched from the registry, opened in ONNX Runtime, tried once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import yaml
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from requests import RequestException

from pipeline.data_spec import DataSpec
from pipeline.mlflow_client import searches
from pipeline.mlflow_client.errors import is_not_there
from pipeline.onnx_session import open_network
from pipeline.redaction import without_secrets
from pipeline.registry.predictor import NETWORK
from pipeline.terminal.shell import command
from pipeline.values import did_you_mean

CHAMPION, PREVIOUS = "champion", "previous"


class NotServableError(ValueError):
    """What the registry gave is no model that this project can open."""


class UnknownModelError(ValueError):
    """The registry knows no such model, version or alias."""


class UnknownAliasError(UnknownModelError):
    """The registry knows the model, but not the alias."""


@dataclass(frozen=True)
class Loaded:
    """A version that is open and has answered once.

    Attributes:
        name, version: what the registry calls it.
        run_id: the run that made it.
        spec: what it takes, and its classes.
    """

    name: str
    version: str
    run_id: str
    session: onnxruntime.InferenceSession
    input: str
    spec: DataSpec

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, *spec.sent_shape) raw pixels or rows -> (N, classes) probabilities."""
        probabilities: NDArray[np.float32] = self.session.run(None, {self.input: inputs})[0]
        return probabilities


def version_by_alias(client: mlflow.MlflowClient, name: str, alias: str) -> Any:
    """The version that has the alias.

    Raises:
        UnknownModelError: with what there is instead.
    """
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if not is_not_there(error):
            raise
    models = {each.name: sorted(each.aliases) for each in searches.models(client)}
    if name not in models:
        known = f"{', '.join(models)}; --model names one" if models else "none; make train registers the first"
        raise UnknownModelError(f"no registered model {name!r}{did_you_mean(name, models)} (models there: {known})")
    known = ", ".join(models[name]) or "none"
    raise UnknownAliasError(
        f"model {name} has no alias {alias!r}{did_you_mean(alias, models[name])} (aliases: {known}); "
        f"{command('promote', model=name)} gives it one"
    )


def load(uri: str, name: str, version: str, run_id: str, folder: Path) -> Loaded:
    """Fetch a model (`models:/NAME/VERSION`, or a logged one) into the folder, open it on one thread, try it once.

    Raises:
        NotServableError: if it is not one of this project's models, or does not answer as one.
    """
    root = _fetched(uri, f"{name} version {version}", folder)
    try:
        flavors = yaml.safe_load((root / "MLmodel").read_text())["flavors"]
        path = root / flavors["python_function"]["artifacts"][NETWORK]["path"]
        session = open_network(path, threads=1)
        spec = DataSpec.of_network(session.get_modelmeta().custom_metadata_map)
        loaded = Loaded(name, version, run_id, session, session.get_inputs()[0].name, spec)
        answer = loaded.predict(_two_examples(spec))
    except Exception as error:
        reason = f"{type(error).__name__}: {_in_short(error)}"
        raise NotServableError(f"{name} version {version} cannot be opened ({reason})") from None
    classes = len(spec.classes)
    if answer.shape != (2, classes) or answer.min() < 0 or not np.allclose(answer.sum(axis=1), 1, atol=1e-4):
        raise NotServableError(f"{name} version {version} does not give {classes} probabilities for an example")
    return loaded


def _two_examples(spec: DataSpec) -> NDArray[np.float32]:
    """What any network takes: a black and a white image; a table's means, as codes have to be some that there are."""
    levels = [spec.mean, spec.mean] if spec.kind == "table" else [0, 255]
    return np.stack([np.broadcast_to(level, spec.sent_shape) for level in levels]).astype(np.float32)


def _fetched(uri: str, what: str, folder: Path) -> Path:
    """The model's files; what is not there (deleted by hand, a disk that is not mounted) is the version's fault."""
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except MlflowException as error:
        if not is_not_there(error):
            raise
        reason = _in_short(error)
    except Exception as error:  # of whichever client the place of the files has: requests', Azure's, the system's
        if getattr(getattr(error, "response", None), "status_code", None) == 404:
            reason = "the server does not have its files"
        elif isinstance(error, OSError) and not isinstance(error, RequestException):
            reason = f"{type(error).__name__}: {_in_short(error)}"
        else:
            raise
    raise NotServableError(f"{what} cannot be fetched ({reason})")


def _in_short(error: Exception) -> str:
    return without_secrets(" ".join(str(error).split()))[:160]  # a secret cut in half would not be known
