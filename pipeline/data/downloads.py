"""What is missing of a known data set, fetched with torchvision from its mirrors; checked, whole, or not at all."""

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.data.dataset import DataError
from pipeline.data.image_files import FILES
from pipeline.data.known_data import MD5

TORCHVISION_CLASSES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
MIRROR_TIMEOUT_S = 30


def raw_folder(dataset: str, folder: Path) -> Path:
    """Where torchvision keeps the files below the folder."""
    return folder / TORCHVISION_CLASSES[dataset] / "raw"


def download(dataset: str, folder: Path, missing: list[str]) -> None:
    """Fetch the missing files with torchvision, check them, and move each into place whole.

    Raises:
        DataError: if the folder cannot be written or no mirror gives a file; no empty folder is left behind.
    """
    from torchvision import datasets

    mirrors: list[str] = getattr(datasets, TORCHVISION_CLASSES[dataset]).mirrors
    raw = raw_folder(dataset, folder)
    with _scratch(folder, raw) as partial:
        for stem, md5 in zip(FILES, MD5[dataset], strict=True):
            if stem in missing:
                _fetch(mirrors, f"{stem}.gz", md5, folder, partial)
                (partial / f"{stem}.gz").replace(raw / f"{stem}.gz")


@contextlib.contextmanager
def _scratch(folder: Path, raw: Path) -> Iterator[Path]:
    """A folder in `raw` for what is not whole yet; folders that were made for it and stay empty are removed again."""
    new = [each for each in (raw, *raw.parents) if not each.exists()]
    try:
        try:
            raw.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(prefix=".download-", dir=raw)
        except OSError as error:
            advice = "give another with --data_dir or MNIST_DIR"
            raise DataError(f"data_dir {folder} cannot be written ({error}); {advice}") from None
        with scratch as partial:
            yield Path(partial)
    finally:
        for each in new:
            with contextlib.suppress(OSError):
                each.rmdir()


def _fetch(mirrors: list[str], name: str, md5: str, folder: Path, partial: Path) -> None:
    from torchvision.datasets.utils import download_url

    reasons = []
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(MIRROR_TIMEOUT_S)
    try:
        for mirror in mirrors:
            try:
                download_url(mirror + name, partial, name, md5)
                return
            except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong checksum a RuntimeError
                reasons.append(f"  {mirror}: {error}\n")
    finally:
        socket.setdefaulttimeout(patience)
    raise DataError(
        f"{name} is not in {folder} and no mirror gave it:\n{''.join(reasons)}"
        f"Bring the four files ({', '.join(f'{each}.gz' for each in FILES)}; or Keras' mnist.npz for mnist) "
        f"to {folder}, or point --data_dir or MNIST_DIR at the folder that holds them.\n"
        "Or try without a network: --dataset digits"
    )
