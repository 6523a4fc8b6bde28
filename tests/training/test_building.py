import pytest
import torch

from pipeline import cli
from pipeline.config import IN_MNISTS_FORMAT, KNOBS, RunConfig, signatures
from pipeline.config.own_code import OwnCodeError
from pipeline.config.roles import names_of
from pipeline.data import downloads, known_data
from pipeline.data_spec import MNIST
from pipeline.optim import schedules
from pipeline.optim.optimizers import make_optimizer
from pipeline.training import augmentation, building, metrics


def test_what_a_knob_names_is_what_is_shipped():
    """The config knows the names without torch; what they name stands in the rooms."""
    assert names_of(KNOBS["network"]).shipped == tuple(signatures.NETWORKS) == tuple(building.NETWORKS)
    assert names_of(KNOBS["schedule"]).shipped == ("constant", *schedules.SHIPPED)
    assert names_of(KNOBS["augment"]).shipped == ("", *augmentation.SHIPPED)
    assert names_of(KNOBS["metric"]).shipped == ("", *metrics.SHIPPED)
    assert tuple(downloads.TORCHVISION_CLASSES) == tuple(known_data.MD5) == IN_MNISTS_FORMAT
    for name in names_of(KNOBS["optimizer"]).shipped:
        assert make_optimizer(name, [torch.zeros(1, requires_grad=True)], learning_rate=0.1, momentum=0.9)


def test_the_sample_needs_no_memory_to_be_looked_at_and_fits(monkeypatch):
    building.check_size(RunConfig(), MNIST, 60_000)
    assert all(each.is_meta for each in building._on_paper(RunConfig(), MNIST).parameters())
    monkeypatch.setattr(building, "memory_here", lambda: 4 * 6 * 669_706 + 4 * 3 * 128 * 1034)
    building.check_size(RunConfig(), MNIST, 60_000)
    monkeypatch.setattr(building, "memory_here", lambda: 4 * 6 * 669_706 + 4 * 3 * 128 * 1034 - 1)
    with pytest.raises(ValueError, match=r"669,706 weights in batches of 128 needs about 0\.0 GB of memory, here are"):
        building.check_size(RunConfig(), MNIST, 60_000)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"hidden_units": 10**9}, "training 1,000,000,796,000,000,010 weights in batches of 128 needs about 24,000"),
        ({"hidden_units": 10**15}, "more weights than can be counted"),
        ({"hidden_units": 30_000}, "take 3.7 GB, an ONNX file holds 2 GB"),
        ({"batch_size": 10**12, "hidden_units": 10**5, "hidden_layers": 1}, "in batches of 60,000 needs about 73.9 GB"),
    ],
)
def test_what_does_not_fit_is_told_with_what_it_needs(monkeypatch, knobs, words):
    monkeypatch.setattr(building, "memory_here", lambda: 64 * 10**9)
    with pytest.raises(ValueError, match=words):
        building.check_size(RunConfig(**knobs), MNIST, 60_000)


def test_a_network_that_does_not_fit_leaves_nothing_behind(tmp_path, capsys):
    knobs = ["--dataset", "digits", "--hidden_units", "1000000000"]
    assert cli.main(["train", *knobs]) == 2
    assert capsys.readouterr().err.startswith(
        "pipeline: hidden_units 1000000000, hidden_layers 2, dropout 0.2, batch_size 128: "
    )
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [("sgd", 1), ("nesterov", 1), ("rmsprop", 1), ("adam", 2), ("adamw", 2), ("tests.own_training_code:nadam", 2)],
)
def test_the_memory_that_an_optimizer_takes_beside_the_weights_is_counted(monkeypatch, optimizer, copies):
    config = RunConfig(optimizer=optimizer, momentum=0.5)
    needed = 4 * (5 + copies) * 669_706 + 4 * 3 * 128 * 1034
    monkeypatch.setattr(building, "memory_here", lambda: needed)
    building.check_size(config, MNIST, 60_000)
    monkeypatch.setattr(building, "memory_here", lambda: needed - 1)
    with pytest.raises(ValueError, match="669,706 weights"):
        building.check_size(config, MNIST, 60_000)


def test_a_network_with_lazy_layers_is_told_before_anything_is_made():
    config = RunConfig(network="tests.own_training_code:lazy")
    with pytest.raises(OwnCodeError, match=r"own_training_code:lazy has lazy layers, .*; size them by the spec"):
        building.make_network(config, MNIST)


def test_a_network_that_cannot_be_had_on_paper_is_built_and_leaves_the_random_numbers_as_they_are(monkeypatch):
    config = RunConfig(network="tests.own_training_code:StochasticDepth")
    before = torch.get_rng_state()
    building.check_size(config, MNIST, 60_000)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(each.is_meta for each in building._on_paper(config, MNIST).parameters())
    monkeypatch.setattr(building, "memory_here", lambda: 0)
    with pytest.raises(ValueError, match=r"^depth 3, batch_size 128: training 7,850 weights in batches of 128"):
        building.check_size(config, MNIST, 60_000)


def test_what_a_network_raises_itself_is_raised_without_a_word_of_the_paper():
    config = RunConfig(network="tests.own_training_code:StochasticDepth", depth=4)
    with pytest.raises(ValueError, match=r"^4 blocks are too many$") as caught:
        building.check_size(config, MNIST, 60_000)
    assert caught.value.__context__ is None


def test_what_is_warned_of_on_paper_is_not_told():
    building.check_size(RunConfig(network="tests.own_training_code:Warns"), MNIST, 60_000)
