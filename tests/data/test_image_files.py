"""The four files are found under every name they go by, the likeliest first."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import image_files
from pipeline.data.image_files import find, listing, read_idx, stem_of
from tests.conftest import FILES, idx_bytes
from tests.own_data import error_of

IMAGES, LABELS = FILES[:2]


def put(folder, *names):
    """Empty files of these names, with the folders that they lie in."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_the_names_are_those_of_the_published_files_in_the_order_of_training_and_test():
    assert image_files.FILES == FILES


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("train-images-idx3-ubyte", IMAGES),
        ("train-images-idx3-ubyte.gz", IMAGES),
        ("TRAIN-IMAGES-IDX3-UBYTE.GZ", IMAGES),
        ("train-images.idx3-ubyte", IMAGES),
        ("train_images.idx3 ubyte.gz", IMAGES),
        ("test-images-idx3-ubyte", FILES[2]),
        ("Test_labels.idx1-ubyte.gz", FILES[3]),
        ("t10k-labels-idx1-ubyte", FILES[3]),
        ("my-test-images-idx3-ubyte", "my-test-images-idx3-ubyte"),
        ("train-images-idx3-ubyte.gz.gz", "train-images-idx3-ubyte-gz"),
        ("train-images-idx3-ubyte.zip", "train-images-idx3-ubyte-zip"),
        ("tester-images-idx3-ubyte", "tester-images-idx3-ubyte"),
    ],
)
def test_the_published_name_of_a_file(name, stem):
    assert stem_of(name) == stem


def test_each_of_the_four_is_found_in_its_own_place_and_those_that_are_missing_are_none(tmp_path):
    for missing in ((), FILES[:1], FILES[1:], FILES):
        folder = put(tmp_path / str(len(missing)), *(f"{name}.gz" for name in FILES if name not in missing), "notes")
        assert find([folder]) == [None if name in missing else folder / f"{name}.gz" for name in FILES]
    assert find([]) == [None] * 4
    assert find([tmp_path / "nowhere"]) == [None] * 4


RANKED = [  # the likeliest first
    f"{IMAGES}.gz",
    IMAGES,
    "Train-images-idx3-ubyte.gz",
    "train-images.idx3-ubyte.gz",
    "Train-images.idx3-ubyte",
    "train-images.idx3-ubyte",
]


@pytest.mark.parametrize("first", range(len(RANKED)))
def test_the_right_spelling_comes_first_then_the_gzipped_file_then_the_alphabet(tmp_path, first):
    put(tmp_path, *RANKED[first:])
    assert find([tmp_path])[0] == tmp_path / RANKED[first]


def test_the_order_in_which_a_folder_lists_its_files_does_not_matter(tmp_path, monkeypatch):
    for names in permutations(RANKED[:3]):
        monkeypatch.setattr(image_files, "listing", lambda place, names=names: list(names))
        assert find([tmp_path])[0] == tmp_path / RANKED[0]


def test_a_nearer_place_comes_before_a_better_spelling(tmp_path):
    near, far = put(tmp_path / "near", RANKED[-1]), put(tmp_path / "far", RANKED[0], LABELS)
    assert find([near, far])[:2] == [near / RANKED[-1], far / LABELS]
    assert find([far, near])[0] == far / RANKED[0]


def test_a_file_inside_a_folder_of_its_own_name_is_found(tmp_path):
    put(tmp_path, f"{IMAGES}/{LABELS}", f"{IMAGES}/train-images.idx3-ubyte", f"{LABELS}/notes")
    assert find([tmp_path])[:2] == [tmp_path / IMAGES / "train-images.idx3-ubyte", tmp_path / LABELS]


def test_a_folder_is_listed_in_order_and_what_is_none_lists_nothing(tmp_path):
    put(tmp_path, "b", "a", "c/d")
    assert listing(tmp_path) == ["a", "b", "c"]
    assert listing(tmp_path / "nowhere") == listing(tmp_path / "a") == []


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    def fail(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", fail)
    assert error_of(find, [tmp_path]) == (
        f"{tmp_path}: found a folder that cannot be read (Permission denied), expected data"
    )


@pytest.mark.parametrize(
    "spelled",
    [
        lambda name: name.replace("-idx", ".idx"),
        str.upper,
        lambda name: f"{name}/{name}",
        lambda name: f"{name}/{name.replace('-idx', '.idx')}",
        lambda name: name.replace("t10k", "test"),
        lambda name: f"{name}.gz",
    ],
)
def test_files_are_read_under_every_name_they_go_by_each_as_itself(tmp_path, spelled):
    arrays = [np.full((2, 28, 28), 1), np.full(2, 2), np.full((3, 28, 28), 3), np.full(3, 4)]
    for name, array in zip(FILES, arrays, strict=True):
        path = tmp_path / spelled(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(idx_bytes(array))
    for path, array in zip(find([tmp_path]), arrays, strict=True):
        assert np.array_equal(read_idx(path, array.ndim).values, array)
