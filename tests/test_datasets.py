import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import pickle
import shutil
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torchvision

from pipeline import datasets, known_data
from pipeline.datasets import DataError
from tests.conftest import FILES, idx_bytes, write_four_files

IMAGES, LABELS = FILES[:2]


OWN = "my_digits"  # the small data that the tests write are nobody's known data


def load_error(folder, dataset="mnist", data_name=OWN):
    with pytest.raises(DataError) as caught:
        datasets.load(dataset, folder, data_name)
    return str(caught.value)


def load(folder):
    return datasets.load("mnist", folder, OWN)


@pytest.fixture
def serve_folder():
    """Serve a folder over loopback HTTP, as a mirror does; gives its address."""
    servers = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    def serve(folder):
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def pretend_mirrors(monkeypatch, folder, *mirrors):
    """Let the folder's files be MNIST's, from these mirrors."""
    sums = tuple(hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest() for name in FILES)
    monkeypatch.setitem(known_data.MD5, "mnist", sums)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", list(mirrors))


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_the_four_files_are_read_gzipped_or_not_from_either_place(tmp_path, compress, below):
    arrays = write_four_files(tmp_path / below, compress=compress)
    data = load(tmp_path)
    assert np.array_equal(data.train.images, arrays[FILES[0]])
    assert np.array_equal(data.train.labels, arrays[FILES[1]])
    assert np.array_equal(data.test.images, arrays[FILES[2]])
    assert np.array_equal(data.test.labels, arrays[FILES[3]])
    assert data.source == str(tmp_path / below)


def test_keras_npz_is_read_and_has_the_digest_of_the_same_four_files(tmp_path):
    arrays = write_four_files(tmp_path / "files")
    keys = dict(zip(("x_train", "y_train", "x_test", "y_test"), (arrays[name] for name in FILES), strict=True))
    np.savez(tmp_path / "mnist.npz", **keys)
    from_npz, from_files = load(tmp_path), load(tmp_path / "files")
    assert np.array_equal(from_npz.test.images, from_files.test.images)
    assert from_npz.digest == from_files.digest


def test_a_truncated_npz_is_told(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros((2, 28, 28), np.uint8))
    assert load_error(tmp_path) == f"{tmp_path}/mnist.npz: found no y_train, x_test, y_test; " + (
        "expected x_train, y_train, x_test, y_test"
    )
    (tmp_path / "mnist.npz").write_bytes((tmp_path / "mnist.npz").read_bytes()[:100])
    assert f"{tmp_path}/mnist.npz: found a damaged file" in load_error(tmp_path)


def test_the_digest_tells_one_changed_pixel(tmp_path):
    arrays = write_four_files(tmp_path)
    before = load(tmp_path).digest
    arrays[FILES[2]][3, 4, 5] ^= 1
    (tmp_path / f"{FILES[2]}.gz").write_bytes(gzip.compress(idx_bytes(arrays[FILES[2]])))
    assert load(tmp_path).digest != before


def test_truncated_and_corrupted_gzip_is_told(tmp_path):
    write_four_files(tmp_path)
    path = tmp_path / f"{IMAGES}.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000])
    assert load_error(tmp_path).startswith(f"{path}: found a truncated or corrupted file (Compressed file ended before")
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :])
    assert load_error(tmp_path).startswith(f"{path}: found a truncated or corrupted file (")
    path.write_bytes(b"<html>lapsed domain</html>")
    assert load_error(tmp_path) == (
        f"{path}: found a truncated or corrupted file (Not a gzipped file (b'<h')), "
        "expected a whole gzip file; fetch it again"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, b"", "found 0 bytes at the start, expected the IDX header 0x00000803"),
        (IMAGES, idx_bytes(np.zeros(20)), "found 0x00000801 at the start, expected the IDX header 0x00000803"),
        (
            IMAGES,
            idx_bytes(np.zeros((20, 28, 28)))[:-5],
            "found 15,675 data bytes, expected 15,680 for shape (20, 28, 28); fetch it again",
        ),
        (
            IMAGES,
            idx_bytes(np.zeros((20, 32, 32))),
            "found images of shape (20, 32, 32), expected (N, 28, 28) with N above 0",
        ),
        (LABELS, idx_bytes([3] * 19 + [10]), "found label 10, expected 0..9"),
    ],
)
def test_a_wrong_file_is_told_with_what_was_found_and_expected(tmp_path, name, content, message):
    write_four_files(tmp_path, compress=False)
    (tmp_path / name).write_bytes(content)
    assert load_error(tmp_path) == f"{tmp_path / name}: {message}"


