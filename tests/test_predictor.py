import numpy as np
import pytest

from pipeline.predictor import SEND, check_images

DIGIT = np.zeros((28, 28), np.float32)
DIGIT[5:20, 14] = 200


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64])
def test_raw_pixels_of_any_number_type_become_float32(dtype):
    images = np.stack([DIGIT, DIGIT]).astype(dtype)
    checked = check_images(images)
    assert checked.dtype == np.float32
    assert np.array_equal(checked, images.astype(np.float32))


def test_blank_images_and_no_images_are_allowed():
    assert check_images(np.zeros((3, 28, 28))).shape == (3, 28, 28)
    assert check_images(np.zeros((0, 28, 28))).shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (DIGIT, "found shape (28, 28)"),
        (np.zeros((2, 784)), "found shape (2, 784)"),
        (np.zeros((1, 28, 28, 1)), "found shape (1, 28, 28, 1)"),
        (np.where(DIGIT == 0, np.nan, DIGIT)[None], "found NaN"),
        (DIGIT[None] - 1, "found values from -1 to 199"),
        (DIGIT[None] * 2, "found values from 0 to 400"),
        (np.where(DIGIT > 0, np.inf, DIGIT)[None], "found values from 0 to inf"),
        (np.stack([DIGIT, DIGIT / 255]), "found an image whose brightest pixel is 0.784314, so scaled to 0..1 already"),
    ],
)
def test_anything_else_is_refused_with_what_was_found_and_what_to_send(images, found):
    with pytest.raises(ValueError, match="send raw pixels") as caught:
        check_images(images)
    assert str(caught.value) == f"{found}; {SEND}"


@pytest.mark.parametrize("images", ["seven", [[1, 2], [3]], None, [{"a": 1}]])
def test_what_is_not_numbers_is_refused(images):
    with pytest.raises(ValueError, match="send raw pixels: float32 of shape"):
        check_images(images)
