"""The data sets by name: read from files that are known by their checksums, downloaded, or a user's own."""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import IN_MNISTS_FORMAT, default_data_dir, own_code, signatures
from pipeline.data.archives import read_npz
from pipeline.data.dataset import DataError, Dataset, Split
from pipeline.data.downloads import TORCHVISION_CLASSES, download, raw_folder
from pipeline.data.image_files import FILES, Part, find, listing, read_idx, stem_of
from pipeline.data.known_data import check_name
from pipeline.data_spec import MNIST

SIDE = MNIST.shape[1]
CLASSES = [str(digit) for digit in range(10)]
DIGITS_TRAIN = 1437
OTHER_FORMATS = r"(csv|zip|tar|tgz|gz|bz2|xz|zst|7z|rar|pkl|pickle|mat|parquet|arrow|npy|npz|h5|hdf5|arff|pt)"


def load(dataset: str, data_dir: str | Path, data_name: str = "", **knobs: Any) -> Dataset:
    """Read a dataset, shipped or a user's own.

    Args:
        dataset: a shipped one; an import path `module:function`; or the name of their own under which data in MNIST's
            format were recorded.
        data_dir: where the data lie; `auto`: where they do by default.
        data_name: a name of their own for data that have none.
        knobs: those of the dataset's own signature.

    Raises:
        DataError: saying what was found and what was expected.
        OwnCodeError: if the import path leads to no function that gives a `Dataset`.
    """
    if dataset == "digits":
        return _load_digits()
    folder = Path(default_data_dir(dataset) if data_dir == "auto" else data_dir).expanduser()
    if own_code.is_own(dataset):
        return _call_own(dataset, folder, knobs)
    if dataset in signatures.DATASETS:
        module, function = signatures.DATASETS[dataset]
        read = getattr(importlib.import_module(f"pipeline.{module.replace('/', '.')}"), function)
        found: Dataset = read(folder, **knobs)
        found.check_classes()
        return found.named(data_name or dataset, str(folder.resolve()))
    if dataset not in IN_MNISTS_FORMAT:
        dataset, data_name = "mnist", dataset
    return _load_in_mnists_format(dataset, folder, data_name)


def _call_own(name: str, folder: Path, knobs: Mapping[str, Any]) -> Dataset:
    """What the user's function gives for the folder, checked."""
    try:
        found = own_code.load(name)(folder, **knobs)
        if not isinstance(found, Dataset):
            raise DataError(f"it gave {type(found).__name__}, expected a pipeline.data.Dataset")
        found.check_classes()
    except DataError as error:
        raise DataError(f"{name} ({own_code.place_of(error, name)}): {error}") from None
    return found.named(name, str(folder.resolve()))


def _load_in_mnists_format(dataset: str, folder: Path, data_name: str) -> Dataset:
    """MNIST, one of its relatives, or data of their own name in its format; what is missing of known ones is fetched.

    The folder has the four IDX files (gzipped or not), torchvision's `MNIST/raw`, or `mnist.npz`, or is an archive.
    Data of their own name are never downloaded.

    Raises:
        DataError: naming the file, what was found and what was expected; whose data they are, if not those asked for;
            or, when files are missing and no mirror answers, the mirrors and the ways out.
    """
    if folder.suffix.lower() == ".npz" and folder.is_file():
        parts, source = read_npz(folder), folder
    elif folder.exists() and not folder.is_dir():
        raise DataError(
            f"data_dir {folder} is a file; expected the folder that holds {FILES[0]}.gz and its three companions"
        )
    else:
        parts, source = _read_folder(dataset, data_name, folder)
    train, test = _split(parts[:2]), _split(parts[2:])
    check_name(dataset, data_name, parts, str(source))
    return _digits(train, test).named(data_name or dataset, str(source.resolve()))


def _digits(train: Split, test: Split) -> Dataset:
    return Dataset((train.inputs, train.labels), (test.inputs, test.labels), CLASSES, drawing="mnist")