def test_images_and_labels_of_different_length_are_told(tmp_path):
    write_four_files(tmp_path, compress=False)
    (tmp_path / LABELS).write_bytes(idx_bytes(np.zeros(19)))
    assert load_error(tmp_path) == (
        f"{tmp_path / LABELS}: found 19 labels, expected 20, one per image in {tmp_path / IMAGES}"
    )


def test_digits_are_the_1797_of_scikit_learn_at_28x28():
    data = datasets.load("digits", "nowhere")
    assert data.train.images.shape == (1437, 28, 28)
    assert data.test.images.shape == (360, 28, 28)
    assert (data.train.images.min(), data.train.images.max()) == (0, 255)
    assert np.bincount(np.concatenate([data.train.labels, data.test.labels])).sum() == 1797
    assert data.digest == datasets.load("digits", "elsewhere").digest


def test_missing_files_are_downloaded_checked_and_moved_into_place(tmp_path, monkeypatch, serve_folder, capfd):
    arrays = write_four_files(tmp_path / "mirror")
    pretend_mirrors(monkeypatch, tmp_path / "mirror", "http://127.0.0.1:9/", serve_folder(tmp_path / "mirror"))
    data = datasets.load("mnist", tmp_path / "new")
    assert np.array_equal(data.train.images, arrays[IMAGES])
    assert sorted(path.name for path in (tmp_path / "new/MNIST/raw").iterdir()) == sorted(
        f"{name}.gz" for name in FILES
    )
    assert "100%" in capfd.readouterr().err


def test_only_what_is_missing_is_downloaded(tmp_path, monkeypatch, serve_folder):
    write_four_files(tmp_path / "mirror")
    pretend_mirrors(monkeypatch, tmp_path / "mirror", serve_folder(tmp_path / "mirror"))
    shutil.copytree(tmp_path / "mirror", tmp_path / "new")
    (tmp_path / "new" / f"{LABELS}.gz").unlink()
    datasets.load("mnist", tmp_path / "new")
    assert [path.name for path in (tmp_path / "new/MNIST/raw").iterdir()] == [f"{LABELS}.gz"]


def test_a_download_that_breaks_off_or_fails_its_checksum_leaves_nothing_that_passes_for_data(
    tmp_path, monkeypatch, serve_folder
):
    write_four_files(tmp_path / "mirror")
    pretend_mirrors(monkeypatch, tmp_path / "mirror", serve_folder(tmp_path / "mirror"))
    broken = tmp_path / "mirror" / f"{LABELS}.gz"
    broken.write_bytes(broken.read_bytes()[:-3])
    assert "File not found or corrupted" in load_error(tmp_path / "new", data_name="")
    assert [path.name for path in (tmp_path / "new/MNIST/raw").iterdir()] == [f"{IMAGES}.gz"]


def test_when_no_mirror_answers_the_mirrors_the_files_and_the_trial_are_named_in_that_order(tmp_path, monkeypatch):
    write_four_files(tmp_path / "mirror")
    pretend_mirrors(monkeypatch, tmp_path / "mirror", "http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/")
    lines = load_error(tmp_path / "new", data_name="").splitlines()
    assert lines[0] == f"{IMAGES}.gz is not in {tmp_path / 'new'} and no mirror gave it:"
    assert lines[1].startswith("  http://127.0.0.1:9/a/: ")
    assert lines[2].startswith("  http://127.0.0.1:9/b/: ")
    assert lines[3].startswith(f"Bring the four files ({IMAGES}.gz, ")
    assert lines[3].endswith("or point --data_dir or MNIST_DIR at the folder that holds them.")
    assert lines[4] == "Or try without a network: --dataset digits"


