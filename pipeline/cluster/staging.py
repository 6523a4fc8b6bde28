"""The code as it travels to a cluster: this package and the user's own modules, and nothing that lies beside them."""

import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.config import own_code
from pipeline.tracking.checkout import carry, checkout

PACKAGE = Path(__file__).parents[1]


def stage(folder: Path, own: Iterable[str], files: Mapping[str, Path] = {}) -> None:
    """Fill a folder, from which the same code runs: runs, data, environments and secrets stay where they are.

    Args:
        folder: an empty folder.
        own: the import paths of the user's own code.
        files: further files, by their names there.

    Raises:
        OwnCodeError: if there is no such code.
    """
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    carry(checkout(), folder)
    for path in own_code.files_of(own):
        if place := _place_of(path):
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            if (beside := path.parent / "__init__.py").exists():
                shutil.copy2(beside, target.parent / "__init__.py")
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder / name)


def _place_of(path: Path) -> Path | None:
    """Where a module is found below the folder that Python looks in; None for an installed one, which nodes have."""
    roots = [Path.cwd(), *(Path(entry or ".").resolve() for entry in sys.path)]
    if {"site-packages", "dist-packages"} & set(path.parts):
        return None
    found = [path.resolve().relative_to(root) for root in roots if path.resolve().is_relative_to(root)]
    return found[0] if found else Path(path.name)
