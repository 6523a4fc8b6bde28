from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.data import MNISTDataModule
from pipeline.datasets import DataError
from tests.conftest import FILES, write_four_files


@pytest.fixture
def arrays(tmp_path):
    return write_four_files(tmp_path, train=20, test=10)


def module(tmp_path, **knobs):
    data = MNISTDataModule("mnist", str(tmp_path), **{"batch_size": 8, "data_name": "mine", **knobs})
    data.prepare_data()
    data.setup()
    return data


def epoch_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_training_blocks_are_float32_rows_of_whole_batches_and_the_last_is_smaller(tmp_path, arrays, monkeypatch):
    monkeypatch.setattr("pipeline.data.BLOCK", 10)
    for batch_size, sizes in ((4, (8, 8, 4)), (3, (9, 9, 2)), (16, (16, 4))):
        blocks = list(module(tmp_path, batch_size=batch_size).train_dataloader())
        assert [(pixels.shape, labels.shape) for pixels, labels in blocks] == [((n, 784), (n,)) for n in sizes]
        assert {(pixels.dtype, labels.dtype) for pixels, labels in blocks} == {(torch.float32, torch.int64)}


def test_a_pixel_is_its_byte_divided_by_255_exactly(tmp_path, arrays):
    pixels, labels = next(iter(module(tmp_path).test_dataloader()))
    expected = arrays[FILES[2]].reshape(10, 784).astype(np.float32) / 255
    assert np.array_equal(pixels.numpy(), expected)
    assert np.array_equal(labels.numpy(), arrays[FILES[3]])


def test_an_epoch_visits_every_training_image_once(tmp_path, arrays):
    seen = torch.cat([pixels for pixels, _ in module(tmp_path).train_dataloader()]).numpy()
    expected = arrays[FILES[0]].reshape(20, 784).astype(np.float32) / 255
    assert np.array_equal(np.sort(seen.sum(axis=1)), np.sort(expected.sum(axis=1)))


def test_the_order_is_decided_by_seed_and_epoch_not_by_history(tmp_path, arrays):
    def order(epoch, seed=1, before=()):
        loader = module(tmp_path, seed=seed).train_dataloader()
        for earlier in before:
            epoch_of(loader, earlier)
        return torch.cat([labels for _, labels in epoch_of(loader, epoch)]).tolist()

    assert order(3, before=(0, 1, 2)) == order(3)
    assert order(3) != order(4)
    assert order(3) != order(3, seed=2)


def test_the_images_lie_on_the_trainer_s_device_once_and_batches_are_made_there(tmp_path, arrays):
    data = MNISTDataModule("mnist", str(tmp_path), batch_size=8, validation_size=6, data_name="mine")
    data.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("meta")), global_rank=0, world_size=1
    )
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert loader.dataset.images.device.type == "meta"
        assert {part.device.type for part in next(iter(loader))} == {"meta"}


def test_without_a_hold_out_validation_is_the_test_set(tmp_path, arrays):
    data = module(tmp_path)
    assert len(data.train_dataloader().dataset) == 20
    assert len(data.val_dataloader().dataset) == 10


def test_the_hold_out_is_the_same_for_every_seed_and_is_not_trained_on(tmp_path, arrays):
    one, two = module(tmp_path, validation_size=6, seed=1), module(tmp_path, validation_size=6, seed=2)
    assert torch.equal(one.val_images.images, two.val_images.images)
    assert (len(one.train_images), len(one.val_images), len(one.test_images)) == (14, 6, 10)
    together = torch.cat([one.train_images.images, one.val_images.images]).numpy()
    everything = arrays[FILES[0]].reshape(20, 784)
    assert sorted(map(bytes, together)) == sorted(map(bytes, everything))


def test_a_hold_out_that_leaves_nothing_to_train_on_is_told(tmp_path, arrays):
    with pytest.raises(DataError, match="validation_size 20 is out of range: mine has 20 training images"):
        module(tmp_path, validation_size=20)


def test_one_image_is_the_row_of_a_batch(tmp_path, arrays):
    images = module(tmp_path).test_images
    pixels, label = images[3]
    batch, labels = images.__getitems__([3, 5])
    assert torch.equal(pixels, batch[0])
    assert label == labels[0]