def test_what_could_not_be_downloaded_leaves_no_folder_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    (tmp_path / "mine").mkdir()
    for folder in ("new", "new/below", "mine"):
        assert "no mirror gave it" in load_error(tmp_path / folder, data_name="")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_fashion_mnist_is_not_taken_from_mnists_folder(tmp_path, monkeypatch):
    write_four_files(tmp_path / "MNIST/raw")
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError, match="no mirror gave it"):
        datasets.load("fashion_mnist", tmp_path)
    write_four_files(tmp_path / "FashionMNIST/raw")
    assert "found data of which no known checksum is true" in load_error(tmp_path, "fashion_mnist", "")


# What the data are, is known by their checksums.


def unzipped(source, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_bytes(gzip.decompress((source / f"{name}.gz").read_bytes()))
    return folder


def as_arrays(source):
    parts = [datasets.load("mnist", source).train, datasets.load("mnist", source).test]
    return {
        f"{kind}_{part}": getattr(split, name)
        for part, split in zip(("train", "test"), parts, strict=True)
        for kind, name in (("x", "images"), ("y", "labels"))
    }


def test_the_known_checksums_are_those_that_torchvision_has():
    for name, cls in (("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")):
        resources = getattr(torchvision.datasets, cls).resources
        assert [(f"{file}.gz", md5) for file, md5 in zip(FILES, known_data.MD5[name], strict=True)] == resources


def test_mnist_is_known_gzipped_unpacked_packed_anew_and_in_an_archive(tmp_path, mnist_dir):
    published = datasets.load("mnist", mnist_dir)
    assert (published.name, published.digest) == ("mnist", "06b0d1f124c4e5fa")
    plain = unzipped(mnist_dir, tmp_path / "plain")
    np.savez(tmp_path / "mnist.npz", **as_arrays(mnist_dir))
    anew = tmp_path / "anew"
    anew.mkdir()
    for name in FILES:
        (anew / name).symlink_to(plain / name)
    for name in FILES[2:]:
        (anew / f"{name}.gz").write_bytes(gzip.compress((plain / name).read_bytes(), 1))
    for folder in (plain, anew, tmp_path, tmp_path / "mnist.npz"):
        found = datasets.load("mnist", folder)
        assert (found.name, found.digest) == ("mnist", published.digest)


def test_mnist_under_another_data_sets_name_is_refused_saying_whose_it_is(tmp_path, mnist_dir):
    plain = unzipped(mnist_dir, tmp_path)
    for folder in (mnist_dir, plain):
        assert load_error(folder, "fashion_mnist", "") == (
            f"{folder} holds mnist, by its checksums, not fashion_mnist; give --dataset mnist, "
            "or the folder of fashion_mnist with --data_dir"
        )
    assert load_error(plain, "mnist", OWN) == (
        f"data_name my_digits: {plain} holds mnist itself, by its checksums; "
        "leave data_name out and give --dataset mnist"
    )


def test_one_wrong_file_among_mnists_is_named(tmp_path, mnist_dir):
    plain = unzipped(mnist_dir, tmp_path)
    labels = plain / FILES[3]
    content = labels.read_bytes()
    labels.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert load_error(plain, data_name="") == (
        f"{labels}: found data of which no known checksum is true, expected mnist's {FILES[3]}; give data of your own "
        "a name of their own, --data_name my_digits, or fetch the file again"
    )
    for kind in ("images-idx3", "labels-idx1"):
        (plain / f"t10k-{kind}-ubyte").write_bytes((plain / f"train-{kind}-ubyte").read_bytes())
    assert f"found mnist's {FILES[0]}, expected mnist's {FILES[2]}" in load_error(plain, data_name="")


def test_unpacked_fashion_mnist_cannot_be_told_and_the_way_out_is_said(tmp_path):
    write_four_files(tmp_path, compress=False)
    assert load_error(tmp_path, "fashion_mnist", "").endswith(
        "or bring fashion_mnist as the .gz files that were published: only those can be told"
    )


def test_data_of_ones_own_go_by_their_own_name_also_when_it_is_all_that_was_recorded(tmp_path):
    write_four_files(tmp_path)
    assert "give data of your own a name of their own, --data_name my_digits" in load_error(tmp_path, data_name="")
    given, recorded = datasets.load("mnist", tmp_path, OWN), datasets.load(OWN, tmp_path)
    assert given.name == recorded.name == OWN
    assert given.digest == recorded.digest


def test_data_of_ones_own_are_never_downloaded(tmp_path):
    write_four_files(tmp_path)
    (tmp_path / f"{LABELS}.gz").unlink()
    assert load_error(tmp_path) == (
        f"data_name my_digits: found no {LABELS} in {tmp_path}, expected the four files of your data "
        f"({', '.join(FILES)}; gzipped or not) or my_digits.npz; give their folder with --data_dir"
    )


# Odd files.


def as_kaggle_spells(name):
    return name.replace("-idx", ".idx")


def nested(name):
    return f"{name}/{name}"


def kaggle_nested(name):
    return f"{name}/{as_kaggle_spells(name)}"


@pytest.mark.parametrize(
    "spelled",
    [
        as_kaggle_spells,
        str.upper,
        nested,
        kaggle_nested,
        lambda name: name.replace("t10k", "test"),
        lambda name: f"raw/{name}",
        lambda name: f"MNIST/raw/{name}",
        lambda name: f"{name}.gz",
    ],
)
def test_unpacked_files_are_found_under_every_name_they_go_by(tmp_path, spelled):
    arrays = write_four_files(tmp_path / "right", compress=False)
    for name in FILES:
        path = tmp_path / "odd" / spelled(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((tmp_path / "right" / name).read_bytes())
    data = load(tmp_path / "odd")
    assert np.array_equal(data.test.images, arrays[FILES[2]])
    assert data.digest == load(tmp_path / "right").digest


def test_the_right_spelling_comes_before_the_others(tmp_path):
    arrays = write_four_files(tmp_path)
    (tmp_path / "train-images.idx3-ubyte").write_bytes(idx_bytes(np.zeros((20, 28, 28))))
    assert np.array_equal(load(tmp_path).train.images, arrays[IMAGES])


def arrays_of(folder):
    arrays = write_four_files(folder)
    return dict(zip(("x_train", "y_train", "x_test", "y_test"), (arrays[name] for name in FILES), strict=True))


def one_hot(labels, dtype):
    return np.eye(10, dtype=dtype)[labels]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (lambda x: x, lambda y: one_hot(y, np.uint8)),
        (lambda x: x, lambda y: one_hot(y, np.float64)),
        (lambda x: x, lambda y: one_hot(y, bool)),
        (lambda x: x, lambda y: y[:, None].astype(np.int64)),
        (lambda x: x, lambda y: y.astype(np.float32)),
        (lambda x: x.reshape(-1, 784), lambda y: y),
        (lambda x: x[..., None], lambda y: y),
        (lambda x: x[:, None], lambda y: y),
        (lambda x: x.astype(np.int64), lambda y: y),
        (lambda x: x.astype(">i2"), lambda y: y.astype(">i4")),
        (lambda x: x.astype(np.float32), lambda y: y),
        (lambda x: x.astype(np.float32) / 255, lambda y: y),
        (lambda x: (x / 255).astype(np.float16), lambda y: y),
        (lambda x: np.asfortranarray(x), lambda y: y),
    ],
)
def test_images_and_labels_of_every_shape_and_type_give_the_same_data(tmp_path, images, labels):
    arrays = arrays_of(tmp_path / "files")
    change = {"x": images, "y": labels}
    np.savez_compressed(tmp_path / "mnist.npz", **{key: change[key[0]](array) for key, array in arrays.items()})
    data = load(tmp_path)
    assert data.digest == load(tmp_path / "files").digest
    assert {each.dtype for split in (data.train, data.test) for each in (split.images, split.labels)} == {
        np.dtype("u1")
    }


