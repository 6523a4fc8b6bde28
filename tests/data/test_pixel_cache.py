"""Decoded images come from the disk the second time, and what is wrong there costs time only."""

import os
import threading
import time

import numpy as np
import pytest

from pipeline.data import pixel_cache
from pipeline.data.decoding import Decoded, decode
from pipeline.data.pixel_cache import KEPT, cache_folder, cached
from tests.data.image_folders import image_of, write


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mnist-mlp-pipeline" / "images"


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        write(tmp_path / "data" / f"{number}.png", image_of(number, (6, 6)))
    (tmp_path / "data" / "bad.png").write_bytes(b"no image")
    return tmp_path / "data"


class Asked:
    """The images of a folder, and how often they were decoded."""

    def __init__(self, folder, image_size=0):
        self.folder, self.image_size, self.times = folder, image_size, 0
        self.names = sorted(path.name for path in folder.iterdir())

    def decode(self):
        self.times += 1
        return decode(self.folder, self.names, self.image_size)

    def __call__(self):
        before = self.times
        found = cached(self.folder, self.names, self.image_size, self.decode)
        assert found.unreadable == ["bad.png: not an image"]
        assert found.kept.tolist() == [name != "bad.png" for name in self.names]
        assert found.pixels.tobytes() == decode(self.folder, self.names, self.image_size).pixels.tobytes()
        return self.times - before


def entries(place):
    return sorted(path.name for path in place.glob("*.npz"))


def test_the_second_time_nothing_is_decoded_and_the_images_are_the_same(folder, place):
    ask = Asked(folder)
    assert [ask(), ask(), ask()] == [1, 0, 0]
    assert len(entries(place)) == 1
    assert sorted(path.name for path in place.iterdir()) == sorted([*entries(place), "lock"])


def test_a_changed_file_another_size_and_other_code_are_decoded_anew(folder, place, monkeypatch):
    ask = Asked(folder)
    assert ask() == 1
    stat = (folder / "1.png").stat()
    content = (folder / "1.png").read_bytes()
    write(folder / "1.png", image_of(9, (6, 6)))
    assert ask() == 1
    (folder / "1.png").write_bytes(content)
    os.utime(folder / "1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as an unpacked archive leaves it
    assert ask() == 1
    write(folder / "3.png", image_of(3, (6, 6)))
    assert (Asked(folder)(), Asked(folder)()) == (1, 0)
    assert (Asked(folder, 4)(), Asked(folder, 4)()) == (1, 0)
    monkeypatch.setattr(pixel_cache, "MAKERS", pixel_cache.MAKERS[:1])
    assert Asked(folder)() == 1
    monkeypatch.setattr(pixel_cache.PIL, "__version__", "99")
    assert Asked(folder)() == 1


def test_a_file_of_another_name_or_folder_is_another_entry(folder, place, tmp_path):
    assert Asked(folder)() == 1
    (folder / "2.png").rename(folder / "4.png")
    assert Asked(folder)() == 1
    folder.rename(tmp_path / "other")
    assert Asked(tmp_path / "other")() == 1
    assert len(entries(place)) == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other", "folder", "lacking", "fewer"])
def test_a_damaged_entry_is_decoded_anew_and_made_whole(folder, place, damage):
    ask = Asked(folder)
    ask()
    [path] = place.glob("*.npz")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "flipped":
        place_of = content.index(np.asarray(image_of(1, (6, 6))).tobytes())
        path.write_bytes(content[:place_of] + bytes([content[place_of] ^ 1]) + content[place_of + 1 :])
    elif damage in ("empty", "other"):
        path.write_bytes(b"" if damage == "empty" else b"something else")
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "lacking":
        np.savez(path, pixels=np.zeros((3, 6, 6), np.uint8))
    else:
        np.savez(
            path, pixels=np.zeros((2, 6, 6), np.uint8), kept=np.array([1, 1, 1, 0], bool), unreadable=np.array(["x"])
        )
    assert ask() == 1
    assert ask() == (1 if damage == "folder" else 0)


def test_a_cache_that_cannot_be_written_is_told_and_the_images_are_there(folder, tmp_path, monkeypatch, capfd):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    ask = Asked(folder)
    assert [ask(), ask()] == [1, 1]
    line = f"the decoded images could not be kept in {cache_folder()} (Not a directory): each start decodes them anew\n"
    assert capfd.readouterr().err == line * 2


def test_a_disk_that_is_full_leaves_no_part_of_an_entry(folder, place, monkeypatch, capfd):
    def full(file, **arrays):
        file.write(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pixel_cache.np, "savez", full)
    assert Asked(folder)() == 1
    assert [path.name for path in place.iterdir()] == ["lock"]
    assert "could not be kept in" in capfd.readouterr().err


def test_the_last_used_entries_are_kept_and_what_a_killed_process_left_is_removed(place, tmp_path):
    def ask(number):
        def give():
            return Decoded(np.full((1, 2, 2), number, np.uint8), np.array([True]), [])

        found = cached(folder, ["0.png"], number, give)
        assert (found.pixels == number).all()
        for path in place.glob("*.npz"):  # what is written or read in one tick of the clock has an order, too
            stat = path.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**9))
        return set(entries(place))

    folder = write(tmp_path / "data" / "0.png", image_of(0)).parent
    [first] = ask(1)
    [second] = ask(2) - {first}
    for number in range(3, KEPT + 1):
        ask(number)
    (place / "killed.npz.partial").touch()
    assert len(ask(1)) == KEPT
    left = ask(99)
    assert len(left) == KEPT
    assert first in left
    assert second not in left
    assert not list(place.glob("*.partial"))


def test_of_several_that_ask_at_once_one_decodes(folder, place):
    ask = Asked(folder)
    results = []

    def work():
        results.append(cached(folder, ask.names, 0, ask.decode).pixels.tobytes())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ask.times == 1
    assert len(set(results)) == 1
    assert len(results) == 4


def test_whoever_waits_for_another_process_is_told(folder, place, monkeypatch, capfd):
    ask, asked, told = Asked(folder), threading.Event(), threading.Event()
    monkeypatch.setattr(pixel_cache, "PATIENCE_S", 0.05)

    def decode_slowly():
        asked.set()
        assert told.wait(20)
        return ask.decode()

    def read_err():
        said = ""
        for _ in range(400):
            said += capfd.readouterr().err
            if said.endswith("\n"):
                break
            time.sleep(0.05)
        told.set()
        return said

    first = threading.Thread(target=cached, args=(folder, ask.names, 0, decode_slowly))
    first.start()
    assert asked.wait(20)
    second = threading.Thread(target=cached, args=(folder, ask.names, 0, ask.decode))
    second.start()
    assert read_err() == f"waiting for another process, which decodes images into {place}\n"
    first.join()
    second.join()
    assert ask.times == 1


def test_the_cache_lies_where_xdg_has_it(monkeypatch, tmp_path):
    name = "mnist-mlp-pipeline/images"
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, expected in ((str(tmp_path / "x"), tmp_path / "x" / name), ("", tmp_path / ".cache" / name)):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache_folder() == expected
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / name


def test_without_a_home_nothing_is_kept(folder, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pixel_cache.os.path, "expanduser", lambda path: path)
    ask = Asked(folder)
    assert [ask(), ask()] == [1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
