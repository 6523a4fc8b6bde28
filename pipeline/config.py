"""RunConfig: every knob of a run with its meaning, range and default, and what another value of it means elsewhere."""

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from pipeline.values import Value, did_you_mean, exactly, short, unknown_name

Dataset = Literal["mnist", "fashion_mnist", "kmnist", "digits"]
DATASETS: tuple[str, ...] = get_args(Dataset)
AUTO = "auto"
MOST = 2**53  # of a whole number: the largest up to which MLflow's and JSON's numbers are exact
LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


class ConfigError(ValueError):
    """Wrong knobs, all of them at once.

    Attributes:
        problems: one line for each.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n  ".join(["wrong input:", *problems]) if len(problems) > 1 else problems[0])


@dataclass(frozen=True)
class Role:
    """What another value of a knob means for comparing, naming and resuming, and who may give it.

    Attributes:
        groups: a comparison puts runs that differ in it into different groups.
        decides: an experiment takes a run that differs in it for another answer, and trains anew.
        told: a run's name and description tell it where it is not the sample's.
        resumes: what a run that is gone on with may be given: no other value, a larger one, any.
        asked: an experiment's file may set it; what the experiment itself decides it may not.
        of_mlproject: MLproject declares it, and so gives it whether a person typed it or not.
    """

    groups: bool = True
    decides: bool = True
    told: bool = True
    resumes: Literal["no other", "larger", "any"] = "no other"
    asked: bool = True
    of_mlproject: bool = False


KEPT, TURNED = Role(), Role(of_mlproject=True)
NAME = Role(groups=False, decides=False, told=False)
PLACE = replace(NAME, resumes="any")  # where things lie and what is printed changes no number
OWN_NAME, OWN_PLACE = replace(NAME, asked=False), replace(PLACE, asked=False)


def knob(default: Value, meaning: str, role: Role = KEPT, **limits: float) -> Any:
    """A field with its documentation, its role and its range: `gt`, `ge`, `lt`, `le` as pydantic has them."""
    field: Any = Field(default, description=meaning, **limits)  # type: ignore[call-overload]
    field.metadata.append(role)
    return field


def default_data_dir(dataset: str) -> str:
    """Where a data set lies by default. MNIST_DIR in the environment is MNIST's folder, no other's."""
    return os.environ.get("MNIST_DIR", "data") if dataset == "mnist" else "data"


class RunConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True):
    """The knobs of one training run, from values as typed or as they are; the defaults are the Keras sample's.

    Raises:
        ConfigError: naming every unknown knob, every value of the wrong type or outside its range, and every
            combination that cannot be.
    """

    dataset: Dataset = knob("mnist", "what to learn; digits is a small trial that needs no network", TURNED)
    data_dir: str = knob(
        AUTO,
        "folder of the four IDX files or mnist.npz; what is missing is downloaded into it "
        "(environment, for mnist: MNIST_DIR)",
        PLACE,
    )
    data_name: str = knob(
        "", "a name of their own for data of your own in MNIST's format; empty: the data must be the known ones"
    )
    validation_size: int = knob(
        0,
        "training images held out to select on; 0: evaluate on the test set each epoch, as the sample",
        TURNED,
        ge=0,
        le=MOST,
    )

    epochs: int = knob(
        20, "passes over the training images", Role(told=False, resumes="larger", of_mlproject=True), ge=1, le=MOST
    )
    batch_size: int = knob(128, "images per optimizer step", TURNED, ge=1, le=MOST)

    hidden_units: int = knob(512, "units per hidden layer", TURNED, ge=1, le=MOST)
    hidden_layers: int = knob(2, "number of hidden layers", TURNED, ge=0, le=1000)
    dropout: float = knob(0.2, "share of hidden units dropped at each training step", TURNED, ge=0, lt=1)

    optimizer: Literal["rmsprop", "sgd", "adagrad", "adadelta", "adam"] = knob("rmsprop", "update rule", TURNED)
    learning_rate: float = knob(1e-3, "step size of the optimizer", TURNED, gt=0)
    rho: float = knob(0.9, "decay of the running averages (rmsprop, adadelta)", ge=0, lt=1)
    epsilon: float = knob(1e-7, "what keeps the divisor from zero (all but sgd)", ge=1e-30)
    momentum: float = knob(0.0, "share of the last step that is repeated (sgd)", ge=0, lt=1)

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
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = knob("auto", "hardware to train on")
    devices: str = knob("auto", "how many devices, or which, as Lightning's Trainer takes it")
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
        AUTO, "registered model that gets a new version; empty: none; auto: DATASET-NETWORK, so mnist-mlp", NAME
    )
    runs_dir: str = knob("runs", "folder for each run's own record and checkpoints", OWN_PLACE)

    def __init__(self, /, **values: object) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(sorted(map(_problem, error.errors()))) from None

    @field_validator("*", mode="before")
    @classmethod
    def _as_typed(cls, value: object, info: ValidationInfo) -> Value:
        return exactly(value, kind_of(info.field_name or ""))

    @field_validator("data_dir", "runs_dir")
    @classmethod
    def _folder(cls, folder: str, info: ValidationInfo) -> str:
        if folder == AUTO and info.field_name == "data_dir":
            folder = default_data_dir(info.data.get("dataset", ""))
        return os.path.expanduser(folder)  # noqa: PTH111

    @field_validator("data_name")
    @classmethod
    def _of_ones_own(cls, name: str, info: ValidationInfo) -> str:
        if name and info.data.get("dataset") == "digits":
            raise ValueError("goes with files of your own; dataset digits comes with scikit-learn and has none")
        if name in DATASETS:
            raise ValueError(f"{name!r} is that of known data; give --dataset {name}, or another")
        if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})?", name):
            raise ValueError(f"{name!r} is not a name of up to 100 letters, digits, dots, dashes, underscores")
        return name

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

    def named_after(self, network: str) -> "RunConfig":
        """The config with model_name `auto` made of the dataset and the network's class name."""
        name = f"{self.data_name or self.dataset}-{network}".replace("_", "-").lower()
        return self.replace(model_name=name) if self.model_name == AUTO else self

    def as_dict(self) -> dict[str, Any]:
        """Every knob with its value: text, a whole number, a number, true or false."""
        return self.model_dump()