@pytest.mark.parametrize(
    "spelled",
    [
        "train_x train_y test_x test_y",
        "X_train Y_train X_test Y_test",
        "training_images training_labels test_images test_labels",
        "train-data train-target test-data test-target",
    ],
)
def test_the_keys_of_an_archive_are_told_by_their_words(tmp_path, spelled):
    arrays = arrays_of(tmp_path / "files")
    keys = dict(zip(spelled.split(), arrays.values(), strict=True))
    np.savez(tmp_path / "my-digits.npz", val_images=np.zeros(3), **keys)
    assert load(tmp_path).digest == load(tmp_path / "files").digest


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("x_train", lambda x: x[:, :14], "found images of shape (20, 14, 28), expected (N, 28, 28) with N above 0"),
        ("x_train", lambda x: np.moveaxis(x, 0, 2), "found images of shape (28, 28, 20), expected (N, 28, 28)"),
        ("x_train", lambda x: np.repeat(x[..., None], 3, 3), "found images of shape (20, 28, 28, 3), expected"),
        ("x_train", lambda x: (x - 33.3) / 78.6, "found values from -0.4"),
        ("x_train", lambda x: x * 300.0, "found values from 0 to "),
        ("x_train", lambda x: x * np.nan, "found values from nan to nan, expected whole numbers in 0..255"),
        ("x_train", lambda x: x / 2.0, "found float64 values between the whole numbers, expected"),
        ("x_train", lambda x: x > 99, None),
        ("x_train", lambda x: (x > 99).astype(int), "found int64 values that are all 0 or 1, expected whole numbers"),
        ("x_train", lambda x: x.astype("U3"), "found <U3 values, expected whole numbers in 0..255"),
        ("x_train", lambda x: x.astype("M8[s]"), "found datetime64[s] values, expected whole numbers"),
        ("x_train", lambda x: x[0, 0, 0], "found images of shape (), expected (N, 28, 28)"),
        (
            "y_train",
            lambda y: y[:, None] == np.arange(3, 9),
            "found labels of shape (20, 6), expected (N,), or one-hot",
        ),
        (
            "y_train",
            lambda y: one_hot(y, float) * 0.9,
            "found labels of shape (20, 10), expected (N,), or one-hot rows",
        ),
        ("y_train", lambda y: y + 0.5, "expected whole numbers in 0..255, one a label"),
        ("y_train", lambda y: y.astype(int) - 1, "found values from -1 to"),
        ("y_train", lambda y: y.astype("U1"), "found <U1 values, expected whole numbers"),
        ("y_train", lambda y: y[None, None], "found labels of shape (1, 1, 20), expected (N,)"),
        ("y_train", lambda y: y[:9], "found 9 labels, expected 20, one per image in"),
    ],
)
def test_an_array_that_cannot_be_taken_is_told_in_one_line(tmp_path, key, change, message):
    arrays = arrays_of(tmp_path / "files")
    arrays[key] = change(arrays[key])
    path = tmp_path / "mnist.npz"
    np.savez(path, **arrays)
    if message is None:
        assert set(np.unique(load(tmp_path).train.images)) == {0, 255}
        return
    told = load_error(tmp_path)
    assert told.startswith(f"{path}[{key}]: ")
    assert message in told
    assert "\n" not in told


