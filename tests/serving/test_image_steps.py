"""Each step from grey levels to MNIST's form, exactly and at its edges."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipeline.serving import preprocessing
from pipeline.serving.preprocessing import ImageError, as_png, fit
from tests.serving.test_preprocessing import as_file, read_image


def grey(*rows):
    return np.array(rows, np.float32)


def spots(shape, **levels):
    """Zeros, but for the levels at `r<row>c<column>`."""
    array = np.zeros(shape, np.float32)
    for place, level in levels.items():
        row, column = place[1:].split("c")
        array[int(row), int(column)] = level
    return array


# Paper and ink.


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (28, 28), (2, 2), (1, 7)])
def test_the_paper_is_the_median_of_all_four_edges(shape):
    for seed in range(20):
        levels = np.random.RandomState(seed).randint(0, 256, shape).astype(np.float32)
        rows, columns = shape
        edges = [levels[row, column] for row in (0, rows - 1) for column in range(columns)]
        edges += [levels[row, column] for column in (0, columns - 1) for row in range(rows)]
        assert preprocessing._paper(levels) == np.median(edges)


@pytest.mark.parametrize(("paper", "as_it_is"), [(0, True), (127, True), (128, False), (255, False)])
def test_28x28_is_taken_as_it_is_on_paper_darker_than_128(paper, as_it_is):
    levels = np.full((28, 28), paper, np.uint8)
    levels[10:12, 10:12] = 60
    found = read_image(as_file(Image.fromarray(levels)))
    assert np.array_equal(found, levels) == as_it_is
    assert as_it_is or np.array_equal(found, fit(levels.astype(np.float32)))


@pytest.mark.parametrize("shape", [(28, 29), (29, 28), (27, 27)])
def test_another_size_is_fitted_also_on_black(shape):
    levels = np.zeros(shape, np.uint8)
    levels[10:12, 10:12] = 60
    found = read_image(as_file(Image.fromarray(levels)))
    assert (found.shape, found.dtype) == ((28, 28), np.float32)
    assert (found[4:24, 4:24] == 255).all()
    assert found.sum() == 255 * 400


@pytest.mark.parametrize(("paper", "ink"), [(200, 168), (128, 96), (127, 159), (0, 32), (255, 223)])
def test_32_levels_are_a_digit_and_31_are_blank(paper, ink):
    levels = np.full((9, 9), paper, np.float32)
    levels[4, 4] = ink
    assert fit(levels).max() == 255
    levels[4, 4] += 1 if ink < paper else -1
    with pytest.raises(ImageError) as caught:
        fit(levels)
    assert str(caught.value) == "the image is blank: nothing stands out from its background"


def test_what_is_on_the_paper_s_other_side_is_no_ink():
    levels = np.full((40, 40), 200, np.float32)
    levels[5:25, 5:25], levels[30, 30] = 0, 255
    assert fit(levels)[4:24, 4:24].tolist() == np.full((20, 20), 255).tolist()


def test_ink_below_a_fifth_of_the_strongest_is_paper_and_from_there_it_rises_to_white():
    levels = np.zeros((40, 40), np.float32)
    levels[5:25, 5:25] = 200
    levels[10:12, 10:12] = [[120, 40], [160, 80]]  # (share - 0.2) / 0.8 of 255
    levels[30, 30] = 39
    expected = np.zeros((28, 28))
    expected[4:24, 4:24] = 255
    expected[9:11, 9:11] = [[128, 0], [191, 64]]
    assert np.abs(fit(levels) - expected).max() <= 1
    levels[30, 30] = 60
    assert not np.array_equal(fit(levels), fit(np.where(levels == 60, 0, levels)))  # it is part of the digit


# Into the box, and to the middle.


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((40, 40), (20, 20)),
        ((40, 20), (20, 10)),
        ((20, 40), (10, 20)),
        ((40, 27), (20, 14)),
        ((40, 25), (20, 12)),
        ((27, 40), (14, 20)),
        ((25, 40), (12, 20)),
        ((200, 1), (20, 1)),
        ((1, 200), (1, 20)),
        ((10, 5), (20, 10)),
        ((1, 1), (20, 20)),
    ],
)
def test_the_longer_side_becomes_20_and_the_other_keeps_its_proportion(shape, box):
    found = preprocessing._into_box(np.full(shape, 255, np.float32))
    assert found.tolist() == np.full(box, 255).tolist()


def test_shrinking_averages_and_growing_goes_over_smoothly_and_the_same_size_is_the_same():
    random = np.random.RandomState(0)
    large = random.randint(1, 256, (40, 40)).astype(np.float32)
    means = large.reshape(20, 2, 20, 2).mean(axis=(1, 3))
    assert np.allclose(preprocessing._into_box(large), means * 255 / means.max(), atol=1e-3)
    same = random.randint(1, 256, (20, 20)).astype(np.float32)
    assert np.allclose(preprocessing._into_box(same), same * 255 / same.max(), atol=1e-3)
    middles = ((np.arange(20) + 0.5) * 15 / 20 - 0.5).clip(0, 14)
    shares = (1 - np.abs(middles[:, None] - np.arange(15))).clip(0)
    small = random.randint(1, 256, (15, 15)).astype(np.float32)
    grown = shares @ small @ shares.T
    assert np.allclose(preprocessing._into_box(small), grown * 255 / grown.max(), atol=1e-3)


@pytest.mark.parametrize(("level", "becomes"), [(0, 0), (0.5, 127.5), (1, 255), (1.5, 255), (10, 255)])
def test_the_strongest_becomes_white_again_but_what_is_nearly_nothing_is_not_blown_up(level, becomes):
    assert preprocessing._into_box(np.full((20, 20), level, np.float32)).max() == pytest.approx(becomes)


def placed(digit):
    """Where the digit's first ink comes to lie; all of it, and nothing else, is there."""
    found = preprocessing._centred(digit.astype(np.float32))
    assert (found.shape, found.dtype) == ((28, 28), np.float32)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    part = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert np.array_equal(part[part > 0], digit[digit > 0])
    return int(rows[0]), int(columns[0])


