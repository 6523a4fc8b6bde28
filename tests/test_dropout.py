import pytest
import torch
from torch import nn

from pipeline.dropout import Dropout


def kept(p, size, seed=1):
    layer = Dropout(p)
    layer.reseed(seed)
    return layer(torch.ones(size)) > 0


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9, 1 / 3])
def test_the_rate_is_exact_to_1e_4(p):
    drawn = 40_000_000
    rate = 1 - kept(p, drawn).float().mean(dtype=torch.float64).item()
    four_sigma = 4 * (p * (1 - p) / drawn) ** 0.5
    assert abs(rate - p) < 1e-4 + four_sigma


def test_draws_are_independent_of_their_neighbours():
    mask = kept(0.2, (2000, 512)).double()
    for one, other in ((mask[:, 1:], mask[:, :-1]), (mask[1:], mask[:-1]), (mask[:, 4:], mask[:, :-4])):
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()
        assert abs(correlation) < 5e-3


def test_what_is_kept_is_scaled_so_that_the_mean_stays():
    layer = Dropout(0.2)
    values = torch.rand(64, 512) + 1
    dropped = layer(values)
    assert torch.equal(dropped[dropped != 0], (values * (1 / 0.8))[dropped != 0])


def test_the_gradient_passes_where_the_value_did():
    layer, values = Dropout(0.5), torch.ones(100, requires_grad=True)
    out = layer(values)
    out.sum().backward()
    assert torch.equal(values.grad, out.detach())


def test_the_masks_are_decided_by_the_seed_and_do_not_repeat():
    one, two = Dropout(0.5), Dropout(0.5)
    one.reseed(3)
    two.reseed(3)
    first = [one(torch.ones(7, 11)) for _ in range(40)]
    assert all(torch.equal(mask, two(torch.ones(7, 11))) for mask in first)
    assert len({tuple(mask.flatten().tolist()) for mask in first}) == 40
    assert not torch.equal(kept(0.5, 1000, seed=3), kept(0.5, 1000, seed=4))


def test_without_a_seed_of_its_own_it_follows_torchs():
    torch.manual_seed(5)
    one = Dropout(0.5)(torch.ones(100))
    torch.manual_seed(5)
    assert torch.equal(one, Dropout(0.5)(torch.ones(100)))


def test_in_evaluation_or_with_rate_zero_nothing_changes():
    values = torch.rand(3, 4)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_bfloat16_stays_bfloat16():
    assert Dropout(0.5)(torch.ones(8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_a_rate_out_of_range_is_refused(p):
    with pytest.raises(ValueError, match="at least 0, below 1"):
        Dropout(p)


def test_it_prints_like_torchs():
    assert repr(nn.Sequential(Dropout(0.2))) == "Sequential(\n  (0): Dropout(p=0.2)\n)"
