"""A folder of images with one sub-folder a class, as torchvision's ImageFolder takes it."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.config.signatures import SplitSeed, TestShare
from pipeline.data.dataset import DataError, Dataset
from pipeline.data.decoding import Decoded, decode
from pipeline.data.pixel_cache import cached
from pipeline.data.splitting import held_out
from pipeline.launchers import tell
from pipeline.values import counted, some

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
TRAIN, TESTS = "train", ("test", "val", "valid", "validation")  # a test folder comes before one to validate with
HIDDEN = (".", "__MACOSX")  # how names begin
EXPECTED = "expected a folder with one sub-folder a class, CLASS/*.jpg, or with two of that kind, train and test"
MANY = 2_000  # images take long enough to say so
NAMED = 3
DIM = 16  # what the brightest level of 12 bits becomes, 4095, read as one of 16
UNSEEN, OTHER, LOOP = "hidden", "of no image format", "linking back to a folder above"

Files = dict[str, list[str]]  # class -> its image files, by their names below data_dir


def folder(
    data_dir: Path,
    image_size: Annotated[
        int, Field(ge=0, le=8192, description="side to which images are resized; 0: as they are")
    ] = 0,
    test_share: TestShare = 0.2,
    split_seed: SplitSeed = 0,
) -> Dataset:
    """Read the images: in colour unless all are grey, transparent parts white, turned as their cameras say.

    Classes are the sub-folders' names, sorted; their images are those at any depth. `train` and `test` (or `val`,
    `valid`, `validation`, where there is no `test`) are taken as such; else a share of each class is held out.

    Raises:
        DataError: saying what was found and what is expected.
    """
    left_out: Counter[str] = Counter()
    parts = _parts(data_dir, left_out)
    files = {part: _files(data_dir, path, left_out) for part, path in parts.items()}
    classes = _class_names(data_dir, parts, files)
    owners = {name: (part, each) for part in files for each, names in files[part].items() for name in names}
    names = sorted(owners)
    numbers = {each: number for number, each in enumerate(classes)}
    labels = np.array([numbers[owners[name][1]] for name in names])
    tests = (
        np.array([owners[name][0] == "test" for name in names])
        if "test" in parts
        else held_out(labels, test_share, split_seed)
    )
    decoded = cached(data_dir, names, image_size, lambda: _decode(data_dir, names, image_size))
    _tell(data_dir, left_out, decoded)
    labels, tests = labels[decoded.kept], tests[decoded.kept]
    if tests.all() or not tests.any():
        raise DataError(f"{data_dir}: found no image to {'train' if tests.all() else 'test'} with that can be read")
    train, test = ((decoded.pixels[rows], labels[rows]) for rows in (~tests, tests))
    data = Dataset(train, test, classes)
    if (brightest := decoded.pixels.max()) <= DIM:
        tell(f"{data_dir}: the brightest of all pixels is {brightest} of 255: were they 12 bits in files of 16?")
    return data


def _parts(data_dir: Path, left_out: Counter[str]) -> dict[str, Path]:
    """The folders to train and to test with, or the one that holds both."""
    if not data_dir.is_dir():
        found = "a file; unpack or convert it" if data_dir.exists() else "no such folder"
        raise DataError(f"data_dir {data_dir}: found {found}, {EXPECTED}")
    there = {path.name.lower(): path for path in reversed(_folders(data_dir))}
    if TRAIN in there:
        test = next((name for name in TESTS if name in there), "")
        if test:
            for name in sorted(there.keys() - {TRAIN, test}):
                left_out[f"folder {there[name].name}"] += 1
            return {"train": there[TRAIN], "test": there[test]}
        if len(there) == 1:
            return {"train": there[TRAIN]}
    return {"train": data_dir}


def _class_names(data_dir: Path, parts: dict[str, Path], files: dict[str, Files]) -> list[str]:
    """The classes, sorted, all with images."""
    for part, path in parts.items():
        if not files[part]:
            raise DataError(f"data_dir {path}: found {_content(path)}, {EXPECTED}")
        if empty := [name for name, names in files[part].items() if not names]:
            raise DataError(
                f"{path}: found no image in the class folders {some(empty, NAMED)}; expected some in each "
                f"({SUFFIXES[0]}, {SUFFIXES[1]}, ...): fill or remove them"
            )
    classes = sorted(files["train"])
    if len(classes) == 1:
        only = parts["train"] / classes[0]
        inner = len(_folders(only))
        hint = f"; if the {inner} folders in it are the classes, give --data_dir {only}" if inner > 1 else ""
        raise DataError(f"{parts['train']}: found one class folder, {classes[0]}, expected two at least{hint}")
    if unknown := sorted(files.get("test", {}).keys() - set(classes)):
        raise DataError(
            f"{parts['test']}: found class folders {some(unknown, NAMED)}, which {parts['train']} does not have"
        )
    return classes


def _files(data_dir: Path, path: Path, left_out: Counter[str]) -> Files:
    """The image files of each class folder in the path."""
    files: Files = {}
    for entry in _entries(path):
        if entry.name.startswith(HIDDEN):
            left_out[UNSEEN] += 1
        elif _is(entry.is_dir):
            below = _images_below(Path(entry.path), (_identity(path),), left_out)
            files[entry.name] = sorted(each.removeprefix(os.path.join(data_dir, "")) for each in below)  # noqa: PTH118
        else:
            left_out[OTHER] += 1
    return files


def _images_below(path: Path, above: tuple[tuple[int, int], ...], left_out: Counter[str]) -> Iterator[str]:
    """The image files in a folder, at any depth; links are followed but for those that lead back."""
    here = _identity(path)
    if here in above:
        left_out[LOOP] += 1
        return
    for entry in _entries(path):
        if entry.name.startswith(HIDDEN):
            left_out[UNSEEN] += 1
        elif _is(entry.is_dir):
            yield from _images_below(Path(entry.path), (*above, here), left_out)
        elif _is(entry.is_file) and entry.name.lower().endswith(SUFFIXES):
            yield entry.path  # a Path costs as much as all else
        else:
            left_out[OTHER] += 1


def _folders(path: Path) -> list[Path]:
    """The folders in a folder that are not hidden, by name."""
    return [Path(entry.path) for entry in _entries(path) if _is(entry.is_dir) and not entry.name.startswith(HIDDEN)]


def _is(asked: Callable[[], bool]) -> bool:
    """What an entry answers; a link that leads to itself is neither folder nor file."""
    with contextlib.suppress(OSError):
        return asked()
    return False


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{path}: found a folder that cannot be read ({error.strerror}), expected images") from None


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _content(path: Path) -> str:
    """What is in a folder without sub-folders."""
    names = [entry.name for entry in _entries(path) if not entry.name.startswith(HIDDEN)]
    images = sum(name.lower().endswith(SUFFIXES) for name in names)
    found = counted(images, "image") if images else counted(len(names), "file")
    return f"{found} and no sub-folders" if names else "nothing in it"


def _decode(data_dir: Path, names: list[str], image_size: int) -> Decoded:
    if len(names) >= MANY:
        tell(f"{data_dir}: decoding {len(names):,} images; the next start finds them decoded")
    return decode(data_dir, names, image_size)


def _tell(data_dir: Path, left_out: Counter[str], decoded: Decoded) -> None:
    """Say in one line what was left out, if anything was."""
    words = [f"{count:,} {what}" for what, count in left_out.items()]
    if decoded.unreadable:
        words.insert(0, f"{len(decoded.unreadable):,} unreadable ({some(decoded.unreadable, NAMED)})")
    if words:
        tell(f"{data_dir}: left out {', '.join(words)}")