def test_pickled_arrays_two_keys_for_one_and_what_is_no_archive_are_told(tmp_path):
    arrays, path = arrays_of(tmp_path / "files"), tmp_path / "mnist.npz"
    np.savez(path, **{**arrays, "y_test": arrays["y_test"].astype(object)})
    assert load_error(tmp_path) == f"{path}: found pickled objects, which are not read because reading them runs " + (
        "code; expected arrays of numbers"
    )
    np.savez(
        path,
        train_images=arrays["x_train"],
        train_x=arrays["x_train"],
        train_y=arrays["y_train"],
        test_x=arrays["x_test"],
        test_y=arrays["y_test"],
    )
    assert load_error(tmp_path) == f"{path}: found train_images and train_x, expected one key for x_train"
    np.save(path.with_suffix(".npy"), arrays["x_train"])
    path.with_suffix(".npy").replace(path)
    for content in (path.read_bytes(), b"", b"PK", b"not an archive at all", pickle.dumps(arrays)):
        path.write_bytes(content)
        told = load_error(tmp_path)
        assert told.startswith(f"{path}: found ")
        assert "\n" not in told


@pytest.mark.parametrize(
    "name",
    [
        "my_digits.csv",
        "my_digits_train.csv",
        "my-digits.zip",
        "my_digits.pkl.gz",
        "archive.zip",
        "train-images-idx3-ubyte.zip",
        "train_images.npy",
        "my_digits.mat",
    ],
)
def test_a_format_that_is_not_read_is_said_before_the_network_is_asked(tmp_path, name):
    (tmp_path / name).write_bytes(b"5,0,0,0")
    assert load_error(tmp_path).startswith(f"{tmp_path / name}: found a format that is not read, expected {IMAGES}, ")


