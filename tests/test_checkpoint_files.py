"""Checkpoints are on the disk before they count, and the last two are kept."""

from types import SimpleNamespace

import torch

from pipeline import checkpoints


class Steps:
    """A trainer that saves, and everything that was done to the disk in order."""

    def __init__(self, monkeypatch, is_global_zero=True):
        self.done, self.is_global_zero = [], is_global_zero
        monkeypatch.setattr(checkpoints, "sync_to_disk", self.synced)

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
        ("save", "epoch-0007.partial"),
        ("sync", "epoch-0007.partial", []),
        ("sync", "checkpoints", []),
    ]
    assert [each.name for each in folder.iterdir()] == ["epoch-0007.ckpt"]
    checkpoints.write_whole(trainer, path)  # over one that is there
    assert [each.name for each in folder.iterdir()] == ["epoch-0007.ckpt"]


def test_the_folder_is_synced_after_the_new_name_is_in_it(tmp_path, monkeypatch):
    seen = {}
    trainer = Steps(monkeypatch)
    monkeypatch.setattr(
        checkpoints, "sync_to_disk", lambda path: seen.update({path: (tmp_path / "best.ckpt").exists()})
    )
    checkpoints.write_whole(trainer, tmp_path / "best.ckpt")
    assert seen == {tmp_path / "best.partial": False, tmp_path: True}


def test_the_last_two_by_number_are_kept_and_other_files_stay(tmp_path, monkeypatch):
    (tmp_path / "best.ckpt").write_text("")
    trainer = Steps(monkeypatch)
    for epoch in (9_998, 9_999, 10_000):
        checkpoints.save(trainer, tmp_path, epoch)
    kept = ["best.ckpt", "epoch-10000.ckpt", "epoch-9999.ckpt"]
    assert sorted(each.name for each in tmp_path.iterdir()) == kept


def test_other_ranks_only_take_part_in_saving(tmp_path, monkeypatch):
    for epoch in (1, 2, 3):
        checkpoints.save(Steps(monkeypatch), tmp_path, epoch)
    (tmp_path / "epoch-0001.ckpt").write_text("")
    other = Steps(monkeypatch, is_global_zero=False)
    assert checkpoints.save(other, tmp_path, 4) == tmp_path / "epoch-0004.ckpt"
    assert other.done == [("save", "epoch-0004.partial")]
    assert len(list(tmp_path.iterdir())) == 3


def test_the_name_tells_the_epochs_behind_it():
    assert checkpoints.epoch_of(SimpleNamespace(stem="epoch-0012")) == 12
