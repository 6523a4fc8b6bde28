"""Checkpoint files: on the disk before they count, the last two kept, whole and without code or not loaded."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback

from pipeline import files
from pipeline.config.own_code import OwnCodeError
from pipeline.training import checkpoints, fit
from tests import ranks


class Steps:
    """A trainer that saves, and everything that was done to the disk in order."""

    def __init__(self, monkeypatch, is_global_zero=True):
        self.done, self.is_global_zero = [], is_global_zero
        monkeypatch.setattr("pipeline.files.sync_to_disk", self.synced)

    def synced(self, path):
        self.done.append(("sync", path.name, sorted(each.name for each in path.parent.glob("*.ckpt"))))

    def save_checkpoint(self, path):
        self.done.append(("save", path.name))
        if self.is_global_zero:
            torch.save({"weights": torch.ones(3)}, path)


def test_the_content_is_on_the_disk_before_the_name_and_then_the_name(tmp_path, monkeypatch):
    folder = tmp_path / "deep" / "checkpoints"
    trainer = Steps(monkeypatch)
    path = checkpoints.save(trainer, folder, 7)
    assert path == folder / "epoch-0007.ckpt"
    assert trainer.done == [
        ("save", "epoch-0007.ckpt.partial"),
        ("sync", "epoch-0007.ckpt.partial", []),
        ("sync", "checkpoints", []),
    ]
    assert [each.name for each in folder.iterdir()] == ["epoch-0007.ckpt"]
    checkpoints.write_whole(trainer, path)  # over one that is there
    assert [each.name for each in folder.iterdir()] == ["epoch-0007.ckpt"]


def test_the_folder_is_synced_after_the_new_name_is_in_it(tmp_path, monkeypatch):
    seen = {}
    trainer = Steps(monkeypatch)
    monkeypatch.setattr(
        "pipeline.files.sync_to_disk", lambda path: seen.update({path: (tmp_path / "best.ckpt").exists()})
    )
    checkpoints.write_whole(trainer, tmp_path / "best.ckpt")
    assert seen == {tmp_path / "best.ckpt.partial": False, tmp_path: True}


def test_the_last_two_by_number_are_kept_and_other_files_stay(tmp_path, monkeypatch):
    (tmp_path / "best.ckpt").write_text("")
    trainer = Steps(monkeypatch)
    for epoch in (9_998, 9_999, 10_000):
        checkpoints.save(trainer, tmp_path, epoch)
    kept = ["best.ckpt", "epoch-10000.ckpt", "epoch-9999.ckpt"]
    assert sorted(each.name for each in tmp_path.glob("*.ckpt")) == kept


def test_other_ranks_only_take_part_in_saving(tmp_path, monkeypatch):
    for epoch in (1, 2, 3):
        checkpoints.save(Steps(monkeypatch), tmp_path, epoch)
    (tmp_path / "epoch-0001.ckpt").write_text("")
    other = Steps(monkeypatch, is_global_zero=False)
    assert checkpoints.save(other, tmp_path, 4) == tmp_path / "epoch-0004.ckpt"
    assert other.done == [("save", "epoch-0004.ckpt.partial")]
    assert len(list(tmp_path.iterdir())) == 3


def test_the_name_tells_the_epochs_behind_it():
    assert files.epoch_of(SimpleNamespace(stem="epoch-0012")) == 12


class Refusing(Steps):
    """A trainer whose disk is full when half of the file is written."""

    def __init__(self, monkeypatch, **knobs):
        super().__init__(monkeypatch, **knobs)
        self.strategy = SimpleNamespace(barrier=lambda name: self.done.append(("barrier", name)))

    def save_checkpoint(self, path):
        path.write_bytes(b"PK half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_write_that_was_taken_only_in_part_leaves_the_checkpoints_as_they_were(tmp_path, monkeypatch):
    for epoch in (1, 2):
        checkpoints.save(Steps(monkeypatch), tmp_path, epoch)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    trainer = Refusing(monkeypatch)
    for epoch in (2, 3):  # also over one that is there
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(trainer, tmp_path, epoch)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".ckpt"}
    assert after == before
    # Lightning's own name for it: under another, the ranks that wait in it and this one would not meet.
    assert trainer.done == [("barrier", "Trainer.save_checkpoint")] * 2
    checkpoints.save(Steps(monkeypatch), tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch-0002.ckpt",
        "epoch-0002.ckpt.partial",
        "epoch-0003.ckpt",
    ]


def test_the_bytes_of_the_file_and_then_its_name_are_synced_by_the_system(tmp_path, monkeypatch):
    synced, replaced = [], []
    replace = Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_ino, len(replaced))))
    monkeypatch.setattr(Path, "replace", lambda path, to: replaced.append(to) or replace(path, to))
    trainer = SimpleNamespace(
        is_global_zero=True, save_checkpoint=lambda path: torch.save({"weights": torch.ones(3)}, path)
    )
    path = checkpoints.save(trainer, tmp_path, 1)
    assert synced == [(path.stat().st_ino, 0), (tmp_path.stat().st_ino, 1)]
    assert replaced == [path]


def test_four_digits_number_a_checkpoint_and_more_where_needed():
    assert [checkpoints.path_of(Path("x"), n) for n in (1, 12345)] == [
        Path("x/epoch-0001.ckpt"),
        Path("x/epoch-12345.ckpt"),
    ]


CONTENT = {"state_dict": {}, "optimizer_states": [], "callbacks": {}, "loops": {}, "epoch": 0, "global_step": 1}


def test_a_checkpoint_may_hold_more_than_is_needed_and_not_less(tmp_path):
    path = tmp_path / "epoch-0001.ckpt"
    for content in (CONTENT, {**CONTENT, "pytorch-lightning_version": "2.6.6"}):
        torch.save(content, path)
        assert checkpoints.load(path) == content
    for name in CONTENT:
        torch.save({key: value for key, value in CONTENT.items() if key != name} | {"more": 1}, path)
        assert checkpoints.load(path) is None, name


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("went off"),)


def test_an_object_of_code_in_a_checkpoint_is_neither_run_nor_loaded(tmp_path):
    path = tmp_path / "epoch-0001.ckpt"
    torch.save({**CONTENT, "callbacks": {"more": Bomb()}}, path)
    assert checkpoints.load(path) is None
    assert checkpoints.latest(tmp_path) == (None, [path])
    assert not Path("went off").exists()


def test_a_checkpoint_of_a_gpu_is_loaded_where_there_is_none(tmp_path, monkeypatch):
    path, asked = tmp_path / "epoch-0001.ckpt", []
    torch.save(CONTENT, path)
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *given, **how: asked.append(how) or load(*given, **how))
    checkpoints.load(path)
    assert asked == [{"map_location": "cpu", "weights_only": True}]


def test_the_best_weights_are_those_of_the_epoch_that_was_asked_for_or_none(tmp_path):
    def write(name, epoch, weight):
        torch.save({**CONTENT, "epoch": epoch - 1, "state_dict": {"weight": weight}}, tmp_path / name)

    write("best.ckpt", 3, 3.5)
    write("epoch-0004.ckpt", 4, 4.0)
    write("epoch-0005.ckpt", 4, 9.0)  # whatever its name says
    assert [checkpoints.find_best(tmp_path, epoch) for epoch in (2, 3, 4, 5)] == [
        None,
        {"weight": 3.5},
        {"weight": 4.0},
        None,
    ]
    assert checkpoints.best_weights(tmp_path, 3) == {"weight": 3.5}
    with pytest.raises(checkpoints.BestIsLostError) as error:
        checkpoints.best_weights(tmp_path, 2)
    assert str(error.value) == (
        "the weights of the best epoch, 2, could not be kept or are damaged; "
        "resume the run: it trains again from the first epoch, to the same numbers"
    )


def test_the_newest_whole_one_by_number_is_taken_and_the_damaged_ones_before_it_named(tmp_path):
    names = ["epoch-9999.ckpt", "epoch-10000.ckpt", "epoch-10001.ckpt", "epoch-0009.ckpt"]
    for name in names:
        torch.save(CONTENT, tmp_path / name)
    for name in ("epoch-99999.partial", "epoch-last.ckpt", "epoch-12000.ckpt.ckpt", "epoch-1 2.ckpt", "best.ckpt"):
        (tmp_path / name).write_bytes(b"")
    paths = [tmp_path / name for name in names]
    assert checkpoints.latest(tmp_path) == (paths[2], [])
    paths[2].write_bytes(paths[2].read_bytes()[:-30])
    assert checkpoints.latest(tmp_path) == (paths[1], [paths[2]])
    whole = paths[1].read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"optimizer_states") + 3] ^= 1  # torch reads it as another key, the archive's checksum tells
    paths[1].write_bytes(flipped)
    assert checkpoints.latest(tmp_path) == (paths[0], [paths[2], paths[1]])
    assert checkpoints.latest(tmp_path / "nowhere") == (None, [])


class Later(Callback):
    """Has a state that nobody could know of before the training: what it is given, from the second epoch on."""

    def __init__(self, content, by_hook=False):
        self.content, self.by_hook, self.epochs, self.loaded = content, by_hook, 0, None

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs += 1

    def state_dict(self):
        return {} if self.by_hook or self.epochs < 2 else {"content": self.content}

    def load_state_dict(self, state_dict):
        self.loaded = state_dict

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if self.by_hook:
            checkpoint["mine"] = self.content


def trained(folder, callback, **more):
    config = ranks.CONFIG.replace(epochs=3)
    return fit.fit(config, data=ranks.small_data(config), folder=folder, callbacks=[callback], **more)


@pytest.mark.parametrize(
    ("by_hook", "kept", "words"),
    [
        (
            False,
            ["epoch-0001.ckpt"],
            r"callback \S*test_checkpoint_files:Later \(test_checkpoint_files.py:\d+\): its state",
        ),
        (True, [], "its mine"),
    ],
)
def test_a_checkpoint_that_could_not_be_loaded_again_ends_the_training_and_the_last_one_stays(
    tmp_path, by_hook, kept, words
):
    with pytest.raises(OwnCodeError, match=rf"{words} holds pathlib\.\w*PosixPath; expected tensors, NumPy arrays and"):
        trained(tmp_path, Later(Path("here"), by_hook))
    assert sorted(each.name for each in tmp_path.glob("*.ckpt")) == kept


def test_numbers_and_arrays_of_numpy_come_back_with_a_resumption(tmp_path):
    trained(tmp_path, Later([np.float64(0.5), np.arange(3)]))
    checkpoints.path_of(tmp_path, 3).unlink()
    last, damaged = checkpoints.latest(tmp_path)
    assert (last, damaged) == (checkpoints.path_of(tmp_path, 2), [])
    resumed = Later([])
    trained(tmp_path, resumed, resume_from=last)
    number, array = resumed.loaded["content"]
    assert (number, array.tolist()) == (0.5, [0, 1, 2])
