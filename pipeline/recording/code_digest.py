"""Which code decided a training's numbers."""

import ast
import functools
import hashlib
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).parents[1]

# The modules whose code decides a training's numbers. A change elsewhere leaves finished runs comparable and reusable.
DECIDING = (
    "data/archives",
    "data/datamodule",
    "data/datasets",
    "data/downloads",
    "data/image_files",
    "data/known_data",
    "fast_cpu/blocks",
    "fast_cpu/gradients",
    "fast_cpu/process",
    "networks/dropout",
    "networks/mlp",
    "optim/optimizers",
    "seeding",
    "training/building",
    "training/callbacks",
    "training/classifier",
    "training/fit",
    "training/history",
    "training/means",
    "training/trainer",
)


@functools.cache
def code_digest() -> str:
    """Twelve hex digits of the code that decides the numbers, words and layout left out, and of the torch version."""
    parts = [_without_words((PACKAGE / f"{name}.py").read_text()) for name in DECIDING]
    return hashlib.sha256("\0".join([metadata.version("torch"), *parts]).encode()).hexdigest()[:12]


def _without_words(source: str) -> str:
    """The code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
