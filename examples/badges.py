"""Own colour images: 100 kinds of badges, a colour on a colour, 64 x 64 pixels.

python -m pipeline train --dataset examples.badges:badges --network examples.small_cnn:SmallCNN --epochs 5
"""

from pathlib import Path

import numpy as np

from pipeline.data import Dataset

COLOURS = {
    **{"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 200), "yellow": (220, 200, 40)},
    **{"white": (235, 235, 235), "black": (25, 25, 25), "orange": (230, 130, 30), "violet": (130, 60, 170)},
    **{"teal": (30, 150, 150), "pink": (240, 150, 180)},
}
CLASSES = [f"{inner} on {outer}" for outer in COLOURS for inner in COLOURS]


def badges(data_dir: Path, each: int = 20) -> Dataset:
    """So many badges of each class to train with, a quarter of that to test with; nothing is read from data_dir."""
    return Dataset(train=drawn(each, seed=1), test=drawn(each // 4, seed=2), classes=CLASSES)


def drawn(each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (100 * each, 64, 64, 3): a disc of the inner colour anywhere on the outer one, under noise."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASSES)), each)
    palette = np.array(list(COLOURS.values()))
    centres = random.uniform(24, 40, (len(labels), 2, 1, 1))
    rows, columns = np.mgrid[:64, :64]
    inside = (rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2 < 18**2
    images = np.where(inside[..., None], palette[labels % 10, None, None], palette[labels // 10, None, None])
    noise = random.integers(-20, 21, images.shape, dtype=np.int16)
    return (images + noise).clip(0, 255).astype(np.uint8), labels
