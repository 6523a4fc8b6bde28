import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.networks.dropout import Dropout


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


def expected_masks(p, seed, shape, steps, ahead):
    """Masks from SFC64's bits as the class describes them: 16 bits a value, `ahead` steps at a time, the last first."""
    bits, size, masks = np.random.SFC64(seed), int(np.prod(shape)), []
    while len(masks) < steps:
        levels = bits.random_raw(math.ceil(ahead * size / 4)).view(np.int16)[: ahead * size].astype(np.int64) + 32768
        drawn = np.where(levels >= round(p * 65536), np.float32(1 / (1 - p)), np.float32(0))
        masks += list(drawn.reshape(ahead, *shape)[::-1])
    return torch.from_numpy(np.stack(masks[:steps]))


@pytest.mark.parametrize(
    ("limit", "shape", "ahead"),
    [(1 << 19, (3, 5), 8), (1 << 19, (1,), 8), (64, (3, 5), 4), (15, (3, 5), 1), (14, (3, 5), 1), (60, (0, 5), 8)],
)
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_the_masks_of_recorded_runs_stay_what_they_were(monkeypatch, p, limit, shape, ahead):
    monkeypatch.setattr("pipeline.networks.dropout.MASKS_AHEAD", limit)
    layer = Dropout(p)
    layer.reseed(9)
    drawn = torch.stack([layer(torch.ones(shape)) for _ in range(12)])
    assert torch.equal(drawn, expected_masks(p, 9, shape, 12, ahead))


def test_another_shape_or_type_gets_masks_of_its_own():
    layer = Dropout(0.5)
    for values in (torch.ones(7, 11), torch.ones(96), torch.ones(96, dtype=torch.float64), torch.ones(7, 11)):
        out = layer(values)
        assert (out.shape, out.dtype) == (values.shape, values.dtype)


def test_a_new_seed_begins_its_sequence_at_once():
    layer = Dropout(0.5)
    layer.reseed(1)
    layer(torch.ones(50))
    layer.reseed(2)
    assert torch.equal(layer(torch.ones(50)) > 0, kept(0.5, 50, seed=2))


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_in_place_it_drops_what_forward_drops(p):
    one, two, values = Dropout(p), Dropout(p), torch.rand(6, 7)
    one.reseed(4)
    two.reseed(4)
    dropped = values.clone()
    assert one.drop_(dropped) is dropped
    assert torch.equal(dropped, two(values))


def test_on_other_devices_torch_drops(monkeypatch):
    values, asked = torch.ones(3, device="meta"), []
    monkeypatch.setattr("pipeline.networks.dropout.F.dropout", lambda *arguments: asked.append(arguments) or values)
    assert Dropout(0.3)(values) is values
    ((given, p),) = asked
    assert given is values
    assert p == 0.3


def test_the_default_rate_is_torchs():
    assert Dropout().p == nn.Dropout().p


def test_the_seed_taken_from_torch_has_62_bits(monkeypatch):
    limits = []
    monkeypatch.setattr(
        "pipeline.networks.dropout.torch.randint", lambda limit, size: limits.append((limit, size)) or 5
    )
    assert torch.equal(Dropout(0.5)(torch.ones(50)) > 0, kept(0.5, 50, seed=5))
    assert limits == [(1 << 62, ())]
