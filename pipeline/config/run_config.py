"""RunConfig: every knob of a run with its meaning, range and default, and what another value of it means elsewhere."""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import BaseModel, ValidationError, ValidationInfo, create_model, field_validator

from pipeline.config import own_code, signatures
from pipeline.config.roles import (
    ALONE,
    KEPT,
    MOST,
    NAME,
    OWN_NAME,
    OWN_PLACE,
    PLACE,
    TURNED,
    UNASKED,
    Names,
    Role,
    knob,
    named,
    names_of,
)
from pipeline.config.words import ConfigError, kind_of, problem_of
from pipeline.values import Value, exactly

IN_MNISTS_FORMAT = ("mnist", "fashion_mnist", "kmnist")
DATASETS = (*IN_MNISTS_FORMAT, "digits", *signatures.DATASETS)
AUTO, UNREGISTERED = "auto", "unregistered"
OPTIMIZERS = ("rmsprop", "sgd", "nesterov", "adagrad", "adadelta", "adam", "adamw")


def default_data_dir(dataset: str) -> str:
    """Where a data set lies by default. MNIST_DIR in the environment is MNIST's folder, no other's."""
    return os.environ.get("MNIST_DIR", "data") if dataset == "mnist" else "data"


class RunConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True):
    """The knobs of one training run, from values as typed or as they are; the defaults are the Keras sample's.

    Network and dataset add the parameters of their own signatures: `RunConfig(network="my_cnn:CNN", channels=32)`.

    Raises:
        ConfigError: naming every unknown knob, every value of the wrong type or outside its range, and every
            combination that cannot be.
    """

    dataset: str = named(
        "mnist",
        "what to learn; digits is a small trial that needs no network",
        Names(DATASETS, "a function"),
        TURNED,
    )
    data_dir: str = knob(
        AUTO,
        "where the data lie; of mnist and its relatives the four IDX files or mnist.npz, and what is missing is "
        "downloaded into it (environment, for mnist: MNIST_DIR)",
        PLACE,
    )
    data_name: str = knob(
        "",
        "a name of their own for data in MNIST's format that are not the known ones; for a folder or table what it is "
        "called",
    )
    validation_size: int = knob(
        0,
        "training examples held out to select on; 0: evaluate on the test set each epoch, as the sample",
        TURNED,
        ge=0,
        le=MOST,
    )
    validation_seed: int = knob(0, "which training examples those are", UNASKED, ge=0, le=2**32 - 1)

    epochs: int = knob(
        20, "passes over the training examples", Role(told=False, resumes="larger", of_mlproject=True), ge=1, le=MOST
    )
    batch_size: int = knob(128, "examples per optimizer step", TURNED, ge=1, le=MOST)

    network: str = named(
        "mlp", "what learns; its own knobs are shown with it", Names(tuple(signatures.NETWORKS), "an nn.Module")
    )

    optimizer: str = named("rmsprop", "update rule", Names(OPTIMIZERS, "a function"), TURNED)
    learning_rate: float = knob(1e-3, "step size of the optimizer", TURNED, gt=0)
    rho: float = knob(0.9, "decay of the running averages (rmsprop, adadelta)", ge=0, lt=1)
    epsilon: float = knob(1e-7, "what keeps the divisor from zero (all but sgd, nesterov)", ge=1e-30)
    momentum: float = knob(0.0, "share of the last step that is repeated (sgd, nesterov)", ge=0, lt=1)
    weight_decay: float = knob(0.01, "share of learning_rate by which weights shrink in a step (adamw)", ge=0)
    schedule: str = named(
        "constant", "how the learning rate goes on, epoch by epoch", Names(("constant", "cosine", "step"), "a function")
    )
    gradient_clip: float = knob(0.0, "longest gradient that a step takes as it is, by its norm; 0: any", ge=0)
    augment: str = named(
        "", "how training examples are changed, anew in each epoch", Names(("", "shift"), "a function")
    )
    metric: str = named(
        "",
        "what else is measured of training, validation and test, beside loss and accuracy; several with commas",
        Names(("", "macro_f1"), "a function", several=True),
        replace(KEPT, groups=False, told=False),
    )
    callback: str = named("", "Lightning callbacks, several with commas", Names(("",), "a class", several=True))

    early_stopping: int = knob(
        0, "stop after so many epochs without a lower val_loss; 0: never; needs validation_size", ge=0, le=MOST
    )
    keep_best: bool = knob(
        False, "keep the weights of the epoch with the lowest val_loss, not the last; needs validation_size"
    )
    on_divergence: Literal["stop", "continue"] = knob(
        "stop",
        "when a loss is nan or infinite at an epoch's end: stop, the run is FAILED; or continue, without a model",
        Role(groups=False, resumes="any"),
    )

    seed: int = knob(
        1,
        "decides initial weights, order and dropout",
        Role(groups=False, told=False, asked=False, of_mlproject=True),
        ge=0,
        le=2**32 - 1,
    )
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = knob("auto", "hardware; auto: CUDA, else a CPU")
    devices: str = knob("auto", "how many devices, or which, as Lightning's Trainer takes it")
    num_nodes: int = knob(1, "machines that train one run together, started by torchrun (docs/cluster.md)", ALONE, ge=1)
    strategy: str = knob("auto", "how devices work together, as Lightning's Trainer takes it (ddp, ...)")
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"] = knob(
        "32-true", "number format of the training step"
    )
    matmul_precision: Literal["auto", "highest", "high", "medium"] = knob(
        "auto",
        "kernels of float32 matrix products, as torch names them; auto: the fastest that are float32-exact here",
    )

    verbose: Literal["auto", "0", "1", "2"] = knob(
        "auto", "0 silent, 1 progress bar, 2 one line per epoch; auto: 1 in a terminal, else 2", OWN_PLACE
    )
    experiment_name: str = knob(
        "mnist-mlp", "MLflow experiment, unless MLFLOW_EXPERIMENT_NAME, _ID or `mlflow run` names one", OWN_NAME
    )
    run_name: str = knob("", "name of the run in MLflow; empty: made of what the run does", OWN_NAME)
    model_name: str = knob(
        AUTO,
        "registered model that gets a new version; auto: DATASET-NETWORK, so mnist-mlp; unregistered: none, as for an "
        "experiment's runs; empty: none, and a light record is without its network",
        NAME,
    )
    record: Literal["full", "light"] = knob(
        "full",
        "what a run leaves: full, with pictures and tables; light, as an experiment's runs: `figures` makes them",
        PLACE,
    )
    runs_dir: str = knob("runs", "folder for each run's own record and checkpoints", OWN_PLACE)

    def __new__(cls, /, **values: object) -> Self:
        """An instance of the class that has the knobs of the network and of the dataset as well."""
        return super().__new__(class_of(values) if cls is RunConfig else cls)  # type: ignore[return-value]

    def __init__(self, /, **values: object) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(sorted(problem_of(each, type(self).model_fields) for each in error.errors())) from None

    @field_validator("*", mode="before")
    @classmethod
    def _as_typed(cls, value: object, info: ValidationInfo) -> Value:
        return exactly(value, kind_of(cls.model_fields[info.field_name or ""]))

    @field_validator("*")
    @classmethod
    def _is_known(cls, value: Any, info: ValidationInfo) -> Any:
        names = names_of(cls.model_fields[info.field_name or ""])
        if names and (problem := names.problem_of(value)):
            raise ValueError(problem)
        return value

    @field_validator("data_dir", "runs_dir")
    @classmethod
    def _folder(cls, folder: str, info: ValidationInfo) -> str:
        if folder == AUTO and info.field_name == "data_dir":
            folder = default_data_dir(info.data.get("dataset", ""))
        return os.path.expanduser(folder)  # noqa: PTH111

    @field_validator("data_name")
    @classmethod
    def _of_ones_own(cls, name: str, info: ValidationInfo) -> str:
        dataset = info.data.get("dataset", "")
        if name and dataset == "digits":
            raise ValueError("goes with files of your own; dataset digits comes with scikit-learn and has none")
        if name and own_code.is_own(dataset):
            raise ValueError(f"goes with files that have no name; {dataset} is one")
        if name in DATASETS:
            raise ValueError(f"{name!r} is that of known data; give --dataset {name}, or another")
        if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})?", name):
            raise ValueError(f"{name!r} is not a name of up to 100 letters, digits, dots, dashes, underscores")
        return name

    @field_validator("momentum")
    @classmethod
    def _is_there_to_look_ahead(cls, momentum: float, info: ValidationInfo) -> float:
        if info.data.get("optimizer") == "nesterov" and not momentum:
            raise ValueError("needs to be above 0 with optimizer nesterov, which looks ahead by it")
        return momentum

    @field_validator("metric")
    @classmethod
    def _has_names_of_its_own(cls, metric: str) -> str:
        names = [path.rpartition(":")[2] for path in metric.split(",")]
        if taken := [
            name for name in names if names.count(name) > 1 or name in ("loss", "accuracy", *cls.model_fields)
        ]:
            raise ValueError(f"{taken[0]} is called like loss, accuracy, a knob or another metric; call it otherwise")
        return metric

    @field_validator("early_stopping", "keep_best")
    @classmethod
    def _on_held_out_images(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("validation_size") == 0:
            raise ValueError(
                "needs validation_size above 0: without held-out images it would select on the test set, "
                "and the test result would no longer be an honest estimate"
            )
        return value

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> "RunConfig":
        return cls(**values)

    def replace(self, **changes: object) -> "RunConfig":
        return RunConfig(**{**self.as_dict(), **changes})

    def own_knobs(self, owner: str) -> dict[str, Any]:
        """The values of the knobs that the network's or the dataset's signature declares; `owner` is its field."""
        return {name: getattr(self, name) for name in signatures.knobs_of(getattr(self, owner))}

    def data_knobs(self) -> dict[str, Any]:
        """The knobs that decide which data are read, as `datasets.load` takes them."""
        which = {name: getattr(self, name) for name in ("dataset", "data_dir", "data_name")}
        return which | self.own_knobs("dataset")

    def own_code(self) -> list[str]:
        """The import paths of the user's own code that takes part."""
        given = [getattr(self, name) for name, field in COMMON.items() if names_of(field)]
        return sorted({each for text in given for each in text.split(",") if own_code.is_own(each)})

    def settled(self) -> "RunConfig":
        """The config with model_name `auto` made of what the dataset and the network are called."""
        words = [self.data_name or self.dataset.rpartition(":")[2], self.network.rpartition(":")[2]]
        name = "-".join(words).replace("_", "-").lower()
        return self.replace(model_name=name) if self.model_name == AUTO else self

    @property
    def registered_as(self) -> str:
        """The registered model that gets a new version, or nothing."""
        return "" if self.model_name == UNREGISTERED else self.model_name

    def as_dict(self) -> dict[str, Any]:
        """Every knob with its value: text, a whole number, a number, true or false."""
        return self.model_dump()


OWNERS = ("dataset", "network")  # the fields whose values bring knobs of their own
COMMON = RunConfig.model_fields


@functools.cache
def class_with_knobs_of(*owners: str) -> type[RunConfig]:
    """The config's class for a dataset and a network: the knobs of every training, and theirs.

    Raises:
        ConfigError: if one of their parameters is called like something else already.
    """
    fields: dict[str, Any] = {}
    problems = []
    for owner in owners:
        for name, (kind, default) in signatures.knobs_of(owner).items():
            whose = f"of {owners[0]}" if name in fields else "of every training" if name in COMMON else ""
            if why := f"which is a knob {whose} already" if whose else signatures.why_no_knob(name, RunConfig):
                problems.append(f"{owner} has a parameter {name}, {why}; call it otherwise")
            fields[name] = (kind, ... if default is signatures.REQUIRED else default)
    if problems:
        raise ConfigError(problems)
    return create_model("RunConfig", __base__=RunConfig, **fields)


def class_of(values: Mapping[str, object]) -> type[RunConfig]:
    """The config's class for the dataset and the network that the values name, or the default ones."""
    return class_with_knobs_of(*[str(values.get(name, COMMON[name].default)) for name in OWNERS])
