import functools
import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest
import torchvision

from pipeline import datasets
from pipeline.datasets import DataError
from tests.conftest import FILES, idx_bytes, write_four_files

IMAGES, LABELS = FILES[:2]


def load_error(folder):
    with pytest.raises(DataError) as caught:
        datasets.load("mnist", folder)
    return str(caught.value)


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
    """Let torchvision expect the folder's files, from these mirrors."""
    sums = [(f"{name}.gz", hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest()) for name in FILES]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", list(mirrors))


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_the_four_files_are_read_gzipped_or_not_from_either_place(tmp_path, compress, below):
    arrays = write_four_files(tmp_path / below, compress=compress)
    data = datasets.load("mnist", tmp_path)
    assert np.array_equal(data.train.images, arrays[FILES[0]])
    assert np.array_equal(data.train.labels, arrays[FILES[1]])
    assert np.array_equal(data.test.images, arrays[FILES[2]])
    assert np.array_equal(data.test.labels, arrays[FILES[3]])
    assert data.source == str(tmp_path / below)


def test_keras_npz_is_read_and_has_the_digest_of_the_same_four_files(tmp_path):
    arrays = write_four_files(tmp_path / "files")
    keys = dict(zip(("x_train", "y_train", "x_test", "y_test"), (arrays[name] for name in FILES), strict=True))
    np.savez(tmp_path / "mnist.npz", **keys)
    from_npz, from_files = datasets.load("mnist", tmp_path), datasets.load("mnist", tmp_path / "files")
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
    before = datasets.load("mnist", tmp_path).digest
    arrays[FILES[2]][3, 4, 5] ^= 1
    (tmp_path / f"{FILES[2]}.gz").write_bytes(gzip.compress(idx_bytes(arrays[FILES[2]])))
    assert datasets.load("mnist", tmp_path).digest != before


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
    write_four_files(tmp_path / "new")
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
    assert "File not found or corrupted" in load_error(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new/MNIST/raw").iterdir()] == [f"{IMAGES}.gz"]


def test_when_no_mirror_answers_the_mirrors_the_files_and_the_trial_are_named_in_that_order(tmp_path, monkeypatch):
    write_four_files(tmp_path / "mirror")
    pretend_mirrors(monkeypatch, tmp_path / "mirror", "http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/")
    lines = load_error(tmp_path / "new").splitlines()
    assert lines[0] == f"{IMAGES}.gz is not in {tmp_path / 'new'} and no mirror gave it:"
    assert lines[1].startswith("  http://127.0.0.1:9/a/: ")
    assert lines[2].startswith("  http://127.0.0.1:9/b/: ")
    assert lines[3].startswith(f"Bring the four files ({IMAGES}.gz, ")
    assert lines[3].endswith("or point --data_dir or MNIST_DIR at the folder that holds them.")
    assert lines[4] == "Or try without a network: --dataset digits"


def test_fashion_mnist_is_not_taken_from_mnists_folder(tmp_path, monkeypatch):
    write_four_files(tmp_path / "MNIST/raw")
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError, match="no mirror gave it"):
        datasets.load("fashion_mnist", tmp_path)
    write_four_files(tmp_path / "FashionMNIST/raw")
    assert datasets.load("fashion_mnist", tmp_path).name == "fashion_mnist"
