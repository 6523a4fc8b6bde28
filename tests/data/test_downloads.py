"""What is missing is fetched from the mirrors, checked, and moved into place whole, or nothing is left behind."""

import functools
import hashlib
import http.server
import shutil
import threading

import numpy as np
import pytest
import torchvision

from pipeline.data import datasets, known_data
from tests.conftest import FILES, write_four_files
from tests.own_data import load_error

IMAGES, LABELS = FILES[:2]


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


def test_missing_files_are_downloaded_checked_and_moved_into_place(tmp_path, monkeypatch, serve_folder, capfd):
    arrays = write_four_files(tmp_path / "mirror")
    pretend_mirrors(monkeypatch, tmp_path / "mirror", "http://127.0.0.1:9/", serve_folder(tmp_path / "mirror"))
    data = datasets.load("mnist", tmp_path / "new")
    assert np.array_equal(data.train.inputs, arrays[IMAGES])
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
