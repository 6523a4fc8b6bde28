"""The image files: found, checked, read, or downloaded. Knows NumPy; torchvision only to download."""

import gzip
import hashlib
import socket
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
TORCHVISION_CLASSES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
SIDE = 28
CLASSES = 10
DIGITS_TRAIN = 1437
MIRROR_TIMEOUT_S = 30


class DataError(ValueError):
    """Files that cannot be had or are not what they should be."""


@dataclass(frozen=True)
class Split:
    """Images (N, 28, 28) uint8 in 0..255 with their labels (N,) uint8 in 0..9."""

    images: Bytes
    labels: Bytes


@dataclass(frozen=True)
class ImageData:
    """A dataset of 28x28 images in ten classes, with where it came from."""

    name: str
    source: str
    train: Split
    test: Split

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 over all images and labels."""
        sha = hashlib.sha256()
        for part in (self.train, self.test):
            sha.update(np.ascontiguousarray(part.images).data)
            sha.update(np.ascontiguousarray(part.labels).data)
        return sha.hexdigest()[:16]


def load(dataset: str, data_dir: str | Path) -> ImageData:
    """Read the dataset from the folder, downloading into it what is missing.

    Args:
        dataset: mnist, fashion_mnist, kmnist or digits.
        data_dir: the folder with the four IDX files (gzipped or not), torchvision's `MNIST/raw`, or `mnist.npz`.

    Raises:
        DataError: naming the file, what was found and what was expected; or, when files are missing and no mirror
            answers, the mirrors and the ways out.
    """
    if dataset == "digits":
        return _load_digits()
    folder = Path(data_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise DataError(
            f"data_dir {folder} is a file; expected the folder that holds {FILES[0]}.gz and its three companions"
        )
    paths = _find(dataset, folder)
    if None in paths and dataset == "mnist" and (folder / "mnist.npz").is_file():
        return _load_npz(folder / "mnist.npz")
    if None in paths:
        _download(dataset, folder, [name for name, path in zip(FILES, paths, strict=True) if path is None])
        paths = _find(dataset, folder)
    found = [path for path in paths if path is not None]
    train, test = _read_split(*found[:2]), _read_split(*found[2:])
    return ImageData(dataset, str(found[0].parent.resolve()), train, test)


def _find(dataset: str, folder: Path) -> list[Path | None]:
    raw = folder / TORCHVISION_CLASSES[dataset] / "raw"
    places = [place / (name + suffix) for name in FILES for place in (folder, raw) for suffix in (".gz", "")]
    return [
        next((path for path in places if path.name.removesuffix(".gz") == name and path.is_file()), None)
        for name in FILES
    ]


def _read_split(images_path: Path, labels_path: Path) -> Split:
    images, labels = _read_idx(images_path, dimensions=3), _read_idx(labels_path, dimensions=1)
    return _checked(Split(images, labels), str(images_path), str(labels_path))


def _checked(split: Split, images_name: str, labels_name: str) -> Split:
    """The split itself, if its shapes and values are those of 28x28 images in ten classes."""
    images, labels = split.images, split.labels
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE) or not len(images):
        raise DataError(
            f"{images_name}: found images of shape {images.shape}, expected (N, {SIDE}, {SIDE}) with N above 0"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{labels_name}: found {len(labels):,} labels, expected {len(images):,}, one per image in {images_name}"
        )
    if labels.max() >= CLASSES:
        raise DataError(f"{labels_name}: found label {labels.max()}, expected 0..{CLASSES - 1}")
    return split


def _read_idx(path: Path, dimensions: int) -> Bytes:
    """Read an IDX file of unsigned bytes (format: two zeros, 0x08, number of dimensions, big-endian sizes, data)."""
    try:
        stored = path.read_bytes()
        content = bytearray(gzip.decompress(stored) if path.suffix == ".gz" else stored)  # torch takes it as it lies
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: found a truncated or corrupted file ({error}), expected a whole gzip file; fetch it again"
        ) from None
    header = 4 + 4 * dimensions
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic or len(content) < header:
        found = f"0x{content[:4].hex()}" if len(content) >= header else f"{len(content)} bytes"
        raise DataError(f"{path}: found {found} at the start, expected the IDX header 0x{magic.hex()}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    found_bytes, expected_bytes = len(content) - header, int(np.prod(shape, dtype=np.int64))
    if found_bytes != expected_bytes:
        raise DataError(
            f"{path}: found {found_bytes:,} data bytes, expected {expected_bytes:,} for shape {shape}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _load_npz(path: Path) -> ImageData:
    """Read Keras' `mnist.npz`."""
    expected = ("x_train", "y_train", "x_test", "y_test")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name in expected}
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: found a damaged file ({error}), expected a NumPy archive; fetch it again") from None
    if missing := [name for name in expected if name not in arrays]:
        raise DataError(f"{path}: found no {', '.join(missing)}; expected {', '.join(expected)}")
    splits = []
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        for name, array in ((f"x_{part}", images), (f"y_{part}", labels)):
            if array.dtype.kind not in "ui" or (array.size and (array.min() < 0 or array.max() > 255)):
                raise DataError(f"{path}[{name}]: found {array.dtype} values, expected whole numbers in 0..255")
        split = Split(images.astype(np.uint8), labels.astype(np.uint8))
        splits.append(_checked(split, f"{path}[x_{part}]", f"{path}[y_{part}]"))
    return ImageData("mnist", str(path.resolve()), *splits)


