"""Code of a user's own, named by import path, `my_flowers:flowers`: found, imported, its files listed."""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from traceback import walk_tb
from typing import Any

from pipeline.values import did_you_mean, short

_loaded: set[str] = set()  # the files of the modules
PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class OwnCodeError(ValueError):
    """A name that leads to no code of the user's, or to code that is not what was asked for."""


def is_own(name: str) -> bool:
    """Whether the name is an import path rather than that of something shipped."""
    return ":" in name


def problem_of(name: str) -> str:
    """What is wrong with the form of an import path, or nothing."""
    return "" if PATH.fullmatch(name) else f"{short(repr(name))} is not module:function, like my_flowers:flowers"


def load(name: str) -> Callable[..., Any]:
    """What the import path names, from a module in the working directory or one that is installed.

    Raises:
        OwnCodeError: if there is no such module, or nothing of that name in it that can be called. What the module
            itself raises as it is imported is raised as it is, with its traceback.
    """
    module_name, _, attribute = name.partition(":")
    path = file_of(module_name, name)
    _loaded.add(str(path))
    module = importlib.import_module(module_name)
    found = getattr(module, attribute, None)
    if found is None:
        known = [each for each in vars(module) if not each.startswith("_")]
        raise OwnCodeError(f"{name}: {path} has no {attribute}{did_you_mean(attribute, known)}")
    if not callable(found):
        raise OwnCodeError(f"{name}: {attribute} in {path} is {type(found).__name__}, expected a function or a class")
    return found  # type: ignore[no-any-return]


def file_of(module_name: str, name: str = "") -> Path:
    """The module's file; it is looked for as Python does, the working directory first.

    Raises:
        OwnCodeError: if there is none.
    """
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(module_name)
    except (ModuleNotFoundError, ValueError):  # a package on the way is missing, or it is __main__
        spec = None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        near = sorted(path.stem for path in Path.cwd().glob("*.py"))
        raise OwnCodeError(
            f"{name or module_name}: no module {module_name} in {here} or installed{did_you_mean(module_name, near)}; "
            "start where its file lies"
        )
    return Path(spec.origin)


def as_number(given: Any) -> float | None:
    """What own code gave, as a number: Python's, NumPy's or a tensor's only one; None if it is none."""
    try:
        return None if isinstance(given, str | bytes) else float(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def place_of(error: BaseException, name: str) -> str:
    """`my_flowers.py:12`: the line of the user's module at which the error left it, or its file."""
    path = file_of(name.partition(":")[0], name)
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)]
    return f"{path.name}:{lines[-1]}" if lines else path.name


def begin_of(code: Any) -> str:
    """`my_cnn.py:14`, where a function or a class begins; its name, if that cannot be read."""
    try:
        path, (_, line) = inspect.getsourcefile(code), inspect.getsourcelines(code)
        return f"{Path(path or '').name}:{line}"
    except (OSError, TypeError):
        return str(getattr(code, "__qualname__", code))


def raised_in_own(error: BaseException) -> bool:
    """Whether the error came out of a user's own module, and is none that this pipeline words."""
    if type(error).__module__.startswith("pipeline."):
        return False
    return any(frame.f_code.co_filename in _loaded for frame, _ in walk_tb(error.__traceback__))


def files_of(names: Iterable[str]) -> list[Path]:
    """The files of the modules that the import paths name, and what these import from beside them."""
    waiting = [file_of(name.partition(":")[0], name) for name in names]
    found: list[Path] = []
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.append(path)
            waiting += _beside(path)
    return sorted(found)


def _beside(path: Path) -> list[Path]:
    """The files in the module's own folder that it imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names |= {base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)}
    paths = [path.parent.joinpath(*name.split(".")) for name in names if name]
    files = [each for stem in paths for each in (stem.with_suffix(".py"), stem / "__init__.py")]
    return [each for each in files if each.is_file()]