def _read_folder(dataset: str, data_name: str, folder: Path) -> tuple[list[Part], Path]:
    """The four parts and where they lie; what is missing of known data is downloaded."""
    places = _places(dataset, data_name, folder)
    paths = find(places)
    if None in paths:
        for archive in _archives(dataset, data_name, folder):
            return read_npz(archive), archive
        _refuse_other_formats(dataset, data_name, places)
        missing = [name for name, path in zip(FILES, paths, strict=True) if path is None]
        if data_name:
            raise DataError(
                f"data_name {data_name}: found no {', '.join(missing)} in {folder}, expected the four files of your "
                f"data ({', '.join(FILES)}; gzipped or not) or {data_name}.npz; give their folder with --data_dir"
            )
        download(dataset, folder, missing)
        paths = find(places)
    found = [path for path in paths if path is not None]
    return [read_idx(path, dimensions) for path, dimensions in zip(found, (3, 1, 3, 1), strict=True)], found[0].parent


def _places(dataset: str, data_name: str, folder: Path) -> list[Path]:
    """Where the four files may lie, the likeliest first."""
    if data_name:
        return [folder, folder / "raw", *(raw_folder(known, folder) for known in TORCHVISION_CLASSES)]
    own = raw_folder(dataset, folder)
    return [folder, own, folder / "raw"] if dataset == "mnist" else [own, folder, folder / "raw"]


def _archives(dataset: str, data_name: str, folder: Path) -> list[Path]:
    """The NumPy archives in the folder that bear the data's name."""
    wanted = [f"{name}.npz".replace("-", "_") for name in (data_name.lower(), dataset) if name]
    names = {name.lower().replace("-", "_"): name for name in listing(folder)}
    return [folder / names[name] for name in wanted if name in names]


def _refuse_other_formats(dataset: str, data_name: str, places: list[Path]) -> None:
    """Say what cannot be read, before the network is asked for what seems to be there."""
    word = re.escape(data_name or dataset).replace("_", "[-_ ]?")
    seems = rf"(?<![a-z]){word}\b.*|{word}[-_ .]?(train|test).*|(train|t10k|test)[-_.](images|labels)\b.*|archive"
    for place in places:
        for name in listing(place):
            other = re.fullmatch(rf"({seems})\.{OTHER_FORMATS}(\.gz)?", name, re.IGNORECASE)
            if other and stem_of(name) not in FILES:
                raise DataError(
                    f"{place / name}: found a format that is not read, expected {FILES[0]}, gzipped or not, and its "
                    f"three companions, or {data_name or dataset}.npz; unpack or convert it, or give another --data_dir"
                )


def _split(parts: list[Part]) -> Split:
    """The split of images and labels, if its shapes and values are those of 28x28 images in ten classes."""
    images, labels = (part.values for part in parts)
    images_name, labels_name = (part.where for part in parts)
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE) or not len(images):
        raise DataError(
            f"{images_name}: found images of shape {images.shape}, expected (N, {SIDE}, {SIDE}) with N above 0"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{labels_name}: found {len(labels):,} labels, expected {len(images):,}, one per image in {images_name}"
        )
    if labels.max() >= len(CLASSES):
        raise DataError(f"{labels_name}: found label {labels.max()}, expected 0..{len(CLASSES) - 1}")
    return Split(images, labels)


def _load_digits() -> Dataset:
    """The 1,797 real 8x8 digits inside scikit-learn, at 28x28 and 0..255; the first 1,437 train, the last 360 test."""
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    small = (bunch.images * (255 / 16)).round().astype(np.uint8)
    resized = [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for image in small]
    images, labels = np.stack(resized), bunch.target.astype(np.uint8)
    train, test = (Split(images[rows], labels[rows]) for rows in (slice(DIGITS_TRAIN), slice(DIGITS_TRAIN, None)))
    return _digits(train, test).named("digits", "sklearn.datasets.load_digits")
