"""The factors of the learning rate: the shipped schedules' own, and what a user's may give."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from pipeline.config.own_code import OwnCodeError
from pipeline.optim.schedules import cosine, factor_of, step

OWN = "tests.own_training_code"


def test_a_constant_rate_has_no_schedule():
    assert factor_of("constant", 5) is None


def test_cosine_goes_from_one_towards_zero_by_half_a_cosine():
    factors = [cosine(epoch, 8) for epoch in range(8)]
    assert factors == pytest.approx([math.cos(math.pi * epoch / 16) ** 2 for epoch in range(8)])
    assert factors[0] == 1.0
    assert factors[4] == 0.5
    assert factors == sorted(factors, reverse=True)
    assert min(factors) > 0
    assert cosine(0, 1) == 1.0


@pytest.mark.parametrize(
    ("epochs", "factors"),
    [(1, [1]), (2, [1, 0.1]), (3, [1, 0.1, 0.01]), (7, [1, 1, 1, 0.1, 0.1, 0.01, 0.01])],
)
def test_step_is_a_tenth_after_each_third(epochs, factors):
    assert [step(epoch, epochs) for epoch in range(epochs)] == factors


@pytest.mark.parametrize("name", ["cosine", "step", f"{OWN}:listed"])
def test_the_rate_of_an_epoch_is_the_first_one_times_its_factor(name):
    """torch asks once more as the last epoch ends, for which a list has nothing."""
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.5)
    factor, rates = factor_of(name, 4), []
    scheduler = LambdaLR(optimizer, factor)
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == [0.5 * factor(epoch) for epoch in range(4)]
    assert optimizer.param_groups[0]["lr"] == rates[-1]


def test_the_users_own_is_called_with_the_epoch_and_their_number():
    factor = factor_of(f"{OWN}:warm_up", 4)
    assert [factor(epoch) for epoch in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("name", "epoch", "words"), [("negative", 0, "-1.0 for epoch 0 of 3"), ("late_words", 1, "'much' for epoch 1 of 3")]
)
def test_what_is_no_factor_is_told_in_one_line(name, epoch, words):
    factor = factor_of(f"{OWN}:{name}", 3)
    with pytest.raises(OwnCodeError) as error:
        factor(epoch)
    expected = f"{OWN}:{name} gave {words}, expected a factor of learning_rate, a finite number of at least 0"
    assert str(error.value) == expected


@pytest.mark.parametrize("given", [math.nan, math.inf, None, torch.ones(2)])
def test_no_number_and_no_finite_one_is_a_factor(monkeypatch, given):
    monkeypatch.setattr(f"{OWN}.warm_up", lambda epoch, epochs: given)
    with pytest.raises(OwnCodeError, match="expected a factor of learning_rate"):
        factor_of(f"{OWN}:warm_up", 3)(0)


@pytest.mark.parametrize("given", [torch.tensor(0.5), torch.tensor([0.5]), 0, True])
def test_a_tensor_of_one_number_is_one(monkeypatch, given):
    monkeypatch.setattr(f"{OWN}.warm_up", lambda epoch, epochs: given)
    assert factor_of(f"{OWN}:warm_up", 3)(0) == float(given)
