"""Two real processes that speak gloo: what they come to is what was worked out in one."""

import subprocess
import sys

import pytest
import torch

from tests import ranks
from tests.conftest import DELIVERED_WITHIN_S, ROOT, environment

NAMES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Two gloo processes, once; what each has come to."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.ranks", folder]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=DELIVERED_WITHIN_S
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_come_to_what_is_worked_out_by_hand(two_processes):
    weights, history = ranks.worked_out(2)
    for found in two_processes:
        assert torch.allclose(found["weights"], weights, rtol=0, atol=1e-6)
        for epoch, expected in history.items():
            assert {name: found["history"][epoch][name] for name in NAMES} == pytest.approx(expected, rel=1e-5)


def test_both_processes_have_the_same_weights_and_metrics_to_the_last_bit(two_processes):
    one, other = two_processes
    assert torch.equal(one["weights"], other["weights"])
    assert one["test"] == other["test"]
    for epoch in (1, 2):
        assert [one["history"][epoch][name] for name in NAMES] == [other["history"][epoch][name] for name in NAMES]


def test_a_metric_is_over_the_examples_of_both_processes(two_processes):
    """Of 9 to validate and 5 to test one process has one more: a mean of both would be another number."""
    for found in two_processes:
        for metrics in found["history"].values():
            for stage in ("train", "val"):
                assert metrics[f"{stage}_share"] == pytest.approx(metrics[f"{stage}_accuracy"], rel=1e-6)
        assert found["test"]["test_share"] == pytest.approx(found["test"]["test_accuracy"], rel=1e-6)
