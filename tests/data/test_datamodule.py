"""The data module: pixels, labels, blocks, order, hold-out and ranks, each exactly and at its edges."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.config import RunConfig
from pipeline.data import datamodule as data_modules
from pipeline.data.datamodule import DataModule, EpochShuffle, ExampleTensors, InOrder
from pipeline.data.dataset import DataError, Dataset, Split
from pipeline.data_spec import MNIST
from pipeline.seeding import derive_seed

TRAIN, TEST = 20, 10


def split_of(size, first=0):
    """Images that are all different, each with a label that its first pixel tells."""
    images = np.random.RandomState(first).randint(0, 256, (size, 28, 28)).astype(np.uint8)
    labels = ((np.arange(size) + first) % 10).astype(np.uint8)
    images[:, 0, 0] = labels
    return Split(images, labels)


@pytest.fixture
def loaded(monkeypatch):
    """The data sets that were asked for; `sizes` decides what is there."""
    asked = SimpleNamespace(calls=[], sizes=(TRAIN, TEST))

    def load(*arguments, **knobs):
        asked.calls.append((*arguments, knobs))
        parts = split_of(asked.sizes[0]), split_of(asked.sizes[1], first=3)
        return Dataset(*((part.inputs, part.labels) for part in parts), MNIST.classes).named("mine", "/data")

    monkeypatch.setattr(data_modules.datasets, "load", load)
    return asked


def module(trainer=None, **knobs):
    data = DataModule("mnist", "/data", **{"batch_size": 8, **knobs})
    data.trainer = trainer
    data.setup()
    return data


def trainer(device="cpu", rank=0, ranks=1):
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(strategy=strategy, global_rank=rank, world_size=ranks)


def pairs(images, labels):
    """Each image with its label, to be compared whatever the order."""
    return sorted((bytes(image.reshape(-1)), int(label)) for image, label in zip(images, labels, strict=True))


def pairs_of(split):
    return pairs(split.inputs, split.labels)


def pairs_in(blocks):
    return pairs(
        np.concatenate([(pixels.numpy() * 255).round().astype(np.uint8) for pixels, _ in blocks]),
        np.concatenate([labels.numpy() for _, labels in blocks]),
    )


def pairs_at(tensors):
    return pairs(tensors.inputs.numpy(), tensors.labels.numpy())


# Pixels and labels.


def test_each_of_the_256_pixel_values_is_divided_by_255_exactly():
    every = np.resize(np.arange(256, dtype=np.uint8), (2, 28, 28))
    tensors = ExampleTensors(Split(every, np.array([9, 0], np.uint8)), MNIST)
    pixels, labels = tensors.__getitems__([0, 1])
    assert (pixels.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert np.array_equal(pixels.numpy(), every.reshape(2, 1, 28, 28).astype(np.float32) / np.float32(255))
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert labels.tolist() == [9, 0]


def test_the_images_are_kept_as_bytes_and_not_divided_twice():
    tensors = ExampleTensors(split_of(3), MNIST)
    first, second = (tensors.__getitems__([2, 0]) for _ in range(2))
    assert tensors.inputs.dtype == torch.uint8
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_one_image_is_the_row_of_a_batch():
    tensors = ExampleTensors(split_of(6), MNIST)
    pixels, label = tensors[3]
    batch, labels = tensors.__getitems__([3, 5])
    assert (pixels.shape, label.shape, len(tensors)) == ((1, 28, 28), (), 6)
    assert torch.equal(pixels, batch[0])
    assert label == labels[0]
    assert pixels.max() <= 1


def test_images_that_may_not_be_written_are_copied_and_others_taken_as_they_lie():
    split = split_of(3)
    assert ExampleTensors(split, MNIST).inputs.numpy().base is not None
    assert np.shares_memory(ExampleTensors(split, MNIST).inputs.numpy(), split.inputs)
    split.inputs.flags.writeable = False
    tensors = ExampleTensors(split, MNIST)
    assert not np.shares_memory(tensors.inputs.numpy(), split.inputs)
    assert pairs_at(tensors) == pairs_of(split)


def test_images_that_lie_in_another_order_in_memory_are_the_same_rows():
    split = split_of(3)
    assert pairs_at(ExampleTensors(Split(np.asfortranarray(split.inputs), split.labels), MNIST)) == pairs_of(split)


def test_one_image_makes_a_set():
    tensors = ExampleTensors(split_of(1), MNIST)
    assert (len(tensors), tensors.inputs.shape, tensors.labels.shape) == (1, (1, 1, 28, 28), (1,))


def test_grey_and_colour_images_get_their_channels_first():
    for shape, channels in (((4, 3, 5), 1), ((4, 3, 5, 3), 3)):
        images = np.arange(np.prod(shape)).astype(np.uint8).reshape(shape)
        data = Dataset((images, [0, 1, 2, 1]), (images[:1], [0]))
        tensors = ExampleTensors(data.train, data.spec)
        pixels, labels = tensors.__getitems__([2, 0])
        assert tensors.inputs.is_contiguous()
        assert data.spec.shape == pixels.shape[1:] == tensors[0][0].shape == (channels, 3, 5)
        for channel in range(channels):
            plane = images[2] if channels == 1 else images[2, :, :, channel]
            assert np.array_equal(pixels[0, channel].numpy(), plane.astype(np.float32) / np.float32(255))
        assert labels.tolist() == [2, 0]


def test_a_table_s_rows_are_scaled_by_the_training_part_s_mean_and_deviation_once():
    train = np.array([[1, 10, 7], [3, 30, 7], [5, 80, 7]], np.float32)
    test = np.array([[9, 40, 8]], np.float32)
    data = Dataset((train, [0, 1, 0]), (test, [1]), table=True)
    scaled = (train - train.mean(axis=0)) / [*train.std(axis=0)[:2], 1]
    tensors = ExampleTensors(data.train, data.spec)
    for _ in range(2):
        rows, labels = tensors.__getitems__([2, 1])
        assert rows.dtype == torch.float32
        assert np.allclose(rows.numpy(), scaled[[2, 1]], rtol=1e-6)
        assert labels.tolist() == [0, 1]
    of_test, _ = ExampleTensors(data.test, data.spec)[0]
    assert np.allclose(of_test.numpy(), [(9 - 3) / train.std(axis=0)[0], 0, 1])
    assert np.array_equal(data.train.inputs, train)


# Blocks and batches.


@pytest.mark.parametrize(("size", "sizes"), [(256, [128, 128]), (257, [128, 128, 1]), (127, [127]), (1, [1])])
def test_the_last_batch_has_what_is_left_be_it_one_image(loaded, size, sizes):
    loaded.sizes = (size, TEST)
    batches = list(module(batch_size=128).train_dataloader())
    assert [(pixels.shape, labels.shape) for pixels, labels in batches] == [((n, 1, 28, 28), (n,)) for n in sizes]
    assert pairs_in(batches) == pairs_of(split_of(size))


@pytest.mark.parametrize(
    ("size", "sizes"), [(2000, [2000]), (2001, [2000, 1]), (1999, [1999]), (1, [1]), (4000, [2000, 2000])]
)
def test_evaluation_goes_through_all_images_in_file_order_2000_at_a_time(loaded, size, sizes):
    loaded.sizes = (TRAIN, size)
    data = module()
    for loader in (data.val_dataloader(), data.test_dataloader()):
        batches = list(loader)
        assert [len(labels) for _, labels in batches] == sizes
        expected = split_of(size, first=3)
        pixels = torch.cat([pixels for pixels, _ in batches]).numpy()
        assert np.array_equal(pixels, expected.inputs[:, None].astype(np.float32) / 255)
        assert np.array_equal(torch.cat([labels for _, labels in batches]), expected.labels)


@pytest.mark.parametrize(
    ("shape", "table", "at_once"),
    [
        ((28, 28), False, 2000),
        ((56, 56), False, 500),
        ((64, 64, 3), False, 127),
        ((800, 800, 3), False, 1),
        ((4,), True, 2000),
    ],
)
def test_evaluation_takes_so_many_examples_at_a_time_as_2000_of_mnist_s_are_numbers(monkeypatch, shape, table, at_once):
    grey = np.full((2001 if at_once == 2000 else at_once + 1, *shape), 128, np.uint8)
    data = Dataset((grey[:2], [0, 1]), (grey, np.zeros(len(grey), int)), ["a", "b"], table=table)
    monkeypatch.setattr(data_modules.datasets, "load", lambda *arguments: data)
    assert [len(labels) for _, labels in module().test_dataloader()] == [at_once, 1]


# Order.


def epoch_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return torch.cat([pixels for pixels, _ in loader])


def test_an_epoch_visits_every_training_image_once_with_its_own_label(loaded):
    assert pairs_in(list(module().train_dataloader())) == pairs_of(split_of(TRAIN))


def test_the_order_is_decided_by_seed_and_epoch_not_by_history(loaded):
    def order(epoch, seed=1, before=()):
        loader = module(seed=seed).train_dataloader()
        for earlier in before:
            epoch_of(loader, earlier)
        return epoch_of(loader, epoch)

    assert torch.equal(order(3, before=(0, 1, 2)), order(3))
    assert not torch.equal(order(3), order(4))
    assert not torch.equal(order(3), order(3, seed=2))


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (1, 7), (2**32 - 1, 0)])
def test_the_order_is_a_permutation_drawn_for_the_order_of_this_seed_and_epoch(seed, epoch):
    shuffle = EpochShuffle(50, seed)
    shuffle.set_epoch(epoch)
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    assert list(shuffle) == torch.randperm(50, generator=generator).tolist()


def test_the_epoch_is_read_when_the_first_index_is_asked_for():
    shuffle = EpochShuffle(50, 1)
    begun = iter(shuffle)
    shuffle.set_epoch(5)
    assert list(begun) == list(shuffle)


@pytest.mark.parametrize(("size", "ranks"), [(10, 1), (10, 2), (10, 3), (11, 4), (3, 3), (2, 3), (1, 2)])
def test_ranks_share_an_epoch_s_order_and_the_first_few_come_twice_so_that_all_have_as_many(size, ranks):
    whole = list(EpochShuffle(size, seed=4))
    shares = [EpochShuffle(size, 4, rank, ranks) for rank in range(ranks)]
    each = -(-size // ranks)
    assert [len(share) for share in shares] == [len(list(share)) for share in shares] == [each] * ranks
    dealt = [index for turn in zip(*shares, strict=True) for index in turn]
    assert dealt == whole + whole[: each * ranks - size]
    assert sorted(whole) == list(range(size))


@pytest.mark.parametrize(("size", "ranks"), [(10, 1), (10, 2), (10, 3), (11, 4), (3, 3), (2, 3), (0, 2)])
def test_evaluation_counts_every_image_once_over_all_ranks(size, ranks):
    shares = [InOrder(size, rank, ranks) for rank in range(ranks)]
    assert [list(share) for share in shares] == [list(range(rank, size, ranks)) for rank in range(ranks)]
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]
    assert sorted(index for share in shares for index in share) == list(range(size))


def test_lightning_leaves_the_samplers_as_they_are():
    for sampler in (EpochShuffle(10, 1, 1, 3), InOrder(10, 1, 3)):
        assert isinstance(sampler, torch.utils.data.DistributedSampler)
        assert (sampler.num_replicas, sampler.rank, len(sampler.dataset)) == (3, 1, 10)


def test_each_rank_gets_its_share_of_every_loader(loaded):
    data = module(trainer(rank=1, ranks=3), validation_size=5)
    for loader, size in ((data.val_dataloader(), 5), (data.test_dataloader(), TEST)):
        assert list(loader.sampler) == list(range(1, size, 3))
    assert list(data.train_dataloader().sampler) == list(EpochShuffle(15, 1, 1, 3))
    assert list(module(seed=7).train_dataloader().sampler) == list(EpochShuffle(TRAIN, 7))


def test_the_images_lie_on_the_trainer_s_device_once_and_batches_are_made_there(loaded):
    data = module(trainer("meta"), validation_size=6)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert {loader.dataset.inputs.device.type, loader.dataset.labels.device.type} == {"meta"}
        assert {part.device.type for part in next(iter(loader))} == {"meta"}


def test_no_loader_draws_from_torch_s_global_generator(loaded):
    """What a network draws would depend on how often somebody has begun to go through the data."""
    data, before = module(validation_size=6), torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        next(iter(loader))
    assert torch.equal(torch.get_rng_state(), before)


# The hold-out.


def test_without_a_hold_out_validation_is_the_test_set(loaded):
    data = module()
    assert pairs_at(data.train_examples) == pairs_of(split_of(TRAIN))
    assert data.val_examples is data.test_examples
    assert pairs_at(data.test_examples) == pairs_of(split_of(TEST, first=3))


@pytest.mark.parametrize(("size", "which"), [(1, 0), (6, 0), (6, 3), (TRAIN - 1, 0)])
def test_the_hold_out_are_the_same_training_images_for_every_seed_in_file_order_and_the_rest_is_trained_on(
    loaded, size, which
):
    everything = split_of(TRAIN)
    held_out = np.zeros(TRAIN, bool)
    held_out[np.random.RandomState(which).permutation(TRAIN)[:size]] = True
    for seed in (1, 2):
        data = module(validation_size=size, seed=seed, **({"validation_seed": which} if which else {}))
        for tensors, rows in ((data.val_examples, held_out), (data.train_examples, ~held_out)):
            assert np.array_equal(tensors.inputs.numpy(), everything.inputs[rows][:, None])
            assert np.array_equal(tensors.labels.numpy(), everything.labels[rows])
        assert pairs_at(data.test_examples) == pairs_of(split_of(TEST, first=3))
        assert pairs_in(list(data.val_dataloader())) == pairs_at(data.val_examples)


@pytest.mark.parametrize("size", [TRAIN, TRAIN + 1])
def test_a_hold_out_that_leaves_nothing_to_train_on_is_told(loaded, size):
    with pytest.raises(DataError) as caught:
        module(validation_size=size)
    assert str(caught.value) == f"validation_size {size} is out of range: mine has 20 training examples"


# What is loaded.


def test_what_was_asked_for_is_loaded_once(loaded):
    data = DataModule("kmnist", "/there", data_name="mine", knobs={"image_size": 8})
    assert (loaded.calls, data.source) == ([], None)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert loaded.calls == [("kmnist", "/there", "mine", {"image_size": 8})]
    assert data.source.name == "mine"


def test_left_alone_it_is_the_sample(loaded):
    data, sample = DataModule(), RunConfig()
    for name in ("dataset", "data_dir", "data_name", "batch_size", "validation_size", "validation_seed", "seed"):
        assert getattr(data, name) == getattr(sample, name)
    data.setup()
    assert loaded.calls == [("mnist", "data", "", {})]
