"""A dataset as code hands it over: arrays of examples with labels, checked once; all else follows from them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.data_spec import MNIST, DataSpec

Array = NDArray[Any]
FEWEST = 2  # classes


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
        inputs = {part: read(values, part) for part, (values, _) in (("train", train), ("test", test))}
        given = {part: np.asarray(labels) for part, (_, labels) in (("train", train), ("test", test))}
        for part, labels in given.items():
            _check_count(labels, inputs[part], part)
        if inputs["train"].shape[1:] != inputs["test"].shape[1:]:
            both = " and ".join(str(values.shape[1:]) for values in inputs.values())
            raise DataError(f"train and test have examples of shapes {both}, expected one shape")
        names = _names(classes, given)
        self.train, self.test = (Split(inputs[part], _numbers(given[part], names, part)) for part in given)
        shape = inputs["train"].shape[1:]
        self.spec = DataSpec("image", (1, *shape) if len(shape) == 2 else (shape[2], *shape[:2]), names)
        if table:
            scale = _scale(self.train.inputs)
            self.spec = DataSpec("table", shape, names, _columns(features, shape[0]), *scale)
        self.spec = replace(self.spec, drawing=drawing)

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
            more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
            raise DataError(
                f"train has no example of class {', '.join(empty[:5])}{more}, expected some of each of the "
                f"{len(self.spec.classes)} classes"
            )


def _images(values: ArrayLike, part: str) -> Array:
    """(N, height, width) or (N, height, width, 3) uint8."""
    expected = "expected (N, height, width), (N, height, width, 1) or (N, height, width, 3) with N above 0"
    array = _array(values, part, expected)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3) or not array.size:
        hint = "; a table of numbers is given with table=True" if array.ndim == 2 else ""
        raise DataError(f"{part} has images of shape {array.shape}, {expected}{hint}")
    if array.dtype != np.uint8:
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 255 and high > 1 and (array == np.floor(array)).all()):
            raise DataError(
                f"{part} has {array.dtype} pixels from {low:g} to {high:g}, expected whole numbers in 0..255 (uint8)"
            )
        array = array.astype(np.uint8)
    return np.ascontiguousarray(array)


def _rows(values: ArrayLike, part: str) -> Array:
    """(N, features) float32."""
    array = _array(values, part, expected := "expected rows of numbers, (N, features) with N above 0")
    if array.ndim != 2 or not array.size:
        raise DataError(f"{part} has examples of shape {array.shape}, {expected}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is told
        array = np.ascontiguousarray(array, np.float32)
    if not (finite := np.isfinite(array)).all():
        row, column = np.argwhere(~finite)[0]
        raise DataError(f"{part} has {array[row, column]} in row {row}, column {column}, expected finite numbers")
    return array


def _array(values: ArrayLike, part: str, expected: str) -> Array:
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(f"{part} has examples of differing shapes, {expected}") from None
    if array.dtype.kind not in "uifb":
        raise DataError(f"{part} has examples of {array.dtype}, {expected}")
    return array


def _check_count(labels: Array, inputs: Array, part: str) -> None:
    if labels.shape != (len(inputs),):
        found = f"{len(labels):,} labels" if labels.ndim == 1 else f"labels of shape {labels.shape}"
        raise DataError(f"{part} has {found} for {len(inputs):,} examples, expected one label each")


def _names(classes: Sequence[str] | None, given: dict[str, Array]) -> tuple[str, ...]:
    """The names of the classes, as given or as the labels have them."""
    if classes is None:
        labels = np.concatenate(list(given.values()))
        named = labels.dtype.kind in "US"
        names = sorted({str(label) for label in labels}) if named else [str(n) for n in range(int(labels.max()) + 1)]
    else:
        names = [str(name) for name in classes]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise DataError(f"classes {', '.join(sorted(repeated))} stand more than once")
    if len(names) < FEWEST:
        raise DataError(f"found {len(names)} class, expected at least {FEWEST}")
    return tuple(names)


def _numbers(labels: Array, names: tuple[str, ...], part: str) -> Array:
    """The labels as numbers of classes, of the smallest type that holds them."""
    kind = np.min_scalar_type(len(names) - 1)
    if labels.dtype.kind in "US":
        places = {name: number for number, name in enumerate(names)}
        if unknown := sorted({str(label) for label in labels} - places.keys()):
            raise DataError(f"{part} has labels {', '.join(unknown[:5])} that are none of the {len(names)} classes")
        return np.array([places[str(label)] for label in labels], kind)
    if labels.dtype.kind not in "uifb" or not (labels == np.floor(labels)).all():
        raise DataError(f"{part} has labels of {labels.dtype}, expected whole numbers or names of classes")
    if labels.min() < 0 or labels.max() >= len(names):
        raise DataError(
            f"{part} has labels from {labels.min():g} to {labels.max():g}, expected 0..{len(names) - 1}: there are "
            f"names of {len(names)} classes"
        )
    return labels.astype(kind)


def _columns(features: Sequence[str] | None, count: int) -> tuple[str, ...]:
    names = [f"x{number}" for number in range(count)] if features is None else [str(name) for name in features]
    if len(names) != count or len(set(names)) < count:
        raise DataError(f"found {len(set(names))} different names of features for {count} columns, expected one each")
    return tuple(names)


def _scale(rows: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each column; a column that is constant keeps its size."""
    mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    exact = np.stack([mean, np.where(deviation > 0, deviation, 1.0)]).astype(np.float32)
    return tuple(map(float, exact[0])), tuple(map(float, exact[1]))
