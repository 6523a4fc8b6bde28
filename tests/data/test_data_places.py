"""Where data are looked for, and what is taken for them: known ones under their own name, the wrong ones are told."""

import contextlib
import gzip
import os

import numpy as np
import pytest

from pipeline.data import datasets
from tests.conftest import FILES, idx_bytes, write_four_files
from tests.own_data import OWN, arrays_of, holds, know, load, load_error

IMAGES, LABELS = FILES[:2]


@pytest.fixture(autouse=True)
def nothing_is_downloaded(monkeypatch):
    """What would be is told by the names of the missing files."""

    def refuse(dataset, folder, missing):
        raise datasets.DataError(f"downloads {dataset} into {folder}: {' '.join(missing)}")

    monkeypatch.setattr(datasets, "download", refuse)


def test_mnist_is_looked_for_in_the_folder_itself_before_torchvision_s_and_raw(tmp_path):
    for nearness, below in enumerate(("raw", "MNIST/raw", "")):
        arrays = write_four_files(tmp_path / below, train=20 + nearness)
        np.savez(tmp_path / "unused.npz", **arrays)
        assert load_error(tmp_path, "mnist", "").startswith(f"{tmp_path / below / IMAGES}.gz: found data of which no ")


def test_the_relatives_are_looked_for_in_torchvision_s_folder_first(tmp_path):
    for name, below in (("fashion_mnist", "FashionMNIST/raw"), ("kmnist", "KMNIST/raw")):
        for place in ("raw", "", below):
            write_four_files(tmp_path / name / place)
            assert load_error(tmp_path / name, name, "").startswith(
                f"{tmp_path / name / place / IMAGES}.gz: found data"
            )


def test_another_data_set_s_archive_is_not_taken(tmp_path):
    np.savez(tmp_path / "mnist.npz", **arrays_of(tmp_path / "files"))
    assert load_error(tmp_path, "fashion_mnist", "").startswith(f"downloads fashion_mnist into {tmp_path}: {IMAGES} ")
    (tmp_path / "mnist.npz").rename(tmp_path / "Fashion-MNIST.npz")
    assert load_error(tmp_path, "fashion_mnist", "").startswith(f"{tmp_path}/Fashion-MNIST.npz[x_train]: found data of")
    assert load_error(tmp_path, "mnist", "").startswith("downloads mnist ")


def test_no_data_set_is_taken_from_another_s_folder(tmp_path):
    for name, below in (("fashion_mnist", "MNIST/raw"), ("kmnist", "FashionMNIST/raw"), ("mnist", "KMNIST/raw")):
        write_four_files(tmp_path / below)
        assert load_error(tmp_path, name, "") == f"downloads {name} into {tmp_path}: {' '.join(FILES)}"
        for each in (tmp_path / below).iterdir():
            each.unlink()


def test_known_data_are_taken_under_their_name_and_no_other(tmp_path, monkeypatch):
    arrays = write_four_files(tmp_path)
    know(monkeypatch, "kmnist", tmp_path)
    data = datasets.load("kmnist", tmp_path)
    assert holds(data, arrays)
    assert data.name == "kmnist"
    assert load_error(tmp_path, "mnist", "").startswith(f"{tmp_path} holds kmnist, by its checksums, not mnist; ")
    assert load_error(tmp_path).startswith(f"data_name my_digits: {tmp_path} holds kmnist itself, by its checksums; ")
    (tmp_path / f"{LABELS}.gz").write_bytes(gzip.compress(idx_bytes(arrays[LABELS]), 1))
    assert load_error(tmp_path, "kmnist", "").startswith(f"{tmp_path / LABELS}.gz: found data of which no known ")


def test_only_what_is_missing_of_known_data_is_downloaded_and_then_read(tmp_path, monkeypatch):
    arrays = write_four_files(tmp_path)
    know(monkeypatch, "mnist", tmp_path)
    content = (tmp_path / f"{LABELS}.gz").read_bytes()
    (tmp_path / f"{LABELS}.gz").unlink()
    assert load_error(tmp_path, "mnist", "") == f"downloads mnist into {tmp_path}: {LABELS}"

    def bring(dataset, folder, missing):
        (folder / "MNIST/raw").mkdir(parents=True)
        (folder / "MNIST/raw" / f"{missing[0]}.gz").write_bytes(content)

    monkeypatch.setattr(datasets, "download", bring)
    assert holds(datasets.load("mnist", tmp_path), arrays)


def test_data_of_ones_own_go_by_their_own_name_also_when_it_is_all_that_was_recorded(tmp_path):
    write_four_files(tmp_path)
    assert "give data of your own a name of their own, --data_name my_digits" in load_error(tmp_path, data_name="")
    given, recorded = datasets.load("mnist", tmp_path, OWN), datasets.load(OWN, tmp_path)
    assert given.name == recorded.name == OWN
    assert given.digest == recorded.digest


