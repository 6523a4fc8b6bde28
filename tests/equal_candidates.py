"""Candidates of a known quality, as promotions meet them: some images are hard, and each model has luck with some."""

from dataclasses import dataclass

import numpy as np

from pipeline.registry.judgement import judge

IMAGES = 10_000


@dataclass(frozen=True)
class World:
    """Hard images: how many, and the beta distribution of the probability that a model gets one wrong.

    A model is wrong on hard * a / (a + b) of the images in the mean.
    """

    hard: int
    a: float
    b: float


# 98 % right, two disagree on 1.2 % of the images each way; and like the sample's network: 98.4 % right, 0.5 % each way
SHAKY, SAMPLE = World(1000, 0.6, 2.4), World(500, 0.272, 0.578)


def answers(world, count, rng):
    """Which images (count, IMAGES) each of so many models of one quality gets wrong: 1, or 0; the images are new."""
    wrong = np.zeros((count, IMAGES), np.uint8)
    hardness = rng.beta(world.a, world.b, world.hard)
    wrong[:, : world.hard] = rng.random((count, world.hard)) < hardness
    return wrong


def promoted(models, rule):
    """Let the models but the first be candidates one after the other; returns the champions, the first first."""
    champions = [models[0]]
    for look, candidate in enumerate(models[1:], 1):
        if rule(champions[-1], candidate, look):
            champions.append(candidate)
    return champions


def shown_better(champion, candidate, look):
    """The rule of this project; the labels are 0."""
    return judge(np.zeros(IMAGES, np.uint8), champion, candidate, look).promotes


def as_many_right(champion, candidate, look):
    """What promoted until looks were counted."""
    return candidate.sum() <= champion.sum()


def rise(champions):
    """By how many percentage points the last champion's measured accuracy is above the first's."""
    return 100 * (int(champions[0].sum()) - int(champions[-1].sum())) / IMAGES
