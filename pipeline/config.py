"""RunConfig: every knob of a run, its meaning, unit and range. The only home of defaults; imports the stdlib only."""

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.values import convert, range_problem, unknown_name

DATASETS = ("mnist", "fashion_mnist", "kmnist", "digits")
OPTIMIZERS = ("rmsprop", "sgd", "adagrad", "adadelta", "adam")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
MATMUL_PRECISIONS = ("auto", "highest", "high", "medium")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
VERBOSITIES = ("auto", "0", "1", "2")

AUTO = "auto"


class ConfigError(ValueError):
    """Wrong knobs, all of them at once.

    Attributes:
        problems: one line for each.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n  ".join(["wrong input:", *problems]) if len(problems) > 1 else problems[0])


def knob(
    default: Any,
    meaning: str,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of `RunConfig` with its documentation and its range."""
    bounds = {"above": above, "minimum": minimum, "maximum": maximum, "below": below}
    metadata = {"meaning": meaning, "choices": choices, **bounds}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def default_data_dir(dataset: str) -> str:
    """Where a data set lies by default. MNIST_DIR in the environment is MNIST's folder, no other's."""
    return os.environ.get("MNIST_DIR", "data") if dataset == "mnist" else "data"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The knobs of one training run; the defaults are the Keras sample's.

    Raises:
        ConfigError: naming every value outside its range and every combination that cannot be.
    """

    dataset: str = knob("mnist", "what to learn; digits is a small trial that needs no network", choices=DATASETS)
    data_dir: str = knob(
        AUTO,
        "folder of the four IDX files or mnist.npz; what is missing is downloaded into it "
        "(environment, for mnist: MNIST_DIR)",
    )
    data_name: str = knob(
        "", "a name of their own for data of your own in MNIST's format; empty: the data must be the known ones"
    )
    validation_size: int = knob(
        0,
        "training images held out to select on; 0: evaluate on the test set each epoch, as the sample",
        minimum=0,
    )

    epochs: int = knob(20, "passes over the training images", minimum=1)
    batch_size: int = knob(128, "images per optimizer step", minimum=1)

    hidden_units: int = knob(512, "units per hidden layer", minimum=1)
    hidden_layers: int = knob(2, "number of hidden layers", minimum=0, maximum=1000)
    dropout: float = knob(0.2, "share of hidden units dropped at each training step", minimum=0, below=1)

    optimizer: str = knob("rmsprop", "update rule", choices=OPTIMIZERS)
    learning_rate: float = knob(1e-3, "step size of the optimizer", above=0)
    rho: float = knob(0.9, "decay of the running averages (rmsprop, adadelta)", minimum=0, below=1)
    epsilon: float = knob(1e-7, "what keeps the divisor from zero (all but sgd)", minimum=1e-30)
    momentum: float = knob(0.0, "share of the last step that is repeated (sgd)", minimum=0, below=1)

    early_stopping: int = knob(
        0, "stop after so many epochs without a lower val_loss; 0: never; needs validation_size", minimum=0
    )
    keep_best: bool = knob(
        False, "keep the weights of the epoch with the lowest val_loss, not the last; needs validation_size"
    )
    on_divergence: str = knob(
        "stop",
        "when a loss is nan or infinite at an epoch's end: stop, the run is FAILED; or continue, without a model",
        choices=("stop", "continue"),
    )

    seed: int = knob(1, "decides initial weights, order and dropout", minimum=0, maximum=2**32 - 1)
    accelerator: str = knob("auto", "hardware to train on", choices=ACCELERATORS)
    devices: str = knob("auto", "how many devices, or which, as Lightning's Trainer takes it")
    strategy: str = knob("auto", "how devices work together, as Lightning's Trainer takes it (ddp, ...)")
    precision: str = knob("32-true", "number format of the training step", choices=PRECISIONS)
    matmul_precision: str = knob(
        "auto",
        "kernels of float32 matrix products, as torch names them; auto: the fastest that are float32-exact here",
        choices=MATMUL_PRECISIONS,
    )

    verbose: str = knob(
        "auto",
        "0 silent, 1 progress bar, 2 one line per epoch; auto: 1 in a terminal, else 2",
        choices=VERBOSITIES,
    )
    experiment_name: str = knob(
        "mnist-mlp", "MLflow experiment, unless MLFLOW_EXPERIMENT_NAME, _ID or `mlflow run` names one"
    )
    run_name: str = knob("", "name of the run in MLflow; empty: made of what the run does")
    model_name: str = knob(
        "auto", "registered model that gets a new version; empty: none; auto: DATASET-NETWORK, so mnist-mlp"
    )
    runs_dir: str = knob("runs", "folder for each run's own record and checkpoints")

    def __post_init__(self) -> None:
        """Settle what depends on other knobs, then check every range."""
        if self.data_dir == AUTO:
            object.__setattr__(self, "data_dir", default_data_dir(self.dataset))
        for name in ("data_dir", "runs_dir"):
            object.__setattr__(self, name, os.path.expanduser(getattr(self, name)))  # noqa: PTH111
        problems = [
            problem for knob in dataclasses.fields(self) if (problem := range_problem(knob, getattr(self, knob.name)))
        ]
        if problems := problems + self._conflicts():
            raise ConfigError(problems)

    def _conflicts(self) -> list[str]:
        return self._data_name_problems() + self._selection_problems()

    def _data_name_problems(self) -> list[str]:
        if not self.data_name:
            return []
        if self.dataset == "digits":
            return ["data_name goes with files of your own; dataset digits comes with scikit-learn and has none"]
        if self.data_name in DATASETS:
            return [f"data_name {self.data_name!r} is that of known data; give --dataset {self.data_name}, or another"]
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.data_name):
            return [
                f"data_name {self.data_name!r} is not a name of up to 100 letters, digits, dots, dashes, underscores"
            ]
        return []

    def _selection_problems(self) -> list[str]:
        if self.validation_size:
            return []
        why = (
            "needs validation_size above 0: without held-out images it would select on the test set, "
            "and the test result would no longer be an honest estimate"
        )
        return [f"{name} {why}" for name in ("early_stopping", "keep_best") if getattr(self, name)]

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> "RunConfig":
        """Make a config of names and values as typed (text from a flag, anything from YAML).

        Raises:
            ConfigError: naming every unknown knob, every value of the wrong type and every range missed.
        """
        knobs = {knob.name: knob for knob in dataclasses.fields(cls)}
        problems = [unknown_name("knob", name, knobs) for name in values if name not in knobs]
        converted: dict[str, Any] = {}
        for name in knobs.keys() & values.keys():
            try:
                converted[name] = convert(knobs[name], values[name])
            except ValueError as error:
                problems.append(str(error))
        try:
            config = cls(**converted)
        except ConfigError as error:
            problems += error.problems
        if problems:
            raise ConfigError(sorted(problems))
        return config

    def named_after(self, network: str) -> "RunConfig":
        """The config with model_name `auto` made of the dataset and the network's class name."""
        if self.model_name != "auto":
            return self
        return dataclasses.replace(
            self, model_name=f"{self.data_name or self.dataset}-{network}".replace("_", "-").lower()
        )

    def as_dict(self) -> dict[str, str | int | float | bool]:
        """Every knob with its value."""
        return dataclasses.asdict(self)
