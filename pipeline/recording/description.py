"""What a record says of a training of ours, as plain values: its name, its tags, its data."""

import json
from typing import TYPE_CHECKING, Any

from pipeline.config import RunConfig
from pipeline.config.roles import role_of
from pipeline.terminal.shell import user_name
from pipeline.tracking.recovery import OURS

if TYPE_CHECKING:
    from pipeline.data.dataset import Dataset, Split
    from pipeline.data_spec import DataSpec


def run_name(config: RunConfig) -> str:
    """A name that tells the run from its neighbours: what differs from the sample, then epochs and seed."""
    if config.run_name:
        return config.run_name
    return f"{what_differs(config)} epochs={config.epochs} seed={config.seed}"


def what_differs(config: RunConfig) -> str:
    """The knobs that are not the sample's, or `sample`; epochs, seed, and what only names or places things left out."""
    fields, values = type(config).model_fields, config.as_dict()
    different = [
        f"{name}={values[name]}"
        for name, field in fields.items()
        if role_of(field).told and values[name] != field.default
    ]
    return " ".join(different or ["sample"])


def identity_tags(config: RunConfig) -> dict[str, str]:
    """Whose run it is, and its name in MLflow."""
    return {
        "mlflow.runName": run_name(config),
        "mlflow.user": user_name(),
        "mlflow.source.name": OURS,
        "mlflow.source.type": "LOCAL",
    }


def dataset_inputs(source: "Dataset", validation_size: int) -> list[dict[str, Any]]:
    """MLflow's dataset inputs: what was trained on, what was evaluated on."""
    parts = [("training", source.train), ("testing", source.test)]
    return [
        {
            "context": context,
            "dataset": {
                "name": f"{source.name}-{context}",
                "digest": source.digest,
                "source_type": "local",
                "source": json.dumps({"uri": source.source}),
                "schema": json.dumps({"mlflow_tensorspec": _tensor_spec(source.spec, split)}),
                "profile": json.dumps(_profile(split, validation_size if context == "training" else 0)),
            },
        }
        for context, split in parts
    ]


def _tensor_spec(spec: "DataSpec", split: "Split") -> dict[str, str]:
    inputs = {"dtype": str(split.inputs.dtype), "shape": [-1, *spec.sent_shape]}
    features = [{"type": "tensor", "tensor-spec": inputs}]
    targets = [{"type": "tensor", "tensor-spec": {"dtype": str(split.labels.dtype), "shape": [-1]}}]
    return {"features": json.dumps(features), "targets": json.dumps(targets)}


def _profile(split: "Split", held_out: int) -> dict[str, Any]:
    shapes = {"features_shape": list(split.inputs.shape), "targets_shape": list(split.labels.shape)}
    return {**shapes, **({"held_out_for_validation": held_out} if held_out else {})}
