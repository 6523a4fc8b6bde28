"""A model's files as MLflow lays them out; what is the same for one run after another is made once."""

import datetime
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import yaml
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.utils import requirements_utils
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from pipeline.registry import predictor

# libyaml's, where it is: a tenth of the time
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class _Packed:
    """What `mlflow.pyfunc.save_model` made last.

    Attributes:
        made_of: what decides of the files beside the network.
        files: path -> content, but for the network and `MLmodel`.
        about: what stands in `MLmodel`, its `model_size_bytes` without the network's.
        network: where the network lies among them.
    """

    made_of: tuple[str, bytes]
    files: dict[str, bytes]
    about: dict[str, Any]
    network: str


_last: _Packed | None = None


def pack(folder: Path, model: Model, network: Path, example: Path, signature: ModelSignature) -> None:
    """Write a model's files into a new folder; the network is there by a link.

    Args:
        folder: to be made.
        model: whose they are: its ids and its place.
        network: the ONNX file.
        example: an .npy file of a few examples (N, ...), raw.
        signature: what the network takes and gives.
    """
    global _last
    made_of = str(signature.to_dict()), example.read_bytes()
    if _last is None or _last.made_of != made_of:
        _save(folder, model, network, example, signature)
        _last = _read(folder, made_of, network)
        return
    for name, content in _last.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / _last.network).parent.mkdir(exist_ok=True)
    (folder / _last.network).symlink_to(network.absolute())
    about = _about(_last.about, model, network)
    (folder / MLMODEL_FILE_NAME).write_text(yaml.dump(about, Dumper=DUMPER, default_flow_style=False))


def share(folder: Path, network: Path, location: str) -> bool:
    """Let a store on this disk have the network by a second name instead of a copy; returns whether it does.

    Whoever writes the file anew makes another one (`onnx_export.export_onnx`), so that the store's stays as it is.

    Args:
        folder: the packed files, of which the network is taken then.
        network: the ONNX file.
        location: where MLflow keeps the model's files.
    """
    there = Path("artifacts") / network.name
    is_here: bool = is_local_uri(location)  # type: ignore[no-untyped-call]
    place = Path(local_file_uri_to_path(location)) if is_here else Path()  # type: ignore[no-untyped-call]
    if not place.is_absolute() or not (folder / there).exists():
        return False
    try:
        (place / there).parent.mkdir(parents=True, exist_ok=True)
        (place / there).unlink(missing_ok=True)  # a former attempt's
        (place / there).hardlink_to(network)
    except OSError:  # another disk, or one without links
        return False
    (folder / there).unlink()
    return True


def _save(folder: Path, model: Model, network: Path, example: Path, signature: ModelSignature) -> None:
    # Else MLflow reads the file lists of all installed packages, 1.1 s, to check pins that are read from them here.
    requirements_utils._MODULES_TO_PACKAGES = {}  # type: ignore[assignment]
    mlflow.pyfunc.save_model(
        path=str(folder),
        mlflow_model=model,
        python_model=predictor.__file__,
        artifacts={predictor.NETWORK: str(network)},
        signature=signature,
        input_example=np.load(example).astype(np.float32),
        pip_requirements=[f"{name}=={version(name)}" for name in predictor.REQUIREMENTS],
    )


def _read(folder: Path, made_of: tuple[str, bytes], network: Path) -> _Packed | None:
    """What has been saved, to be written again; None where it is not laid out as it is known here."""
    about_path, there = folder / MLMODEL_FILE_NAME, f"artifacts/{network.name}"
    if not about_path.exists() or not (folder / there).exists():
        return None
    about = yaml.load(about_path.read_text(), LOADER)
    about["model_size_bytes"] -= network.stat().st_size
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    kept = {name: path.read_bytes() for name, path in files.items() if name not in (there, MLMODEL_FILE_NAME)}
    return _Packed(made_of, kept, about, there)


def _about(known: dict[str, Any], model: Model, network: Path) -> dict[str, Any]:
    """`MLmodel` of another model of the kind."""
    function = known["flavors"]["python_function"]
    artifacts = {predictor.NETWORK: {**function["artifacts"][predictor.NETWORK], "uri": str(network)}}
    return {
        **known,
        "artifact_path": model.artifact_path,
        "flavors": {"python_function": {**function, "artifacts": artifacts}},
        "model_id": model.model_id,
        "model_uuid": model.model_uuid,
        "run_id": model.run_id,
        "model_size_bytes": known["model_size_bytes"] + network.stat().st_size,
        "utc_time_created": str(datetime.datetime.now(datetime.UTC).replace(tzinfo=None)),
    }
