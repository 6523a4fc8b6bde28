"""Code of a user's own, named by import path, `my_flowers:flowers`: found, imported, its files listed."""

import ast
import contextlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from traceback import walk_tb
from typing import Any, NamedTuple

from pipeline.values import did_you_mean, short

_loaded: set[str] = set()  # the files of the modules, of the packages they are in, and of what they hand on
OURS = __name__.partition(".")[0]  # this package, of which the code digest says itself what counts
INSTALLED = {"site-packages", "dist-packages"}
# Of these the named file alone counts, and else their version: to look through torch's 1,800 files takes 40 s.
FRAMEWORKS = {"torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning", "lightning_fabric"}
PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class OwnCodeError(ValueError):
    """A name that leads to no code of the user's, or to code that is not what was asked for."""


class OwnFile(NamedTuple):
    """A file of a module.

    Attributes:
        root: the folder that Python looks in, below which the module's name leads to the file.
    """

    path: Path
    root: Path

    @property
    def place(self) -> Path:
        """The file as its module's name says it."""
        return self.path.relative_to(self.root)

    @property
    def is_installed(self) -> bool:
        return bool(INSTALLED & set(self.path.parts))


def is_own(name: str) -> bool:
    """Whether the name is an import path rather than that of something shipped."""
    return ":" in name


def problem_of(name: str) -> str:
    """What is wrong with the form of an import path, or nothing."""
    return "" if PATH.fullmatch(name) else f"{short(repr(name))} is not module:function, like my_flowers:flowers"


def load(name: str, called_with: Sequence[str] | None = None) -> Callable[..., Any]:
    """What the import path names, from a module in the working directory or one that is installed.

    Args:
        name: the import path.
        called_with: what the pipeline will give it, in order; None: its signature says that itself.

    Raises:
        OwnCodeError: if there is no such module, nothing of that name in it that can be called, or nothing that takes
            these arguments. What the module itself raises as it is imported is raised as it is, with its traceback.
    """
    module_name, _, attribute = name.partition(":")
    path = file_of(module_name, name)
    module = importlib.import_module(module_name)
    found = getattr(module, attribute, None)
    if found is None:
        known = [each for each in vars(module) if not each.startswith("_")]
        raise OwnCodeError(f"{name}: {path} has no {attribute}{did_you_mean(attribute, known)}")
    if not callable(found):
        raise OwnCodeError(f"{name}: {attribute} in {path} is {type(found).__name__}, expected a function or a class")
    with contextlib.suppress(TypeError, ValueError, OSError):  # what is not written in Python has no file
        _loaded.add(inspect.getsourcefile(inspect.unwrap(found)) or str(path))
    if called_with is not None and (problem := _problem_of_call(found, called_with)):
        with_what = f"({', '.join(called_with)})" if called_with else "no argument"
        raise OwnCodeError(f"{name} ({begin_of(found)}) will be called with {with_what}: {problem}")
    return found  # type: ignore[no-any-return]


def _problem_of_call(found: Callable[..., Any], arguments: Sequence[str]) -> str:
    """Why it cannot be called with so many arguments, or nothing; what is not written in Python need not say it."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return str(error)
    return ""


def file_of(module_name: str, name: str = "") -> Path:
    """The module's file; it is looked for as Python does, the working directory first.

    Raises:
        OwnCodeError: if there is none. What a package on the way raises as it is imported is raised as it is.
    """
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    spec, parts = None, module_name.split(".")
    for count in range(1, len(parts) + 1):
        spec = _spec_of(".".join(parts[:count]))
        if spec is None:
            break
        _loaded.add(spec.origin or "")
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        near = sorted(path.stem for path in Path.cwd().glob("*.py"))
        raise OwnCodeError(
            f"{name or module_name}: no module {module_name} in {here} or installed{did_you_mean(module_name, near)}; "
            "start where its file lies"
        )
    return Path(spec.origin)


def _spec_of(module_name: str) -> ModuleSpec | None:
    """What Python knows of the module once it has imported the package that it is in; None if there is no module."""
    if module_name in sys.modules and getattr(sys.modules[module_name], "__spec__", None) is None:
        return None  # a __main__ that was started as a file
    try:
        return importlib.util.find_spec(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):  # it is lacking to the user's package
            raise
        return None


def as_number(given: Any) -> float | None:
    """What own code gave, as a number: Python's, NumPy's or a tensor's only one; None if it is none."""
    try:
        return None if isinstance(given, str | bytes) else float(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def place_of(error: BaseException, name: str) -> str:
    """`my_flowers.py:12`: the last line of the user's own files on the error's way, or the file of the module."""
    path = file_of(name.partition(":")[0], name)
    way = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    lines = [f"{Path(file).name}:{line}" for file, line in way if file in _loaded]
    return lines[-1] if lines else path.name


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
    """The files of the modules that the import paths name, and what these import from beside them or their packages."""
    return list(dict.fromkeys(each.path for each in own_files(names)))


def own_files(names: Iterable[str]) -> list[OwnFile]:
    """The same with the folders that they are found under, in the order of their places below these."""
    waiting = [_named(name) for name in names]
    found: set[OwnFile] = set()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imported_by(file)
    return sorted(found, key=lambda file: (file.place, file.path))


def _named(name: str) -> OwnFile:
    """The file of the module that the import path names."""
    module_name = name.partition(":")[0]
    path = file_of(module_name, name)
    return OwnFile(path, path.parents[module_name.count(".") + (path.stem == "__init__")])


def _imported_by(file: OwnFile) -> list[OwnFile]:
    """The files of the user's that the file imports, and those of the packages that it is in."""
    if file.is_installed and file.place.parts[0] in FRAMEWORKS:
        return []
    packages = [] if file.is_installed else [*file.place.parents][:-1]
    stems = [file.root / package for package in packages]
    for level, name in _imports_of(file.path):
        stems += [folder.joinpath(*name.split(".")) for folder in _folders_of(file, level, name)]
    paths = [next(filter(Path.is_file, (stem / "__init__.py", Path(f"{stem}.py"))), None) for stem in stems]
    found = [OwnFile(path, file.root) for path in paths if path and path.is_relative_to(file.root)]
    return [each for each in found if each.place.parts[0] != OURS]


def _imports_of(path: Path) -> set[tuple[int, str]]:
    """What the file imports: how many dots stand before a name, none before an absolute one, and the name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {(0, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module or ''}.{alias.name}".lstrip(".") for alias in node.names)]
            found |= {(node.level, name) for name in names}
    return found


def _folders_of(file: OwnFile, level: int, name: str) -> list[Path]:
    """The folders in which the file's import of a name may find it."""
    if level:
        return [file.root / package for package in [*file.place.parents][level - 1 : level]]
    if file.is_installed:  # beside it lie the packages of others
        return [file.root] if name.partition(".")[0] == file.place.parts[0] else []
    return [file.path.parent, file.root]