def test_a_digit_s_mass_comes_to_the_middle_as_near_as_it_fits():
    assert placed(np.full((20, 20), 9)) == (4, 4)
    assert placed(np.full((20, 10), 9)) == (4, 9)
    assert placed(np.full((10, 20), 9)) == (9, 4)
    assert placed(np.full((1, 1), 9)) == (14, 14)
    assert placed(np.full((2, 4), 9)) == (13, 12)


@pytest.mark.parametrize(
    ("digit", "corner"),
    [
        (spots((20, 10), r0c0=9), (8, 14)),  # mass at 0.5: 13.5 down, of which 8 fit
        (spots((20, 10), r19c9=9), (19, 13)),
        (spots((10, 20), r0c0=9), (14, 8)),
        (spots((10, 20), r9c19=9), (13, 19)),
        (spots((10, 10), r0c0=9, r9c0=27), (7, 14)),  # three quarters of it below: at 7.25
        (spots((10, 10), r0c0=27, r0c9=9), (14, 11)),
    ],
)
def test_a_lopsided_digit_is_moved_by_its_mass_not_its_box(digit, corner):
    assert placed(digit) == corner


def test_levels_become_whole_numbers():
    assert preprocessing._centred(grey([127.5, 126.5, 0.4, 254.6])).max() == 255
    assert sorted(set(preprocessing._centred(grey([127.5, 126.5, 0.4, 254.6])).ravel())) == [0, 126, 128, 255]


# What the model saw.


def test_a_png_of_what_the_model_saw_has_its_levels_whole_and_within_their_range():
    pixels = np.zeros((28, 28), np.float32)
    pixels[0, :5] = [-5, 300, 254.9, 255, 0.5]
    content = as_png(pixels)
    found = Image.open(io.BytesIO(content))
    assert isinstance(found, PngImagePlugin.PngImageFile)
    assert np.asarray(found)[0, :6].tolist() == [0, 255, 254, 255, 0, 0]
