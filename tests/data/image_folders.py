"""Folders of small images, as the tests write them."""

import numpy as np
from PIL import Image


def image_of(number, size=(6, 8), colour=False):
    """An image that is told from others by its number: height, width."""
    values = np.random.RandomState(number).randint(0, 256, (*size, 3) if colour else size)
    return Image.fromarray(values.astype(np.uint8))


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def write_classes(folder, counts=None, colour=False, suffix="png"):
    """A sub-folder a class; the images' names tell their numbers, and numbers are not used twice."""
    number = 0
    for name, count in (counts or {"daisy": 5, "rose": 10, "tulip": 5}).items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            write(folder / name / f"{number:03}.{suffix}", image_of(number, colour=colour))
            number += 1
    return folder


def numbers_in(split, count=40, **of):
    """The numbers of the split's images, in order."""
    known = {np.asarray(image_of(number, **of)).tobytes(): number for number in range(count)}
    return [known[image.tobytes()] for image in split.inputs]
