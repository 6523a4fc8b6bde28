"""Images and labels in NumPy archives: Keras' `mnist.npz` and its many relatives, whatever keys, shapes and types."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.dataset import DataError
from pipeline.data.image_files import Bytes, Part, content_of
from pipeline.data_spec import MNIST

KEYS = ("x_train", "y_train", "x_test", "y_test")
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test", "t10k": "test"}
KINDS = {
    **dict.fromkeys(("x", "image", "images", "img", "imgs", "data", "features", "pixels"), "x"),
    **dict.fromkeys(("y", "label", "labels", "target", "targets"), "y"),
}
SIDE = MNIST.shape[1]
NEAR = 0.1  # a pixel divided by 255 and stored as a 16-bit float comes back as near as that


def read_npz(path: Path) -> list[Part]:
    """The four parts of a dataset: images and labels to train and to test with.

    Images of MNIST's size, flat or with their channel first, last or not at all, may be whole numbers in 0..255, or
    those divided by 255; labels (N,), (N, 1) or one-hot (N, classes).

    Raises:
        DataError: naming file and key, what was found and what was expected.
    """
    content = io.BytesIO(content_of(path))
    try:
        with np.load(content, allow_pickle=False) as archive:
            keys = _keys(path, archive.files)
            arrays = {role: archive[key] for role, key in keys.items()}
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{path}: found arrays that do not fit into memory, expected a data set that does") from None
    except Exception as error:  # NumPy, zipfile, zlib and the parser of an array's header each raise their own
        reason = " ".join(str(error).split())
        found = f"found a damaged file ({reason}), expected a NumPy archive; fetch it again"
        if "pickle" in reason.lower():
            found = (
                "found pickled objects, which are not read because reading them runs code; expected arrays of numbers"
            )
        raise DataError(f"{path}: {found}") from None
    read = {"x": _images, "y": _labels}
    places = {role: f"{path}[{keys[role]}]" for role in KEYS}
    return [Part(where, read[role[0]](arrays[role], where)) for role, where in places.items()]


def _keys(path: Path, names: list[str]) -> dict[str, str]:
    """Role (`x_train`, ...) -> the key that plays it."""
    found: dict[str, list[str]] = {}
    for name in names:
        words = re.split(r"[-_. /]+", name.lower())
        part = {PARTS[word] for word in words if word in PARTS}
        kind = {KINDS[word] for word in words if word in KINDS}
        if len(part) == len(kind) == 1:
            found.setdefault(f"{kind.pop()}_{part.pop()}", []).append(name)
    for role in KEYS:
        if role in names:
            found[role] = [role]
    if missing := [role for role in KEYS if role not in found]:
        there = f" (keys there: {', '.join(names[:8])})" if set(names) - set(KEYS) else ""
        raise DataError(f"{path}: found no {', '.join(missing)}{there}; expected {', '.join(KEYS)}")
    for role in KEYS:
        if len(found[role]) > 1:
            raise DataError(f"{path}: found {' and '.join(found[role])}, expected one key for {role}")
    return {role: found[role][0] for role in KEYS}


def _images(array: np.ndarray[Any, Any], where: str) -> Bytes:
    """(N, SIDE, SIDE) uint8 of any of the shapes and types that images come in."""
    shape = array.shape
    if shape[1:] in ((SIDE * SIDE,), (SIDE, SIDE, 1), (1, SIDE, SIDE)):
        array = array.reshape(len(array), SIDE, SIDE)
    if array.ndim != 3 or array.shape[1:] != (SIDE, SIDE) or not len(array):
        raise DataError(f"{where}: found images of shape {shape}, expected (N, {SIDE}, {SIDE}) with N above 0")
    expected = "expected whole numbers in 0..255, or those divided by 255"
    if array.dtype.kind not in "uifb":
        raise DataError(f"{where}: found {array.dtype} values, {expected}")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # NaN is neither
        raise DataError(f"{where}: found values from {low:g} to {high:g}, {expected}")
    if high <= 1:
        if array.dtype.kind in "ui":
            raise DataError(f"{where}: found {array.dtype} values that are all 0 or 1, {expected}")
        array = array.astype(np.float64) * 255
    whole = np.rint(array) if array.dtype.kind == "f" else array
    if whole is not array and np.abs(whole - array).max() > NEAR:
        raise DataError(f"{where}: found {array.dtype} values between the whole numbers, {expected}")
    return np.ascontiguousarray(whole.astype(np.uint8))


def _labels(array: np.ndarray[Any, Any], where: str) -> Bytes:
    """(N,) uint8 of labels as numbers or one-hot rows."""
    shape, expected = array.shape, "expected whole numbers in 0..255, one a label"
    if array.ndim == 2 and shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "uifb":
        raise DataError(f"{where}: found {array.dtype} values, {expected}")
    if array.ndim == 2:
        if not (np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()):
            raise DataError(f"{where}: found labels of shape {shape}, expected (N,), or one-hot rows of one 1 each")
        array = array.argmax(axis=1)
    if array.ndim != 1:
        raise DataError(f"{where}: found labels of shape {shape}, expected (N,)")
    if array.size and not (array.min() >= 0 and array.max() <= 255 and (array == np.floor(array)).all()):
        raise DataError(f"{where}: found values from {array.min():g} to {array.max():g}, {expected}")
    return array.astype(np.uint8)
