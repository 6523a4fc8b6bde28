"""A dataset of the user's own, by import path: its function is called with the folder, and what it gives is checked."""

import sys

import numpy as np
import pytest

from pipeline.config.own_code import OwnCodeError
from pipeline.data import datasets
from pipeline.data.dataset import DataError
from tests.own_data import error_of

FLOWERS = """
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline.data import DataError, Dataset


def flowers(data_dir: Path, size: Annotated[int, Field(ge=1)] = 4, colours: bool = False, order: str = "up"):
    values = np.load(data_dir / "flowers.npy")[:, :size]
    if order == "down":
        values = values[:, ::-1]
    if colours:
        values = np.stack([values] * 3, axis=3)
    return Dataset((values, ["a", "b", "a"]), (values[:2], ["b", "a"]))


def nothing(data_dir):
    pass


def arrays(data_dir):
    return np.zeros(3)


def wrong_value(data_dir):
    return int("three")


def told(data_dir):
    raise DataError(f"{data_dir} has no flowers, expected some")


def inside(data_dir):
    return _made(np.full((2, 3, 3), 2, np.uint8))


def _made(images):
    pair = images, [0, 1]
    return Dataset(pair, (images, [0, 0.5]))


def empty_class(data_dir):
    images = np.full((2, 3, 3), 2, np.uint8)
    return Dataset((images, [0, 0]), (images, [0, 1]), ["rose", "tulip"])


class Garden:
    def __new__(cls, data_dir):
        return flowers(data_dir)


value = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with code of the user's own, the working directory, and the data beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "my_flowers.py").write_text(FLOWERS)
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "flowers.npy", np.arange(3 * 5 * 4, dtype=np.uint8).reshape(3, 5, 4))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def line_of(words):
    [line] = [number for number, text in enumerate(FLOWERS.splitlines(), 1) if words in text]
    return line


def told(name):
    return error_of(datasets.load, f"my_flowers:{name}", "data")


def test_the_function_s_data_come_with_its_own_name_and_folder(here):
    data = datasets.load("my_flowers:flowers", "data")
    assert (data.name, data.source) == ("my_flowers:flowers", str(here / "data"))
    assert (data.spec.shape, data.spec.classes) == ((1, 4, 4), ("a", "b"))
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 0], [1, 0])
    assert datasets.load("my_flowers:Garden", "data").digest == data.digest


def test_knobs_are_passed_on_by_name():
    values = np.arange(60, dtype=np.uint8).reshape(3, 5, 4)
    data = datasets.load("my_flowers:flowers", "data", size=5, colours=True, order="down")
    assert data.spec.shape == (3, 5, 4)
    assert np.array_equal(data.train.inputs[..., 1], values[:, ::-1])


def test_the_home_folder_is_put_in_and_a_path_in_a_module_in_a_folder_is_found(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    (here / "my_garden").mkdir()
    (here / "my_garden" / "flowers.py").write_text(FLOWERS)
    data = datasets.load("my_garden.flowers:flowers", "~/data")
    assert data.source == str(here / "data")


@pytest.mark.parametrize(("name", "found"), [("nothing", "NoneType"), ("arrays", "ndarray")])
def test_what_is_no_dataset_is_told_with_the_file(name, found):
    said = f"my_flowers:{name} (my_flowers.py): it gave {found}, expected a pipeline.data.Dataset"
    assert told(name) == said


def test_data_that_are_wrong_are_told_in_one_line_with_the_line_of_the_user_s_code():
    assert told("told") == (
        f"my_flowers:told (my_flowers.py:{line_of('raise DataError')}): data has no flowers, expected some"
    )
    assert told("inside") == (
        f"my_flowers:inside (my_flowers.py:{line_of('return Dataset(pair')}): test has labels of float64 such as 0.5, "
        "expected whole numbers or names of classes"
    )


def test_a_class_without_a_training_example_is_told():
    assert told("empty_class") == (
        "my_flowers:empty_class (my_flowers.py): train has no example of class tulip, expected some of each of the 2 "
        "classes"
    )


def test_the_user_s_own_errors_come_through_as_they_are_with_their_traceback(here):
    with pytest.raises(ValueError, match="invalid literal for int") as caught:
        datasets.load("my_flowers:wrong_value", "data")
    assert type(caught.value) is ValueError
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == (
        here / "my_flowers.py",
        line_of('int("three")'),
    )
    with pytest.raises(FileNotFoundError, match=r"flowers\.npy"):
        datasets.load("my_flowers:flowers", "elsewhere")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_flower:flowers", "no module my_flower in .* or installed; did you mean 'my_flowers'"),
        ("my_flowers:flower", "has no flower; did you mean 'flowers'"),
        ("my_flowers:value", "value in .*my_flowers.py is int, expected a function or a class"),
    ],
)
def test_a_module_or_function_that_is_not_there_is_told(name, words):
    with pytest.raises(OwnCodeError, match=words) as caught:
        datasets.load(name, "data")
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, DataError)


def test_data_that_have_changed_between_two_reads_have_another_digest(here):
    before = datasets.load("my_flowers:flowers", "data")
    assert datasets.load("my_flowers:flowers", "data").digest == before.digest
    changed = np.load(here / "data" / "flowers.npy")
    changed[2, 3, 3] ^= 1
    np.save(here / "data" / "flowers.npy", changed)
    assert datasets.load("my_flowers:flowers", "data").digest != before.digest
    assert datasets.load("my_flowers:flowers", "data", order="down").digest != before.digest
