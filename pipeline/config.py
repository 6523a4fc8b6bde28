"""RunConfig: every knob of a run, its meaning, unit and range. The only home of defaults; imports the stdlib only."""

import contextlib
import dataclasses
import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

DATASETS = ("mnist", "fashion_mnist", "kmnist", "digits")
OPTIMIZERS = ("rmsprop", "sgd", "adagrad", "adadelta", "adam")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
MATMUL_PRECISIONS = ("auto", "highest", "high", "medium")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
VERBOSITIES = ("auto", "0", "1", "2")

AUTO = "auto"
MOST_CHARACTERS = 4_000  # of a value: no path is longer
MOST = 2**53  # of a whole number: the largest up to which MLflow's and JSON's numbers are exact

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class ConfigError(ValueError):
    """Wrong knobs, all of them at once.

    Attributes:
        problems: one line for each.
    """

    def __init__(self, problems: list[str]) -> None:
        """Make one message of them."""
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
            problem for knob in dataclasses.fields(self) if (problem := _range_problem(knob, getattr(self, knob.name)))
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


def convert(knob: "dataclasses.Field[Any]", value: object) -> str | int | float | bool:
    """The value as the knob's type, exactly: nothing is rounded or guessed.

    Raises:
        ValueError: if the value is not of the knob's type.
    """
    kind = {"int": int, "float": float, "bool": bool, "str": str}[_type_name(knob)]
    converters: dict[type, Any] = {int: _whole, float: _real, bool: _truth, str: str}
    if isinstance(value, str | int | float) and (kind is bool or not isinstance(value, bool)):
        with contextlib.suppress(ValueError):
            converted: str | int | float | bool = converters[kind](_typed(value))
            return converted
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
    raise ValueError(f"{knob.name} {_short(repr(value))} is not {wanted}")


def _typed(value: object) -> str:
    """The value as text.

    Raises:
        ValueError: if it holds a character that no path, name or parameter may have.
    """
    text = str(value).strip()
    if "\0" in text or len(text) > MOST_CHARACTERS:
        raise ValueError
    return text


def _type_name(knob: "dataclasses.Field[Any]") -> str:
    return knob.type if isinstance(knob.type, str) else knob.type.__name__


def _truth(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError
    return text.lower() in _TRUE


def _whole(text: str) -> int:
    """`12`, `12.0`, `1.2e1`, exactly."""
    number = _real(text)
    if not math.isfinite(number) or ("e" not in text.lower() and "." not in text):
        return int(text)
    exact = Fraction(text)
    if exact.denominator != 1:
        raise ValueError
    return exact.numerator


def _real(text: str) -> float:
    """The number; what Python takes and nobody means (`1_000`, digits of other scripts) is none. -0 is 0."""
    if not text.isascii() or "_" in text:
        raise ValueError
    return float(text) + 0.0


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def range_text(knob: "dataclasses.Field[Any]") -> str:
    """The allowed values in words: `one of mnist, kmnist`, `at least 0, below 1`, or nothing."""
    words = knob.metadata
    if words["choices"]:
        return "one of " + ", ".join(words["choices"])
    names = {"above": "above", "minimum": "at least", "maximum": "at most", "below": "below"}
    return ", ".join(f"{text} {words[name]:g}" for name, text in names.items() if words[name] is not None)


def _range_problem(knob: "dataclasses.Field[Any]", value: Any) -> str | None:
    """What is wrong with the value, or None."""
    words = knob.metadata
    if words["choices"]:
        if value in words["choices"]:
            return None
        guess = did_you_mean(str(value)[:80], words["choices"])
        return f"{knob.name} {_short(repr(value))} is not {range_text(knob)}{guess}"
    if not isinstance(value, int | float):
        return None
    inside = (
        (abs(value) <= MOST if isinstance(value, int) else math.isfinite(value))
        and (words["above"] is None or value > words["above"])
        and (words["minimum"] is None or value >= words["minimum"])
        and (words["maximum"] is None or value <= words["maximum"])
        and (words["below"] is None or value < words["below"])
    )
    if inside:
        return None
    allowed = range_text(knob) or "finite"
    too_large = isinstance(value, int) and value > MOST and words["maximum"] is None
    return f"{knob.name} {_short(str(value))} is out of range: {allowed}{f', at most {MOST:g}' if too_large else ''}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'epochs'?` if something known is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The line for a name that nobody knows."""
    return f"unknown {kind} {_short(repr(name))}{did_you_mean(name[:80].lstrip('-').replace('-', '_'), known)}"
