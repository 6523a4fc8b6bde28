"""The knobs of a network or a dataset: the parameters of its own signature.

`def __init__(self, spec, channels: Annotated[int, Field(ge=1, description="filters")] = 16)` is a knob.
"""

import ast
import functools
import inspect
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field

from pipeline.config.own_code import OwnCodeError, is_own, load, problem_of

PACKAGE = Path(__file__).parents[1]
# The shipped ones that have knobs: name -> module and what to call in it.
NETWORKS = {"mlp": ("networks/mlp", "MLP"), "cnn": ("networks/cnn", "CNN")}
DATASETS = {"folder": ("data/folder", "folder"), "table": ("data/table", "table")}
FLAGS = ("config", "help", "project_defaults", "resume")  # those of train that are no knobs
KINDS = (int, float, bool, str)
# The knobs of every dataset that may have to hold out its own test part.
TestShare = Annotated[
    float, Field(gt=0, lt=1, description="share of each class held out to test with, where the data have no test part")
]
SplitSeed = Annotated[int, Field(ge=0, le=2**32 - 1, description="decides which those are, the same for every run")]
REQUIRED: Any = inspect.Parameter.empty

# name -> (type with pydantic's limits, default or REQUIRED)
Knobs = dict[str, tuple[Any, Any]]


@functools.cache
def knobs_of(name: str) -> Knobs:
    """The knobs of a network or a dataset, shipped or own: its parameters but the first, which the pipeline gives.

    A name that is wrong itself, which is told with all else, has none.

    Raises:
        OwnCodeError: if it is own, and cannot be had, or has a parameter that can be no knob.
    """
    if is_own(name):
        return {} if problem_of(name) else _of_own(name)
    shipped = {**NETWORKS, **DATASETS}
    return _of_source(*shipped[name]) if name in shipped else {}


def _of_source(module: str, name: str) -> Knobs:
    """Those of shipped code, which is read and not imported: torch takes two seconds, and `--help` has half of one."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    node: Any = next(each for each in tree.body if getattr(each, "name", "") == name)
    first = 1
    if isinstance(node, ast.ClassDef):
        node, first = next(each for each in node.body if getattr(each, "name", "") == "__init__"), 2  # after self
    parameters = node.args.args[first:]
    defaults = [REQUIRED] * (len(parameters) - len(node.args.defaults)) + list(
        map(ast.literal_eval, node.args.defaults)
    )
    known = {each: globals()[each] for each in ("Annotated", "Field", "Literal", "TestShare", "SplitSeed")}
    kinds = [eval(ast.unparse(each.annotation), known) for each in parameters]
    return {each.arg: (kind, default) for each, kind, default in zip(parameters, kinds, defaults, strict=True)}


def _of_own(name: str) -> Knobs:
    owner = load(name)
    try:
        parameters = list(inspect.signature(owner, eval_str=True).parameters.values())
    except (TypeError, ValueError, NameError) as error:
        raise OwnCodeError(f"{name}: its parameters cannot be read ({error})") from None
    if not parameters:
        raise OwnCodeError(f"{name} takes no argument; the first is what the pipeline gives it")
    named = [each for each in parameters[1:] if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return {each.name: (_kind_of(each, name), each.default) for each in named}


def _kind_of(parameter: inspect.Parameter, name: str) -> Any:
    """The annotation of a parameter; without one it is of its default's type."""
    kind = type(parameter.default) if parameter.annotation is REQUIRED else parameter.annotation
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    words = get_origin(plain) is Literal and all(isinstance(word, str) for word in get_args(plain))
    if plain not in KINDS and not words:
        raise OwnCodeError(
            f"{name}: its parameter {parameter.name} is {getattr(plain, '__name__', plain)}, which no flag can give: "
            "expected int, float, bool, str, or Literal of words"
        )
    return kind


def why_no_knob(name: str, config: type) -> str:
    """What keeps a parameter's name from being a knob's, an attribute of the config's class; or nothing."""
    if name in FLAGS:
        return "which is a flag of train already"
    if name.startswith("_"):
        return "which begins with an underscore, as no knob does"
    return "which is an attribute of the config already" if hasattr(config, name) else ""
