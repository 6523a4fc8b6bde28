"""The keys of an archive are told by their words; what is no archive is told in one line."""

import pickle
import zipfile
import zlib

import numpy as np
import pytest

from pipeline.data import archives
from pipeline.data.archives import read_npz
from tests.data.test_archives import packed, small
from tests.own_data import KEYS, error_of, same


@pytest.mark.parametrize(
    "spelled",
    [
        "train_x train_y test_x test_y",
        "X_train Y_train X_test Y_test",
        "training_images training_labels testing_images testing_labels",
        "train-data train-target test-data test-target",
        "image.train label.train image.t10k label.t10k",
        "train img|train targets|t10k imgs|t10k y",
        "train_features train_y test_pixels test_y",
        "train__x train_-y test.x.0 test.y.0",
    ],
)
def test_the_keys_of_an_archive_are_told_by_their_words(tmp_path, spelled):
    arrays = small()
    keys = spelled.split("|") if "|" in spelled else spelled.split()
    path = packed(tmp_path / "my.npz", {"val_images": np.zeros(3), **dict(zip(keys, arrays.values(), strict=True))})
    parts = read_npz(path)
    assert same(parts, arrays.values())
    assert [part.where for part in parts] == [f"{path}[{key}]" for key in keys]


def test_a_key_that_names_both_halves_or_both_kinds_is_nobody_s(tmp_path):
    arrays = small()
    others = {"train_test_x": np.zeros(1), "x_y_test": np.zeros(1), "train": np.zeros(1), "images": np.zeros(1)}
    assert same(read_npz(packed(tmp_path / "my.npz", {**others, **arrays})), arrays.values())


def test_keras_own_keys_come_before_all_that_mean_the_same(tmp_path):
    arrays = small()
    others = {"train_images": np.zeros(1), "test_labels": np.zeros(1), "y_training": np.zeros(1)}
    for both in ({**others, **arrays}, {**arrays, **others}):
        assert same(read_npz(packed(tmp_path / "my.npz", both)), arrays.values())


def test_two_keys_for_one_are_told_by_name(tmp_path):
    arrays = small()
    for role in KEYS:
        kind, part = role.split("_")
        keys = {key: array for key, array in arrays.items() if key != role}
        path = packed(tmp_path / "my.npz", {f"{part}.{kind}": arrays[role], f"{part} {kind}": arrays[role], **keys})
        assert error_of(read_npz, path) == f"{path}: found {part}.{kind} and {part} {kind}, expected one key for {role}"


def test_missing_keys_are_named_with_up_to_eight_of_those_there(tmp_path):
    arrays = small()
    expected = "expected x_train, y_train, x_test, y_test"
    path = packed(tmp_path / "my.npz", {"x_train": arrays["x_train"], "y_test": arrays["y_test"]})
    assert error_of(read_npz, path) == f"{path}: found no y_train, x_test; {expected}"
    packed(path, {f"a{index}": np.zeros(1) for index in range(9)})
    there = "(keys there: a0, a1, a2, a3, a4, a5, a6, a7)"
    assert error_of(read_npz, path) == f"{path}: found no x_train, y_train, x_test, y_test {there}; {expected}"


def test_pickled_arrays_are_not_read(tmp_path):
    arrays = small()
    path = packed(tmp_path / "mnist.npz", {**arrays, "y_test": arrays["y_test"].astype(object)})
    said = "found pickled objects, which are not read because reading them runs code; expected arrays of numbers"
    assert error_of(read_npz, path) == f"{path}: {said}"
    for other in (pickle.dumps(arrays), b"not an archive at all"):
        path.write_bytes(other)
        assert error_of(read_npz, path) == f"{path}: {said}"


def damaged(tmp_path, content):
    path = tmp_path / "mnist.npz"
    path.write_bytes(content)
    words = error_of(read_npz, path)
    assert words.startswith(f"{path}: found a damaged file (")
    assert words.endswith("), expected a NumPy archive; fetch it again")
    assert "\n" not in words


def test_what_is_no_archive_or_damaged_at_any_place_is_told_in_one_line(tmp_path):
    np.save(tmp_path / "x.npy", small()["x_train"])
    np.savez_compressed(tmp_path / "whole.npz", **small())
    whole = (tmp_path / "whole.npz").read_bytes()
    damaged(tmp_path, (tmp_path / "x.npy").read_bytes())
    for content in (b"", b"PK\3\4", whole[:100], whole[:-40], whole[:300] + b"\xff" * 9 + whole[309:]):
        damaged(tmp_path, content)


def test_a_member_whose_checksum_is_false_is_told(tmp_path):
    path = packed(tmp_path / "whole.npz", small())
    content = bytearray(path.read_bytes())
    content[500] ^= 1  # a pixel of x_train
    damaged(tmp_path, bytes(content))


def test_a_member_that_is_no_array_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "whole.npz", "w") as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", b"\x93NUMPY\1\0v\0{'descr': 'u1', 'oops'" + b" " * 90)
    damaged(tmp_path, (tmp_path / "whole.npz").read_bytes())


@pytest.mark.parametrize(
    "error",
    [
        OSError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        NotImplementedError,
        zlib.error,
        zipfile.BadZipFile,
        RuntimeError,
        KeyError,
        SyntaxError,
    ],
)
def test_whatever_numpy_raises_is_told_on_one_line(tmp_path, monkeypatch, error):
    def fail(*arguments, **options):
        raise error("so\n  it is")

    path = packed(tmp_path / "mnist.npz", small())
    monkeypatch.setattr(archives.np, "load", fail)
    reason = "'so\\n it is'" if error is KeyError else "so it is"
    words = error_of(read_npz, path)
    assert words.replace("\\n  it", "\\n it") == (
        f"{path}: found a damaged file ({reason}), expected a NumPy archive; fetch it again"
    )


def test_arrays_that_do_not_fit_into_memory_are_told(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError

    path = packed(tmp_path / "mnist.npz", small())
    monkeypatch.setattr(archives.np, "load", fail)
    assert error_of(read_npz, path) == (
        f"{path}: found arrays that do not fit into memory, expected a data set that does"
    )