def _load_digits() -> ImageData:
    """The 1,797 real 8x8 digits inside scikit-learn, at 28x28 and 0..255; the first 1,437 train, the last 360 test."""
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    small = (bunch.images * (255 / 16)).round().astype(np.uint8)
    resized = [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for image in small]
    images, labels = np.stack(resized), bunch.target.astype(np.uint8)
    train, test = slice(None, DIGITS_TRAIN), slice(DIGITS_TRAIN, None)
    return ImageData(
        "digits",
        "sklearn.datasets.load_digits",
        Split(images[train], labels[train]),
        Split(images[test], labels[test]),
    )


def _download(dataset: str, folder: Path, missing: list[str]) -> None:
    """Fetch the missing files with torchvision, check them, and move each into place whole."""
    from torchvision import datasets

    known: Any = getattr(datasets, TORCHVISION_CLASSES[dataset])
    raw = folder / TORCHVISION_CLASSES[dataset] / "raw"
    try:
        raw.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"data_dir {folder} cannot be written ({error}); give another with --data_dir or MNIST_DIR"
        ) from None
    with tempfile.TemporaryDirectory(prefix=".download-", dir=raw) as partial:
        for name, md5 in known.resources:
            if name.removesuffix(".gz") in missing:
                _fetch(dataset, folder, known.mirrors, name, md5, Path(partial))
                (Path(partial) / name).replace(raw / name)


def _fetch(dataset: str, folder: Path, mirrors: list[str], name: str, md5: str, partial: Path) -> None:
    from torchvision.datasets.utils import download_url

    reasons = []
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(MIRROR_TIMEOUT_S)
    try:
        for mirror in mirrors:
            try:
                download_url(mirror + name, partial, name, md5)
                return
            except (
                OSError,
                RuntimeError,
            ) as error:  # URLError is an OSError; a wrong checksum a RuntimeError
                reasons.append(f"  {mirror}: {error}")
    finally:
        socket.setdefaulttimeout(patience)
    raise DataError(
        f"{name} is not in {folder} and no mirror gave it:\n"
        + "\n".join(reasons)
        + f"\nBring the four files ({', '.join(f'{each}.gz' for each in FILES)}; or Keras' mnist.npz for mnist) "
        f"to {folder}, or point --data_dir or MNIST_DIR at the folder that holds them."
        f"\nOr try without a network: --dataset digits"
    )