def test_kaggles_csv_files_are_refused_and_other_data_sets_archives_are_not_in_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    for name in ("fashion_mnist.zip", "emnist.csv", "notes.zip", "fashion-mnist_train.csv", "mnist_notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert "no mirror gave it" in load_error(tmp_path, data_name="")
    (tmp_path / "mnist_train.csv").write_bytes(b"label,1x1\n5,0\n")
    assert f"{tmp_path}/mnist_train.csv: found a format that is not read" in load_error(tmp_path, data_name="")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(np.zeros((20, 28, 28))) + b"x", "found 15,681 data bytes, expected 15,680 for shape (20, 28, 28)"),
        (b"\0\0\x0d\3" + bytes(99), "found 0x00000d03 at the start (4-byte floats in 3 dimensions), expected the IDX"),
        (
            b"\0\0\x0c\2" + bytes(99),
            "found 0x00000c02 at the start (4-byte integers in 2 dimensions), expected the IDX",
        ),
        (
            b"\0\0\x08\3" + b"\xff" * 12 + bytes(99),
            "found 99 data bytes, expected 79,228,162,458,924,105,385,300,197,375",
        ),
        (b"\0\0\x08\3" + bytes(12), "found images of shape (0, 0, 0), expected (N, 28, 28)"),
        (b"\x03\x08\0\0" + bytes(99), "found 0x03080000 at the start, expected the IDX header 0x00000803"),
    ],
)
def test_an_odd_idx_file_is_told_gzipped_or_not(tmp_path, content, message):
    write_four_files(tmp_path, compress=False)
    (tmp_path / IMAGES).write_bytes(content)
    assert f"{tmp_path / IMAGES}: {message}" in load_error(tmp_path)
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(content))
    told = load_error(tmp_path)
    assert told.startswith(f"{tmp_path / IMAGES}.gz: found ")
    assert "\n" not in told


def test_bytes_behind_the_gzip_stream_are_told_zeros_and_a_second_stream_are_taken(tmp_path):
    arrays = write_four_files(tmp_path)
    path, content = tmp_path / f"{IMAGES}.gz", idx_bytes(arrays[IMAGES])
    path.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]) + bytes(512))
    assert np.array_equal(load(tmp_path).train.images, arrays[IMAGES])
    path.write_bytes(gzip.compress(content) + b"garbage")
    assert "found a truncated or corrupted file (7 other bytes follow the gzip stream)" in load_error(tmp_path)


def test_a_gzip_bomb_is_told_without_being_unpacked(tmp_path):
    write_four_files(tmp_path)
    header = b"\0\0\x08\3" + np.array([20, 28, 28], ">u4").tobytes()
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(gzip.compress(header + bytes(300_000_000), 1))
    tracemalloc.start()
    assert f"{path}: found more than 15,680 data bytes, expected 15,680" in load_error(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def make_fifo(path):
    os.mkfifo(path)


def make_dangling(path):
    path.symlink_to("nowhere")


def make_loop(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_fifo, "found a pipe, expected a file"),
        (Path.mkdir, "found a folder, expected a file"),
        (make_dangling, "found a link that leads nowhere, expected a file"),
        (make_loop, "found a file that cannot be read (Too many levels of symbolic links), expected data"),
        (lambda path: path.symlink_to("/dev/zero"), "found a device, expected a file"),
    ],
)
def test_what_is_no_file_is_told_and_never_waited_for(tmp_path, make, words):
    write_four_files(tmp_path)
    path = tmp_path / f"{LABELS}.gz"
    path.unlink()
    make(path)
    assert load_error(tmp_path) == f"{path}: {words}"


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
