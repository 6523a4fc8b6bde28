"""Which names MLflow takes for experiments, runs, models and params: its rules, known without importing it."""

import posixpath
from collections.abc import Mapping

from pipeline.values import is_unicode

# MLflow's own limits; a test holds them to MLflow's.
MAX_PARAM, MAX_TAG = 6000, 8000
# What the columns of MLflow's databases hold: SQLite takes more, the others refuse it.
MAX_EXPERIMENT_NAME, MAX_MODEL_NAME, MAX_RUN_NAME = 256, 256, 250


def problems_of(params: Mapping[str, object], experiment_source: str = "experiment_name") -> list[str]:
    """A line for each knob that MLflow could never store.

    Args:
        params: knob -> value; `experiment_name`, `model_name` and `run_name` among them.
        experiment_source: what the user set to choose the experiment's name.
    """
    found = [
        (experiment_source, experiment_problem(str(params["experiment_name"])), params["experiment_name"]),
        ("model_name", model_problem(str(params["model_name"])), params["model_name"]),
        ("run_name", _text_problem(str(params["run_name"]), MAX_RUN_NAME), params["run_name"]),
        *(
            (name, _unwritable(str(value)) or _too_long(str(value), MAX_PARAM), value)
            for name, value in params.items()
            if name not in ("experiment_name", "model_name", "run_name")
        ),
    ]
    return [f"{name} {_shown(str(value))} {problem}" for name, problem, value in found if problem]


def experiment_problem(name: str) -> str:
    """What keeps MLflow from having an experiment of that name, or nothing."""
    if not name:
        return "is empty: an MLflow experiment needs a name"
    return _text_problem(name, MAX_EXPERIMENT_NAME)


def model_problem(name: str) -> str:
    """What keeps MLflow from registering a model of that name, or nothing; an empty name registers none."""
    if not name:
        return ""
    if not name.strip():
        return "is blank: a registered model needs a name (none at all: no model is registered)"
    if set("/:?") & set(name):
        return "has a '/', ':' or '?', which an address of a registered model, models:/NAME/1, cannot hold"
    if posixpath.normpath(name) != name or name == "." or name.startswith(".."):
        return "reads as a path ('.' or '..'), which MLflow does not take as a registered model's name"
    return _text_problem(name, MAX_MODEL_NAME)


def _text_problem(text: str, limit: int) -> str:
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        return "has line breaks or other control characters; give a name on one line"
    return _unwritable(text) or _too_long(text, limit)


def _too_long(text: str, limit: int) -> str:
    return f"has {len(text):,} characters, MLflow takes {limit:,}" if len(text) > limit else ""


def _unwritable(text: str) -> str:
    if not is_unicode(text):  # a Latin-1 name in a UTF-8 terminal
        return "has bytes that are no UTF-8 text, which MLflow cannot store"
    return "has a NUL character, which MLflow cannot store" if "\0" in text else ""


def _shown(text: str) -> str:
    short = text if len(text) <= 60 else text[:57] + "..."
    return repr(short) if is_unicode(short) else ascii(short)
