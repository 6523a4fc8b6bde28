"""A dataset as code hands it over: arrays of examples with labels, checked once; all else follows from them."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.data_spec import MNIST, DataSpec
from pipeline.values import is_unicode, some

Array = NDArray[Any]
FEWEST, MOST = 2, 2**16  # classes; a network gives a logit for each


class DataError(ValueError):
    """Data that cannot be had or are not what they should be."""


@dataclass(frozen=True)
class Split:
    """Examples (N, ...) with their labels (N,), the numbers of their classes.

    Images are uint8 in 0..255, (N, height, width) grey or (N, height, width, 3); a table's rows float32 (N, features).
    """

    inputs: Array
    labels: Array


class Dataset:
    """Examples to train and to test with, and what they are.

    Attributes:
        train, test: the two parts.
        spec: what one example is, and the classes.
        name, source: what the data are called and where they come from, given by whoever loads them.
    """

    name, source = "", ""

    def __init__(
        self,
        train: tuple[ArrayLike, ArrayLike],
        test: tuple[ArrayLike, ArrayLike],
        classes: Sequence[str] | None = None,
        *,
        table: bool = False,
        features: Sequence[str] | None = None,
        drawing: str = "",
    ) -> None:
        """Check the arrays and find out what they are.

        Args:
            train: examples and labels. Images (N, height, width), (N, height, width, 1) or (N, height, width, 3), uint8
                in 0..255; with `table` rows (N, features) of numbers. Labels (N,): 0, 1, ..., or names of classes.
            test: the same of other examples.
            classes: their names, in the order of their numbers; without: the labels themselves.
            table: whether the examples are rows of numbers.
            features: the names of a table's columns; without: `x0`, `x1`, ...
            drawing: see `DataSpec`.

        Raises:
            DataError: saying of which part, what was found and what was expected.
        """
        read = _rows if table else _images
        pairs = {part: _pair(given, part) for part, given in (("train", train), ("test", test))}
        inputs = {part: read(values, part) for part, (values, _) in pairs.items()}
        given = {part: _labels(labels, part) for part, (_, labels) in pairs.items()}
        for part, labels in given.items():
            _check_count(labels, inputs[part], part)
        if inputs["train"].shape[1:] != inputs["test"].shape[1:]:
            both = " and ".join(str(values.shape[1:]) for values in inputs.values())
            raise DataError(f"train and test have examples of shapes {both}, expected one shape")
        names = _names(classes, given)
        self.train, self.test = (Split(inputs[part], _numbers(given[part], names, part)) for part in given)
        shape = inputs["train"].shape[1:]
        if table:
            self.spec = DataSpec("table", shape, names, _columns(features, shape[0]), *_scale(self.train.inputs))
        else:
            self.spec = DataSpec("image", (1, *shape) if len(shape) == 2 else (shape[2], *shape[:2]), names)
        self.spec = replace(self.spec, drawing=_drawing(drawing, self.spec))
        if features is not None and not table:
            raise DataError("features name the columns of a table, these are images; a table is given with table=True")

    def named(self, name: str, source: str) -> Self:
        """The same data with a name, and where they come from."""
        self.name, self.source = name, source
        return self

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 over all examples and labels, and over a spec other than MNIST's."""
        sha = hashlib.sha256(b"" if self.spec == MNIST else self.spec.as_json().encode())
        for values in (self.train.inputs, self.train.labels, self.test.inputs, self.test.labels):
            sha.update(np.ascontiguousarray(values).data)
        return sha.hexdigest()[:16]

    def check_classes(self) -> None:
        """Make sure that every class has an example to learn from.

        Raises:
            DataError: naming those that have none.
        """
        counts = np.bincount(self.train.labels, minlength=len(self.spec.classes))
        if empty := [name for name, count in zip(self.spec.classes, counts, strict=True) if not count]:
            raise DataError(
                f"train has no example of class {some(empty)}, expected some of each of the "
                f"{len(self.spec.classes)} classes"
            )


