"""Experiments whose truth is known, judged by the project's own functions: how often are they wrong?"""

import math
from collections.abc import Iterator

import numpy as np

from pipeline.comparing.groups import Group, Run
from pipeline.comparing.looks import Plan, baseline_count
from pipeline.comparing.verdicts import BETTER, SAME, UNDECIDED, WORSE, contrasts

METRIC = "f1"  # a quantity without ends: the values here are in standard deviations


def normal(random, shape):
    return random.standard_normal(shape)


def heavy_tails(random, shape):
    """Student's t with 3 degrees of freedom."""
    return random.standard_t(3, shape) / math.sqrt(3)


def skewed(random, shape):
    """Accuracies as near their ceiling as Beta(40, 1), whose skewness is -1.9."""
    mean, sd = 40 / 41, math.sqrt(40 / (41**2 * 42))
    return (random.beta(40, 1, shape) - mean) / sd


KINDS = {"normal": normal, "t3": heavy_tails, "skewed": skewed}


def plan_of(seeds, contrasts_count, *, fresh=True):
    """As an experiment file that says how many seeds, or lists them."""
    count = baseline_count(seeds, contrasts_count) if fresh else seeds
    numbers = tuple(map(str, range(count)))
    return Plan(numbers[:seeds], numbers, contrasts_count)


def drawn(random, kind, plan, *, correlation=0.0, ratio=1.0):
    """The values (variants + 1, seeds) of one experiment under the null, the baseline's first.

    Args:
        correlation: of two groups' values with the same seed.
        ratio: of a variant's spread to the baseline's; below 1 the baseline's is the larger.
    """
    groups, size = plan.contrasts + 1, len(plan.baseline_seeds)
    own, common = KINDS[kind](random, (groups, size)), KINDS[kind](random, (1, size))
    values = math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own
    values[1:] *= max(ratio, 1.0)
    values[0] *= max(1 / ratio, 1.0)
    return values


def over_splits(random, plan, splits):
    """As `drawn`, of groups that differ by split as much as by seed; the seeds go round so many splits."""
    groups, seeds = plan.contrasts + 1, len(plan.baseline_seeds)
    of_split = random.standard_normal(splits) + random.standard_normal((groups, splits))
    return random.standard_normal((groups, seeds)) + of_split[:, np.arange(seeds) % splits]


def exchanged(random, plan, times):
    """The values of one contrast again and again: the variant is exchanged, the baseline is the same."""
    base, *variants = random.standard_normal((2 + times, len(plan.baseline_seeds)))
    return [np.stack([base, each]) for each in variants]


def groups_of(values, plan, sizes):
    """The groups with their runs of so many seeds each."""
    found = []
    for index, size in enumerate(sizes):
        label = f"v{index}" if index else "base"
        count = plan.baseline_size(size) if not index else size
        runs = tuple(
            Run(f"{label}-{seed}", label, "FINISHED", 0, {"seed": seed}, {"variant": label}, {METRIC: value})
            for seed, value in zip(plan.baseline_seeds[:count], values[index].tolist(), strict=False)
        )
        found.append(Group(label, {}, runs))
    return found


def judged(values, plan, sizes, smallest):
    """Label -> contrast."""
    found = contrasts(groups_of(values, plan, sizes), "base", METRIC, smallest, plan)
    return {each.label: each for each in found}


def at_every_look(values, plan, smallest=0.0) -> Iterator[dict]:
    """The contrasts, look by look."""
    for size in plan.looks:
        yield judged(values, plan, [size] * (plan.contrasts + 1), smallest)


def after_every_seed(values, plan, smallest=0.0) -> Iterator[dict]:
    """The contrasts, seed by seed: the baseline as far as it would be."""
    for size in range(1, len(plan.seeds) + 1):
        yield judged(values, plan, [size] * (plan.contrasts + 1), smallest)


def until_decided(values, plan, smallest=0.0):
    """What `--until decided` ends with: the contrasts, and how many runs were trained for them."""
    sizes, last = [0] * (plan.contrasts + 1), {}
    for size in plan.looks:
        open_ones = [label for label, each in last.items() if each.verdict == UNDECIDED]
        if last and not open_ones:
            break
        sizes = [size if not last or not index or f"v{index}" in open_ones else old for index, old in enumerate(sizes)]
        last = judged(values, plan, sizes, smallest)
    return last, plan.baseline_size(sizes[0]) + sum(sizes[1:])


def speaks_falsely(contrasts_found):
    """Whether one says better or worse, where there is no difference."""
    return any(each.verdict in (BETTER, WORSE) for each in contrasts_found.values())


def says_same(contrasts_found):
    """Whether one says that there is no difference of interest."""
    return any(each.verdict == SAME for each in contrasts_found.values())


def misses(contrasts_found, truth=0.0):
    """Whether an interval does not hold the truth."""
    return any(not each.low <= truth <= each.high for each in contrasts_found.values() if not math.isnan(each.low))


def rate(random, trials, kind, plan, wrong, **how):
    """The share of experiments in which `wrong(values)` is true."""
    return float(np.mean([wrong(drawn(random, kind, plan, **how)) for _ in range(trials)]))
