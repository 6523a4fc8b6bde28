"""More than one rank: gradients averaged, masks of their own, shares that are not equal, metrics over all images."""

import signal
from types import SimpleNamespace

import pytest
import torch

from pipeline import cli
from pipeline.training import building, fit
from tests import ranks


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ranks_as_threads_come_to_what_is_worked_out_by_hand(count):
    """21 images in shares of batches of 4: three or two steps, the last one smaller, an image or none seen twice."""
    weights, history = ranks.worked_out(count)
    for found, metrics in ranks.Ranks(count).train():
        assert torch.equal(found, weights)
        for epoch, expected in history.items():
            assert {name: metrics[epoch][name] for name in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("sizes", "few"),
    [
        ({"validation_size": 1}, "1 validation example"),
        ({"validation_size": 29}, "1 training example"),
        ({"test": 2}, "2 test examples"),
        ({"validation_size": 0, "test": 2}, "2 validation examples"),
        ({"validation_size": 3, "test": 3}, None),
        ({"validation_size": 27, "test": 3}, None),
    ],
)
def test_images_that_do_not_reach_for_every_process_are_refused(sizes, few):
    """`DataLoader within local rank has zero length`, a traceback of two processes, was the answer."""
    config = ranks.CONFIG.replace(validation_size=sizes.get("validation_size", 9))
    data = ranks.small_data(config, test=sizes.get("test", 5))
    data.setup()
    processes = 3 if few is None or few[0] == "2" else 2
    if few is None:
        building.check_shares(data, processes)
        return
    with pytest.raises(ValueError) as error:  # noqa: PT011
        building.check_shares(data, processes)
    assert str(error.value) == (
        f"{processes} processes cannot share {few}; take fewer devices, or another validation_size"
    )


def test_they_are_refused_before_a_run_begins(tmp_path, capsys):
    words = ["--dataset", "digits", "--devices", "2", "--strategy", "ddp", "--accelerator", "cpu"]
    assert cli.main(["train", *words, "--validation_size", "1"]) == 2
    assert capsys.readouterr().err.startswith("pipeline: 2 processes cannot share 1 validation example; ")
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("processes", [True, False])
def test_a_rank_that_fails_ends_the_others_and_raises_its_own_error(monkeypatch, processes):
    signals, others = [], ["rank 1", "rank 2"]

    def interrupted(*_, **__):
        raise KeyError("why")

    launcher = SimpleNamespace(kill=signals.append, procs=others) if processes else None
    trainer = SimpleNamespace(fit=interrupted, strategy=SimpleNamespace(launcher=launcher), world_size=1)
    monkeypatch.setattr(fit, "make_trainer", lambda *_: trainer)
    monkeypatch.setattr(fit.blocks, "by_hand", lambda *_: None)
    with pytest.raises(KeyError, match="why"):
        fit.fit(ranks.CONFIG, data=ranks.small_data())
    assert signals == ([signal.SIGTERM] if processes else [])
    assert others == ([] if processes else ["rank 1", "rank 2"])  # whose observer would end this process too
