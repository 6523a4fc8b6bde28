"""Whose data these are is known by their checksums; under another's name, or with one file changed, it is told."""

import hashlib

import numpy as np
import pytest

from pipeline.data import known_data
from pipeline.data.image_files import Part, read_idx
from pipeline.data.known_data import check_name, identity
from tests.conftest import FILES, idx_bytes
from tests.own_data import OWN, error_of

UNKNOWN = "found data of which no known checksum is true"
OF_ONES_OWN = "give data of your own a name of their own, --data_name my_digits"


def parts_of(seed, md5=False):
    """Four small parts of their own, as they lie in gzipped files or not."""
    random = np.random.RandomState(seed)
    arrays = [random.randint(0, 10, (2, 28, 28) if "images" in name else 2).astype(np.uint8) for name in FILES]
    return [
        Part(f"/data/{name}", array, hashlib.md5(idx_bytes(array)).hexdigest() if md5 else "")
        for name, array in zip(FILES, arrays, strict=True)
    ]


def sha256(part):
    return hashlib.sha256(part.values.tobytes()).hexdigest()


@pytest.fixture
def known(monkeypatch):
    """Small data that are known as MNIST and Fashion-MNIST, both by either checksum, and KMNIST by its files' alone."""
    tables = {"md5": {}, "sha256": {}}
    for seed, name in enumerate(("mnist", "fashion_mnist", "kmnist")):
        tables["md5"][name] = tuple(part.md5 for part in parts_of(seed, md5=True))
        tables["sha256"][name] = tuple(sha256(part) for part in parts_of(seed))
    tables["sha256"].pop("kmnist")
    monkeypatch.setattr(known_data, "MD5", tables["md5"])
    monkeypatch.setattr(known_data, "SHA256", tables["sha256"])
    return tables


MNIST, FASHION, KMNIST, OTHERS = range(4)


def told(dataset, data_name, parts):
    return error_of(check_name, dataset, data_name, parts, "/data")


@pytest.mark.parametrize("md5", [True, False])
def test_each_part_is_known_by_either_checksum(known, md5):
    for seed, name in ((MNIST, "mnist"), (FASHION, "fashion_mnist")):
        assert [identity(part) for part in parts_of(seed, md5)] == [(name, file) for file in FILES]
    assert [identity(part) for part in parts_of(OTHERS, md5)] == [None] * 4
    assert identity(parts_of(KMNIST, md5)[3]) == (("kmnist", FILES[3]) if md5 else None)


def test_a_file_packed_anew_is_known_by_what_is_in_it(known):
    for part, name in zip(parts_of(MNIST), FILES, strict=True):
        assert identity(Part(part.where, part.values, "0" * 32)) == ("mnist", name)
        assert identity(Part(part.where, np.asfortranarray(part.values), "")) == ("mnist", name)


def test_a_checksum_that_is_not_known_is_nobody_s(known):
    known["sha256"]["kmnist"] = ("", "", "", "")
    assert [identity(part) for part in parts_of(KMNIST)] == [None] * 4
    known["md5"]["kmnist"] = ("", "", "", "")
    assert [identity(part) for part in parts_of(OTHERS)] == [None] * 4


@pytest.mark.parametrize("md5", [True, False])
def test_known_data_pass_under_their_own_name_only(known, md5):
    check_name("mnist", "", parts_of(MNIST, md5), "/data")
    check_name("fashion_mnist", "", parts_of(FASHION, md5), "/data")
    assert told("mnist", "", parts_of(FASHION, md5)) == (
        "/data holds fashion_mnist, by its checksums, not mnist; give --dataset fashion_mnist, "
        "or the folder of mnist with --data_dir"
    )
    for name in (OWN, "mnist"):
        assert told("mnist", name, parts_of(FASHION, md5)) == (
            f"data_name {name}: /data holds fashion_mnist itself, by its checksums; "
            "leave data_name out and give --dataset fashion_mnist"
        )


@pytest.mark.parametrize("md5", [True, False])
def test_data_of_ones_own_pass_under_a_name_of_their_own_only(known, md5):
    check_name("mnist", OWN, parts_of(OTHERS, md5), "/data")
    assert told("mnist", "", parts_of(OTHERS, md5)) == (
        f"/data/{FILES[0]}: {UNKNOWN}, expected mnist's {FILES[0]}; {OF_ONES_OWN}, or fetch the file again"
    )


@pytest.mark.parametrize("place", range(4))
def test_one_changed_file_among_known_ones_is_named_and_makes_data_of_ones_own(known, place):
    parts = parts_of(MNIST)
    values = parts[place].values.copy()
    values.flat[-1] ^= 1
    parts[place] = Part(parts[place].where, values)
    assert told("mnist", "", parts) == (
        f"/data/{FILES[place]}: {UNKNOWN}, expected mnist's {FILES[place]}; {OF_ONES_OWN}, or fetch the file again"
    )
    check_name("mnist", OWN, parts, "/data")


@pytest.mark.parametrize("place", range(4))
def test_one_file_of_another_data_set_among_known_ones_is_named(known, place):
    parts = parts_of(MNIST)
    parts[place] = parts_of(FASHION)[place]
    assert told("mnist", "", parts) == (
        f"/data/{FILES[place]}: found fashion_mnist's {FILES[place]}, expected mnist's {FILES[place]}; {OF_ONES_OWN}"
    )
    check_name("mnist", OWN, parts, "/data")


@pytest.mark.parametrize(("one", "other"), [(0, 2), (1, 3), (0, 1)])
def test_known_files_in_each_other_s_place_are_told(known, one, other):
    parts = parts_of(MNIST)
    parts[one], parts[other] = parts[other], parts[one]
    assert told("mnist", "", parts) == (
        f"{parts[one].where}: found mnist's {FILES[other]}, expected mnist's {FILES[one]}; {OF_ONES_OWN}"
    )
    check_name("mnist", OWN, parts, "/data")


def test_where_only_published_files_are_known_unpacked_ones_cannot_be_told_and_the_way_out_is_said(known):
    published = "or bring {} as the .gz files that were published: only those can be told"
    unpacked = told("kmnist", "", parts_of(KMNIST))
    assert unpacked == f"/data/{FILES[0]}: {UNKNOWN}, expected kmnist's {FILES[0]}; {OF_ONES_OWN}, " + (
        published.format("kmnist")
    )
    assert told("kmnist", "", parts_of(OTHERS, md5=True)).endswith(f"{OF_ONES_OWN}, or fetch the file again")
    known["sha256"]["mnist"] = ("", *known["sha256"]["mnist"][1:])
    assert told("mnist", "", parts_of(OTHERS)).endswith(f"{OF_ONES_OWN}, {published.format('mnist')}")
    assert told("fashion_mnist", "", parts_of(OTHERS)).endswith(f"{OF_ONES_OWN}, or fetch the file again")


def test_the_known_checksums_are_those_that_torchvision_has():
    import torchvision

    for name, cls in (("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")):
        resources = getattr(torchvision.datasets, cls).resources
        assert [(f"{file}.gz", md5) for file, md5 in zip(FILES, known_data.MD5[name], strict=True)] == resources


@pytest.mark.parametrize(("place", "dimensions"), [(1, 1), (2, 3), (3, 1)])  # the other one takes a second to read
def test_the_published_files_of_mnist_are_known_packed_and_unpacked(mnist_dir, place, dimensions):
    part = read_idx(mnist_dir / f"{FILES[place]}.gz", dimensions)
    assert identity(part) == identity(Part("", part.values)) == ("mnist", FILES[place])
