"""What a promotion lets through: sequences of candidates whose quality is known, judged by the project's own rule.

`make bench-promotion ROUNDS=2000`: so many sequences of 100 candidates each
"""

import functools
import sys

import numpy as np
from scipy.stats import binom

from benchmarks.common import publish, table
from pipeline.registry.judgement import Verdict, level_of, p_value_with_margin
from tests.equal_candidates import IMAGES, SAMPLE, SHAKY, answers, as_many_right, promoted, rise, shown_better

CANDIDATES, LOOKS, MARGINS = 100, (1, 2, 10, 100), (0.1, 0.2, 0.5)
WORLDS = {"98.0 %, 1.2 % each way": SHAKY, "98.4 %, 0.5 % each way": SAMPLE}
RULES = {"as many right or more": as_many_right, "better at the look's level": shown_better}
EACH_WAY = (120, 50)  # images on which two equal models disagree, each way


def equal_candidates(world, sequences):
    """Of so many sequences: (rule -> share with a replaced champion, replacements, rise in points), disagreements."""
    rng, found, apart = np.random.default_rng(1), {rule: [] for rule in RULES}, []
    for _ in range(sequences):
        models = answers(world, CANDIDATES + 1, rng)
        apart.append(int((models[0] > models[1]).sum()))
        for name, rule in RULES.items():
            champions = promoted(models, rule)
            found[name].append((len(champions) > 1, len(champions) - 1, rise(champions)))
    return {name: np.mean(each, axis=0).tolist() for name, each in found.items()}, float(np.mean(apart))


def power(gain, each_way, look, draws=4000):
    """How often a candidate is promoted that is better by `gain` images in the mean."""
    rng = np.random.default_rng(2)
    shares = np.array([each_way, each_way + gain, IMAGES - 2 * each_way - gain]) / IMAGES
    found = rng.multinomial(IMAGES, shares, draws)[:, :2]
    return float(np.mean([Verdict(IMAGES, 0, 0, int(old), int(new), look).promotes for old, new in found]))


def fewest_with_margin(margin, look, counts):
    """For each number of disagreements the candidate's fewest that are enough; they rise with it, by one at most."""
    level, enough, part = level_of(look), [], 0
    for count in map(int, counts):
        while part <= count and p_value_with_margin(part, count - part, IMAGES, margin / 100, level) >= level:
            part += 1
        enough.append(part)
    return np.array(enough)


def with_margin(margin, look, each_way=EACH_WAY[0]):
    """Probabilities, by summation, that a model worse by just the margin is promoted, and that an equal one is."""
    worse = margin / 100 * IMAGES
    shares = {"worse": (2 * each_way + worse, each_way / (2 * each_way + worse)), "equal": (2 * each_way, 0.5)}
    counts = np.arange(int(binom.ppf(1e-6, IMAGES, 2 * each_way / IMAGES)), int(2 * each_way + worse + 90))
    enough = fewest_with_margin(margin, look, counts)
    return [
        float((binom.pmf(counts, IMAGES, apart / IMAGES) * binom.sf(enough - 1, counts, part)).sum())
        for apart, part in shares.values()
    ]


@functools.cache
def enough_of(disagreements, look):
    """The fewest of the disagreements that have to be the candidate's."""
    parts = range(disagreements + 1)
    return next(part for part in parts if Verdict(IMAGES, 0, 0, disagreements - part, part, look).promotes)


def main(sequences):
    """Simulate and publish."""
    rows, data = [], {"sequences": sequences, "candidates": CANDIDATES, "images": IMAGES}
    for name, world in WORLDS.items():
        data[name], apart = equal_candidates(world, sequences)
        data[f"{name}, measured"] = apart
        rows += [
            [name, rule, f"{share:.1%}", f"{times:.2f}", f"{points:.3f}"]
            for rule, (share, times, points) in data[name].items()
        ]
    texts = [table(["models", "rule", "sequences with a new champion", "new champions", "rise, points"], rows)]
    rows = []
    for look in LOOKS:
        needed = [f"{enough_of(2 * n, look)} to {2 * n - enough_of(2 * n, look)}" for n in EACH_WAY]
        found = [power(gain, n, look) for n in EACH_WAY for gain in (30, 50)]
        data[f"look {look}"] = {"needed": needed, "power": found}
        rows.append([look, f"{level_of(look):.2g}", *needed, *(f"{share:.0%}" for share in found)])
    titles = [f"{gain} points better, {n / 100:g} %" for n in EACH_WAY for gain in (0.3, 0.5)]
    texts.append(table(["look", "p below", "of 240", "of 100", *titles], rows))
    rows = []
    for margin in MARGINS:
        for look in LOOKS[:3]:
            worse, equal = with_margin(margin, look)
            data[f"margin {margin}, look {look}"] = {"worse by it": worse, "equal": equal}
            rows.append([margin, look, f"{level_of(look):.2%}", f"{worse:.2%}", f"{equal:.0%}"])
            print(rows[-1], flush=True)
    texts.append(table(["margin, points", "look", "level", "worse by the margin: promoted", "equal: promoted"], rows))
    publish("promotion", "\n\n".join(texts), data)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