def _pair(given: Any, part: str) -> tuple[Any, Any]:
    """Examples and labels."""
    if isinstance(given, tuple | list) and len(given) == 2:
        return given[0], given[1]
    found = f"{len(given)} things" if isinstance(given, tuple | list) else type(given).__name__
    raise DataError(f"{part} is {found}, expected a pair: examples and their labels")


def _images(values: ArrayLike, part: str) -> Array:
    """(N, height, width) or (N, height, width, 3) uint8."""
    expected = "expected (N, height, width), (N, height, width, 1) or (N, height, width, 3) with N above 0"
    array = _array(values, part, expected)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3) or not array.size:
        hint = "; a table of numbers is given with table=True" if array.ndim == 2 else ""
        hint = "; colours come last" if array.ndim == 4 and array.shape[1] in (1, 3) else hint
        raise DataError(f"{part} has images of shape {array.shape}, {expected}{hint}")
    is_bytes = array.dtype == np.uint8
    if not is_bytes or (part == "train" and array.max() <= 1):  # fractions, cut off as they became bytes
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 255 and high > 1 and (array == np.floor(array)).all()):
            hint = "; multiply them by 255 and round" if low >= 0 and high <= 1 else ""
            raise DataError(
                f"{part} has {array.dtype} pixels from {low:g} to {high:g}, expected whole numbers in 0..255 (uint8)"
                f"{hint}"
            )
        array = array.astype(np.uint8)
    return np.ascontiguousarray(array)


