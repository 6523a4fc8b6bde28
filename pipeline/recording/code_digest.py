"""Which code decided a training's numbers."""

import ast
import functools
import hashlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from pipeline.config import own_code

PACKAGE = Path(__file__).parents[1]

# The modules whose code decides a training's numbers. A change elsewhere leaves finished runs comparable and reusable.
DECIDING = (
    "data/archives",
    "data/dataset",
    "data/datamodule",
    "data/datasets",
    "data/decoding",
    "data/downloads",
    "data/image_files",
    "data/folder",
    "data/known_data",
    "data/pixel_cache",
    "data/splitting",
    "data/table",
    "data_spec",
    "fast_cpu/blocks",
    "fast_cpu/gradients",
    "fast_cpu/process",
    "networks/cnn",
    "networks/dropout",
    "networks/mlp",
    "optim/optimizers",
    "optim/schedules",
    "pixels",
    "seeding",
    "training/augmentation",
    "training/building",
    "training/callbacks",
    "training/classifier",
    "training/fit",
    "training/history",
    "training/metrics",
    "training/trainer",
)


def code_digest(own: Sequence[str] = ()) -> str:
    """Twelve hex digits of the code that decides the numbers, words and layout left out, and of the torch version.

    Args:
        own: the import paths of the user's own code that takes part.

    Raises:
        OwnCodeError: if there is no such code.
    """
    parts = [_without_words(path.read_text()) for path in own_code.files_of(own)]
    return hashlib.sha256("\0".join([*_of_the_package(), *parts]).encode()).hexdigest()[:12]


@functools.cache
def _of_the_package() -> list[str]:
    parts = [_without_words((PACKAGE / f"{name}.py").read_text()) for name in DECIDING]
    return [metadata.version("torch"), *parts]


def _without_words(source: str) -> str:
    """The code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