def test_data_of_ones_own_are_never_downloaded(tmp_path):
    write_four_files(tmp_path)
    for name in FILES[1::2]:
        (tmp_path / f"{name}.gz").unlink()
    assert load_error(tmp_path) == (
        f"data_name my_digits: found no {FILES[1]}, {FILES[3]} in {tmp_path}, expected the four files of your data "
        f"({', '.join(FILES)}; gzipped or not) or my_digits.npz; give their folder with --data_dir"
    )


def test_auto_is_where_the_data_set_lies_by_default(tmp_path, monkeypatch):
    write_four_files(tmp_path / "data/FashionMNIST/raw")
    assert load_error("auto", "fashion_mnist", "").startswith(f"data/FashionMNIST/raw/{IMAGES}.gz: found data of which")
    write_four_files(tmp_path / "mine")
    monkeypatch.setenv("MNIST_DIR", str(tmp_path / "mine"))
    assert load("auto").source == str(tmp_path / "mine")


def test_a_folder_may_be_below_home_relative_or_a_link_and_its_real_place_is_recorded(tmp_path, monkeypatch):
    write_four_files(tmp_path / "home/data")
    (tmp_path / "link").symlink_to("home/data")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("~/data", "home/data", "link", tmp_path / "link"):
        assert load(folder).source == str(tmp_path / "home/data")


def test_a_file_for_a_folder_is_told(tmp_path):
    write_four_files(tmp_path)
    path = tmp_path / f"{IMAGES}.gz"
    assert load_error(path) == (
        f"data_dir {path} is a file; expected the folder that holds {IMAGES}.gz and its three companions"
    )


@pytest.mark.parametrize(
    "name",
    [
        "my_digits.csv",
        "MY DIGITS.CSV",
        "my_digits_train.csv",
        "mydigits-test.parquet",
        "my-digits.zip",
        "my_digits.pkl.gz",
        "my_digits.v2.tar.gz",
        "archive.zip",
        "train-images-idx3-ubyte.zip",
        "t10k-labels.npy",
        "test.images.pt",
        "train_images.npy",
        "my_digits.mat",
    ],
)
@pytest.mark.parametrize("below", ["", "raw"])
def test_a_format_that_is_not_read_is_said_before_the_network_is_asked(tmp_path, name, below):
    (tmp_path / below).mkdir(exist_ok=True)
    (tmp_path / below / name).write_bytes(b"5,0,0,0")
    assert load_error(tmp_path) == (
        f"{tmp_path / below / name}: found a format that is not read, expected {IMAGES}, gzipped or not, and its three "
        "companions, or my_digits.npz; unpack or convert it, or give another --data_dir"
    )


@pytest.mark.parametrize(
    "name",
    ["fashion_mnist.zip", "emnist.csv", "notes.zip", "fashion-mnist_train.csv", "mnist_notes.txt", "archives.zip"],
)
def test_other_data_sets_archives_are_not_in_the_way_of_mnist(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert load_error(tmp_path, data_name="").startswith("downloads mnist ")


def test_known_data_in_a_format_that_is_not_read_are_told_by_their_name(tmp_path):
    for dataset, name in (("mnist", "mnist_train.csv"), ("fashion_mnist", "fashion-mnist_train.csv")):
        (tmp_path / name).write_bytes(b"label,1x1\n5,0\n")
        assert load_error(tmp_path, dataset, "").endswith(
            f"its three companions, or {dataset}.npz; unpack or convert it, or give another --data_dir"
        )


def test_one_of_the_four_that_only_looks_like_another_format_is_not_in_the_way(tmp_path):
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((2, 28, 28)))))
    assert load_error(tmp_path, data_name="") == f"downloads mnist into {tmp_path}: {' '.join(FILES[1:])}"


def test_files_and_folders_that_may_not_be_read_are_told(tmp_path):
    if os.getuid():
        pytest.skip("only root can become another user")
    write_four_files(tmp_path / "data")
    for each in (*tmp_path.parents[:3], tmp_path):
        if each.name.startswith(("pytest-", "popen-")) or each == tmp_path:
            each.chmod(0o755)
    words = {}
    for path, mode in ((tmp_path / "data" / f"{IMAGES}.gz", 0), (tmp_path / "data", 0o311)):
        before = path.stat().st_mode
        path.chmod(mode)
        with as_another_user():
            words[path.name] = load_error(tmp_path / "data")
        path.chmod(before)
    assert words == {
        f"{IMAGES}.gz": f"{tmp_path}/data/{IMAGES}.gz: found a file that cannot be read (Permission denied), "
        "expected data; make it readable for you",
        "data": f"{tmp_path}/data: found a folder that cannot be read (Permission denied), expected data",
    }


@contextlib.contextmanager
def as_another_user():
    os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(0)