KNOBS = RunConfig.model_fields
ROLES = {name: next(each for each in field.metadata if isinstance(each, Role)) for name, field in KNOBS.items()}


def problems_of(values: Mapping[str, object]) -> list[str]:
    """What is wrong with the knobs, a line for each."""
    try:
        RunConfig.from_mapping(values)
    except ConfigError as error:
        return error.problems
    return []


def as_recorded(params: Mapping[str, str]) -> dict[str, str]:
    """Params as our own records have them: of a knob `1e-3` as `0.001`; what is no knob's value stays as it is."""
    recorded = dict(params)
    for name in KNOBS.keys() & params.keys():
        with contextlib.suppress(ValueError):
            recorded[name] = str(exactly(params[name], kind_of(name)))
    return recorded


def kind_of(name: str) -> type:
    """The type of a knob's value: str, int, float or bool."""
    kind: Any = RunConfig.model_fields[name].annotation
    return str if get_args(kind) else kind


def choices_of(name: str) -> tuple[str, ...]:
    """The words that a knob may have; none: any."""
    return get_args(KNOBS[name].annotation)


def range_text(name: str, value: float = 0) -> str:
    """What a knob may be in words: `one of mnist, kmnist`, `at least 0, below 1`, or nothing.

    Args:
        name: the knob.
        value: what it was given; the largest whole number of any knob is told if it was larger.
    """
    if choices := choices_of(name):
        return "one of " + ", ".join(choices)
    limits = [
        (words, getattr(each, key))
        for each in KNOBS[name].metadata
        for key, words in LIMITS.items()
        if hasattr(each, key)
    ]
    return ", ".join(f"{words} {limit:g}" for words, limit in limits if limit != MOST or value > MOST)


def _problem(error: ErrorDetails) -> str:
    """One of pydantic's errors as a line: what was given, what is allowed."""
    name, value = str(error["loc"][0]), error["input"]
    match error["type"]:
        case "extra_forbidden":
            return unknown_name("knob", name, KNOBS)
        case "value_error":
            return f"{name} {error['ctx']['error']}"
        case "literal_error":
            return f"{name} {short(repr(value))} is not {range_text(name)}{did_you_mean(value, choices_of(name))}"
        case _:
            return f"{name} {short(str(value))} is out of range: {range_text(name, value) or 'finite'}"
