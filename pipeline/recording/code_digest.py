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
    """Twelve hex digits of the code (comments and layout left out) and of the torch version that decide the numbers."""
    parts = [ast.unparse(ast.parse((PACKAGE / f"{name}.py").read_text())) for name in DECIDING]
    return hashlib.sha256("\0".join([metadata.version("torch"), *parts]).encode()).hexdigest()[:12]
