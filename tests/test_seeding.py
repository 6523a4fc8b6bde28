"""Seeds: one for every (seed, purpose, epoch, rank, layer), the same for ever, and each where it belongs."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline.data.datamodule import EpochShuffle
from pipeline.networks.dropout import Dropout
from pipeline.seeding import derive_seed
from pipeline.training.callbacks import EpochSeeds


@pytest.mark.parametrize(
    ("arguments", "seed"),
    [
        ((1, "weights"), 4_215_923_173_971_654_960),
        ((1, "order"), 3_533_121_534_741_165_115),
        ((1, "dropout"), 3_263_318_137_653_730_683),
        ((2**32 - 1, "dropout", 19, 3, 6), 16_838_293_765_679_800),
        ((1, "augment"), 627_593_852_900_304_459),
    ],
)
def test_the_seeds_of_recorded_runs_stay_what_they_were(arguments, seed):
    assert derive_seed(*arguments) == seed


def test_every_argument_makes_a_stream_of_its_own():
    purposes = ("weights", "order", "dropout", "augment")
    seeds = [derive_seed(*each) for each in itertools.product((0, 1, 2), purposes, (0, 1, 2), (0, 1, 2), (0, 1, 2))]
    assert len(set(seeds)) == 4 * 3**4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_unknown_purpose_has_no_seed():
    with pytest.raises(ValueError, match="not in tuple"):
        derive_seed(1, "noise")


@pytest.mark.parametrize("epoch", [0, 3])
def test_the_images_are_shuffled_by_the_seed_for_their_order(epoch):
    shuffle = EpochShuffle(50, seed=7)
    shuffle.set_epoch(epoch)
    generator = torch.Generator().manual_seed(derive_seed(7, "order", epoch))
    assert list(shuffle) == torch.randperm(50, generator=generator).tolist()


def masks_in(network, epoch, rank):
    """What every dropout layer, and torch's own generator, draw first in an epoch."""
    trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    EpochSeeds(5).on_train_epoch_start(trainer, SimpleNamespace(network=network))
    drawn = [layer(torch.ones(64)) for layer in network if isinstance(layer, Dropout)]
    return [*drawn, torch.rand(64)]


def test_no_two_dropout_layers_ranks_or_epochs_share_a_mask():
    network = nn.Sequential(Dropout(0.5), nn.ReLU(), Dropout(0.5), Dropout(0.5)).train()
    drawn = {}
    for epoch, rank in itertools.product((0, 1), (0, 1)):
        for index, values in enumerate(masks_in(network, epoch, rank)):
            drawn[epoch, rank, index] = tuple(values.tolist())
    assert len(set(drawn.values())) == 2 * 2 * 4
    first, _, _, torchs = masks_in(network, 1, 0)
    expected = Dropout(0.5)
    expected.reseed(derive_seed(5, "dropout", 1, 0, 1))
    assert torch.equal(first, expected(torch.ones(64)))
    torch.manual_seed(derive_seed(5, "dropout", 1, 0))
    assert torch.equal(torchs, torch.rand(64))
