"""The code as it travels to a cluster: this package and the user's own modules, and nothing that lies beside them."""

import shutil
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
    travelling = [each for each in own_code.own_files(own) if not each.is_installed]  # what is, nodes have
    for name, path in {**{str(each.place): each.path for each in travelling}, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder / name)
