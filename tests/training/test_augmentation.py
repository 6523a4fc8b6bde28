"""How training examples are changed: `shift` by itself, and what a function of the user's own may give."""

import pytest
import torch

from examples import extras
from pipeline.config.own_code import OwnCodeError
from pipeline.data_spec import MNIST, DataSpec
from pipeline.training.augmentation import Augmentation, make_augmentation, shift

OWN = "tests.own_training_code"
TABLE = DataSpec("table", (5,), ("no", "yes"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(200, 1, 9, 7), (200, 3, 6, 6)])
def test_a_shifted_image_is_the_image_elsewhere_by_up_to_two_pixels_with_zeros_around(shape):
    images = torch.rand(shape, generator=seeded()) + 1
    moved = shift(images, seeded(3))
    assert (moved.shape, moved.dtype, moved.is_contiguous()) == (images.shape, images.dtype, True)
    _, _, height, width = shape
    found = set()
    for before, after in zip(images, moved, strict=True):
        rows, columns = (each.nonzero().flatten() for each in (after[0].any(dim=1), after[0].any(dim=0)))
        down = int(rows[0]) or int(rows[-1]) + 1 - height
        right = int(columns[0]) or int(columns[-1]) + 1 - width
        kept = before[:, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
        expected = torch.zeros_like(before)
        expected[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = kept
        assert torch.equal(after, expected)
        found.add((down, right))
    assert found == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def test_the_generator_alone_decides():
    images = torch.rand(50, 1, 8, 8)
    torch.manual_seed(1)
    one = shift(images, seeded(5))
    torch.manual_seed(2)
    assert torch.equal(shift(images, seeded(5)), one)
    assert not torch.equal(shift(images, seeded(6)), one)


def test_a_seed_begins_its_own_sequence():
    augment, images = Augmentation("shift"), torch.rand(50, 1, 8, 8)
    found = []
    for seed in (4, 5, 4):
        augment.reseed(seed)
        found.append(torch.cat([augment(images), augment(images)]))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(*found[0].split(50))


def test_the_example_s_noise_is_drawn_where_the_generator_lies_and_added_where_the_inputs_do(monkeypatch):
    real, expected = torch.randn, 1 + 0.05 * torch.randn(3, 5, generator=seeded(4))

    def randn(*shape, generator, device="cpu"):
        assert torch.device(device) == generator.device  # or torch raises, where the inputs lie on a GPU
        return real(*shape, generator=generator, device=device)

    monkeypatch.setattr(torch, "randn", randn)
    assert torch.equal(extras.noise(torch.ones(3, 5), seeded(4)), expected)
    assert extras.noise(torch.ones(3, 5, device="meta"), seeded(4)).device.type == "meta"


def test_no_augmentation_is_none_and_a_table_is_not_shifted():
    assert make_augmentation("", TABLE) is None
    assert make_augmentation("shift", MNIST).change is shift
    assert make_augmentation(f"{OWN}:noise", TABLE)(torch.zeros(2, 5)).max() > 0
    with pytest.raises(ValueError) as error:  # noqa: PT011
        make_augmentation("shift", TABLE)
    assert str(error.value) == "augment shift changes images, and the data are a table; give a function of your own"


@pytest.mark.parametrize(
    ("name", "gave"),
    [
        ("doubled", "float64 (4, 1, 2, 2) on cpu"),
        ("halved", "float32 (2, 1, 2, 2) on cpu"),
        ("nothing", "NoneType"),
    ],
)
def test_what_is_not_such_a_batch_is_told_in_one_line(name, gave):
    with pytest.raises(OwnCodeError) as error:
        Augmentation(f"{OWN}:{name}")(torch.zeros(4, 1, 2, 2))
    assert str(error.value) == (f"{OWN}:{name} gave {gave}, expected float32 (4, 1, 2, 2) on cpu, as it was given")


def test_it_computes_in_float32_whatever_the_training_does(monkeypatch):
    def product(inputs, generator):
        return inputs @ inputs

    monkeypatch.setattr(f"{OWN}.noise", product)
    values = torch.rand(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Augmentation(f"{OWN}:noise")(values), values @ values) is False
        found = Augmentation(f"{OWN}:noise")(values)
    assert torch.equal(found, values @ values)