def _rows(values: ArrayLike, part: str) -> Array:
    """(N, features) float32."""
    expected = "expected rows of numbers, (N, features) with N above 0"
    array = _array(values, part, expected)
    if array.ndim != 2 or not array.size:
        raise DataError(f"{part} has examples of shape {array.shape}, {expected}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is told
        array = np.ascontiguousarray(array, np.float32)
    if not (finite := np.isfinite(array)).all():
        row, column = np.argwhere(~finite)[0]
        raise DataError(f"{part} has {array[row, column]} in row {row}, column {column}, expected finite numbers")
    return array


def _array(values: ArrayLike, part: str, expected: str) -> Array:
    if np.ma.is_masked(values):  # NumPy would hand out what lies below the mask
        raise DataError(f"{part} has masked values, expected none: fill them, or drop these examples")
    try:
        array = np.asarray(values)
        if array.dtype == object and array.ndim > 1:  # as pandas gives columns of numbers and truths together
            array = array.astype(np.float64)
    except (ValueError, TypeError):
        raise DataError(f"{part} has examples of differing shapes or kinds, {expected}") from None
    if array.dtype.kind not in "uifb":
        found = array.dtype if array.ndim else type(values).__name__  # a sparse matrix, a generator
        raise DataError(f"{part} has examples of {found}, {expected}")
    return array


def _labels(values: ArrayLike, part: str) -> Array:
    """Labels as whole numbers or as text, whatever lists and columns they came in."""
    expected = "expected whole numbers or names of classes"
    try:
        labels = np.asarray(values)
    except ValueError:
        raise DataError(f"{part} has labels of differing shapes, expected one label each") from None
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind in "OT":
        kinds = {type(label).__name__ for label in labels.flat}
        if kinds <= {"str", "str_"}:
            labels = np.array(labels.tolist(), np.str_)
        elif all(isinstance(label, int | np.integer | np.bool_) for label in labels.flat):
            labels = labels.astype(np.int64)
        else:
            raise DataError(f"{part} has labels of {' and '.join(sorted(kinds))}, {expected}")
    if labels.dtype.kind == "f":
        odd = ~(np.isfinite(labels) & (labels == np.floor(labels)))
        if odd.any():
            raise DataError(f"{part} has labels of {labels.dtype} such as {labels[odd][0]:g}, {expected}")
    elif labels.dtype.kind not in "Uuib":
        raise DataError(f"{part} has labels of {labels.dtype}, {expected}")
    return labels


def _check_count(labels: Array, inputs: Array, part: str) -> None:
    if labels.shape != (len(inputs),):
        found = f"{len(labels):,} labels" if labels.ndim == 1 else f"labels of shape {labels.shape}"
        raise DataError(f"{part} has {found} for {len(inputs):,} examples, expected one label each")


def _names(classes: Sequence[str] | None, given: dict[str, Array]) -> tuple[str, ...]:
    """The names of the classes, as given or as the labels have them."""
    if classes is None:
        if len({labels.dtype.kind == "U" for labels in given.values()}) > 1:
            kinds = " and ".join("text" if labels.dtype.kind == "U" else "numbers" for labels in given.values())
            raise DataError(f"train and test have labels of {kinds}, expected the same kind in both")
        names = _names_in(np.concatenate(list(given.values())))
    else:
        names = _listed("classes", classes)
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(f"classes {', '.join(repeated[:5])} stand more than once")
    _check_text("class", names)
    if len(names) < FEWEST:
        found = f"1 class, {names[0]}" if names else "no class"
        raise DataError(f"found {found}; expected at least {FEWEST}")
    return tuple(names)


def _names_in(labels: Array) -> list[str]:
    """Those of the labels themselves: sorted, or all numbers from 0 to the largest."""
    if labels.dtype.kind == "U":
        return sorted(map(str, np.unique(labels)))
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= MOST:
        raise DataError(
            f"found labels from {low} to {high}, expected the numbers of classes, 0, 1, ..., below {MOST:,}"
        )
    return [str(number) for number in range(high + 1)]


def _numbers(labels: Array, names: tuple[str, ...], part: str) -> Array:
    """The labels as numbers of classes, of the smallest type that holds them."""
    kind = np.min_scalar_type(len(names) - 1)
    if labels.dtype.kind == "U":
        places = {name: number for number, name in enumerate(names)}
        found, of = np.unique(labels, return_inverse=True)
        if unknown := [str(name) for name in found if str(name) not in places]:
            raise DataError(f"{part} has labels {some(unknown)} that are none of the {len(names)} classes")
        return np.array([places[str(name)] for name in found], kind)[of]
    if labels.min() < 0 or labels.max() >= len(names):
        raise DataError(
            f"{part} has labels from {int(labels.min())} to {int(labels.max())}, expected 0..{len(names) - 1}: there "
            f"are names of {len(names)} classes"
        )
    return labels.astype(kind)


def _drawing(drawing: str, spec: DataSpec) -> str:
    if drawing not in ("", MNIST.drawing) or (drawing and spec.shape != MNIST.shape):
        raise DataError(
            f"drawing {drawing!r} with {spec.in_words()}: expected {MNIST.drawing!r} with 28x28 grey images, or nothing"
        )
    return drawing


def _columns(features: Sequence[str] | None, count: int) -> tuple[str, ...]:
    names = [f"x{number}" for number in range(count)] if features is None else _listed("features", features)
    if len(names) != count or len(set(names)) < count:
        raise DataError(f"found {len(set(names))} different names of features for {count} columns, expected one each")
    _check_text("feature", names)
    return tuple(names)


def _listed(what: str, names: Sequence[str]) -> list[str]:
    """Names in an order that is theirs: a set has another in each process, a dict's need not be that of its numbers."""
    if isinstance(names, str):
        raise DataError(f"{what} is the text {names!r}, expected a list of names")
    if isinstance(names, set | frozenset | Mapping):
        raise DataError(f"{what} is a {type(names).__name__}, expected a list of names in their order")
    return [str(name) for name in names]


def _check_text(what: str, names: list[str]) -> None:
    """Names reach clients as JSON: bytes that are no UTF-8 come from file systems as lone surrogates."""
    if "" in names:
        raise DataError(f"a {what} has the empty text for its name, expected a name")
    for name in names:
        if "\0" in name or not is_unicode(name):
            raise DataError(f"the name of {what} {name!a} is no text that JSON can hold; rename it")


def _scale(rows: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each column; a column that is constant keeps its size."""
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    deviation = rows.std(axis=0, dtype=np.float64).astype(np.float32)  # 0 as well where it is too small for a float32
    return tuple(map(float, mean)), tuple(map(float, np.where(deviation > 0, deviation, 1)))
