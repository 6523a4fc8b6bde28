"""Checkpoints: whole means that torch has loaded it, and the best epoch is given or its loss is said."""

import random
import zipfile

import pytest
import torch

from pipeline.config import RunConfig
from pipeline.training import callbacks, checkpoints, fit, history
from tests.fuzz_runs import same

CONFIG = RunConfig(dataset="digits", hidden_units=2, epochs=4, accelerator="cpu", validation_size=100, keep_best=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the checkpoints of a training, and its result."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, fit.fit(CONFIG, folder=folder)


def copy_of(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_whatever_bit_is_damaged_the_checkpoint_before_is_taken_or_the_same_content_is_loaded(trained, tmp_path):
    folder = copy_of(trained[0], tmp_path)
    path, chance = folder / "epoch-0004.ckpt", random.Random(3)
    original, content = path.read_bytes(), checkpoints.load(path)
    directory = original.rindex(b"PK\x01\x02", 0, original.rindex(b"PK\x05\x06"))
    for number in range(150):
        damaged = bytearray(original)
        at = chance.randrange(directory if number % 2 else 0, len(damaged))
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        newest, passed_over = checkpoints.latest(folder)
        if newest == path:
            assert same(checkpoints.load(path), content), at
        else:
            assert (newest.name, passed_over) == ("epoch-0003.ckpt", [path])


def test_a_whole_archive_without_the_needed_parts_is_no_checkpoint(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "epoch-0002.ckpt")
    with zipfile.ZipFile(tmp_path / "epoch-0001.ckpt", "w") as archive:
        archive.writestr("readme", "hello")
    (tmp_path / "epoch-last.ckpt").write_bytes(b"")
    (tmp_path / "epoch-0003.ckpt").mkdir()
    assert checkpoints.latest(tmp_path) == (None, [tmp_path / f"epoch-000{n}.ckpt" for n in (3, 2, 1)])


def full_once(monkeypatch, epochs):
    """Let the disk be full while the best weights of these epochs are written."""
    real = checkpoints.write_whole

    def write_whole(trainer, path):
        if trainer.current_epoch + 1 in epochs and path.name in (checkpoints.BEST, *full):
            raise OSError(28, "No space left on device")
        real(trainer, path)

    full = [f"epoch-{epoch:04d}.ckpt" for epoch in epochs]
    monkeypatch.setattr(checkpoints, "write_whole", write_whole)


def test_a_disk_that_is_full_at_the_best_epoch_fails_the_run_instead_of_giving_other_weights(
    tmp_path, monkeypatch, capsys
):
    for module in (fit, callbacks, history):
        monkeypatch.setattr(
            module, "best_epoch", lambda history: min(2, max(history, default=0))
        )  # epoch 2 is the best
    full_once(monkeypatch, {2})
    with pytest.raises(checkpoints.BestIsLostError, match=r"the weights of the best epoch, 2, could not be kept"):
        fit.fit(CONFIG, folder=tmp_path)
    assert "warning: the weights of epoch 2, the best so far, are not kept" in capsys.readouterr().err
    assert not history.best_is_kept(checkpoints.latest(tmp_path)[0])


@pytest.mark.parametrize("best", [3, 4])
def test_a_damaged_best_checkpoint_is_replaced_by_its_epochs_own_while_that_is_kept(trained, tmp_path, best):
    folder = copy_of(trained[0], tmp_path)
    own = checkpoints.path_of(folder, best)
    expected = checkpoints.load(own)["state_dict"]
    for content in (b"PK", checkpoints.path_of(folder, 7 - best).read_bytes()):  # damaged, or another epoch's
        (folder / checkpoints.BEST).write_bytes(content)
        found = checkpoints.best_weights(folder, best)
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    own.unlink()
    assert checkpoints.find_best(folder, best) is None


def test_the_best_checkpoint_holds_the_weights_of_the_epoch_of_the_lowest_val_loss(trained):
    folder, result = trained
    best = history.best_epoch(result.history)
    assert checkpoints.load(folder / checkpoints.BEST)["epoch"] + 1 == best
    kept = checkpoints.best_weights(folder, best)
    assert all(torch.equal(value, kept[name]) for name, value in result.classifier.state_dict().items())
