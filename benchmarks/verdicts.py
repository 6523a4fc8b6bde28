"""How often a verdict is wrong, and how often it comes: experiments with a known truth, judged by the real functions.

`make bench-verdicts ROUNDS=1000`: so many experiments for each number. Values are in standard deviations.
"""

import itertools
import sys

import numpy as np
from scipy import stats

from benchmarks.common import publish, table
from pipeline.comparing.looks import ERROR, sizes
from pipeline.comparing.verdicts import UNDECIDED
from tests import simulated
from tests.simulated import (
    after_every_seed,
    at_every_look,
    drawn,
    exchanged,
    misses,
    over_splits,
    plan_of,
    says_same,
    speaks_falsely,
)
from tests.simulated import until_decided as ended

SEEDS = 40
CASES = [*itertools.product(simulated.KINDS, (1, 3, 5), (0.0, 0.7), (1.0, 3.0))]
LOOKS = sizes(SEEDS)


def shifted(random, plan, by, kind="normal", **how):
    """An experiment whose variants are all better by so much."""
    values = drawn(random, kind, plan, **how)
    values[1:] += by
    return values


def errors(random, trials):
    """Any false better or worse where nothing differs, by how the user looks."""
    rows = []
    for kind, contrasts, correlation, ratio in CASES:
        plan, wrong = plan_of(SEEDS, contrasts), []
        for trial in range(trials):
            values = drawn(random, kind, plan, correlation=correlation, ratio=ratio)
            looks = [speaks_falsely(each) for each in at_every_look(values, plan)]
            every = [*map(speaks_falsely, after_every_seed(values, plan))] if trial % 20 == 0 else []
            wrong.append((looks[-1], any(looks), speaks_falsely(ended(values, plan)[0]), any(every), bool(every)))
        once, at_looks, until, seeds, tried = np.mean(wrong, axis=0)
        rates = {"once": once, "at every look": at_looks, "until decided": until, "after every seed": seeds / tried}
        rows.append(
            {"values": kind, "contrasts": contrasts, "correlation": correlation, "spread ratio": ratio, **rates}
        )
        print(rows[-1], flush=True)
    return rows


def power(random, trials):
    """How often a difference is shown by the look at so many seeds, of one contrast."""
    plan, rows = plan_of(SEEDS, 1), []
    for by in (0.5, 1.0, 2.0, 3.0):
        shown = [
            np.logical_or.accumulate([speaks_falsely(each) for each in at_every_look(shifted(random, plan, by), plan)])
            for _ in range(trials)
        ]
        rows.append({"difference": by, **dict(zip(map(str, LOOKS), np.mean(shown, axis=0).tolist(), strict=True))})
    return rows


def sameness(random, trials):
    """How often two are called the same within ±1: differing by just that much, and not at all; and the coverage."""
    rows = []
    for by, contrasts in itertools.product((0.0, 1.0), (1, 3)):
        plan, found = plan_of(SEEDS, contrasts), []
        for _ in range(trials):
            looks = [*at_every_look(shifted(random, plan, by), plan, smallest=1.0)]
            found.append((any(map(says_same, looks)), any(misses(each, by) for each in looks)))
        same, missed = np.mean(found, axis=0)
        rows.append({"difference": by, "contrasts": contrasts, "same": same, "all intervals hold": 1 - missed})
    return rows


def savings(random, trials):
    """What `--until decided` trains of up to 20 seeds, and what it decides."""
    rows = []
    for by, contrasts in itertools.product((0.0, 1.0, 2.0, 4.0), (1, 3)):
        plan, found = plan_of(20, contrasts), []
        for _ in range(trials):
            last, runs = ended(shifted(random, plan, by), plan, smallest=1.0)
            found.append((runs, np.mean([each.verdict != UNDECIDED for each in last.values()])))
        runs, decided = np.mean(found, axis=0)
        whole = plan.baseline_size(20) + 20 * contrasts
        rows.append({"difference": by, "contrasts": contrasts, "runs": runs, "of": whole, "decided": decided})
    return rows


def takes(random, trials):
    """A pilot of 5 seeds says that it takes N: how often N seeds then show a difference of just that size."""
    rows = []
    for smallest, contrasts in itertools.product((1.0, 2.0), (1, 3)):
        pilot, shown, numbers = plan_of(5, contrasts), [], []
        for _ in range(trials):
            (last,) = at_every_look(drawn(random, "normal", pilot), pilot, smallest=smallest)
            needed = next(each.needed for each in last.values())
            plan = plan_of(needed[1], contrasts)
            final = [*at_every_look(shifted(random, plan, smallest), plan)][-1]
            shown.append(speaks_falsely({"v1": final["v1"]}))
            numbers.append(needed[1])
        rows.append(
            {"smallest": smallest, "contrasts": contrasts, "N": float(np.median(numbers)), "shown": np.mean(shown)}
        )
    return rows


def peeking(random, trials):
    """What planned looks replace, for one contrast: Welch at 5 %, once, at each look, after each of the seeds."""
    found = []
    for _ in range(trials):
        values = drawn(random, "normal", plan_of(SEEDS, 1))
        ps = [stats.ttest_ind(values[0, :n], values[1, :n], equal_var=False).pvalue for n in range(3, SEEDS + 1)]
        found.append((ps[-1] < ERROR, min(ps[n - 3] for n in LOOKS) < ERROR, min(ps) < ERROR))
    return [dict(zip(("once", "at every look", "after every seed"), np.mean(found, axis=0).tolist(), strict=True))]


def by_permutation(random, values, permutations=2000):
    """AdaStop's test (arXiv 2306.10882) for one contrast: labels exchanged within each stage, 5 % over the looks."""
    stages = np.split(np.arange(SEEDS), LOOKS[:-1])
    centred, decided = np.zeros(permutations), []
    real = 0.0
    for stage in stages:
        both = np.concatenate([values[1, stage], values[0, stage]])
        orders = random.permuted(np.tile(both, (permutations, 1)), axis=1)
        centred = centred + orders[:, : len(stage)].sum(1) - orders[:, len(stage) :].sum(1)
        real += values[1, stage].sum() - values[0, stage].sum()
        p = (1 + np.sum(np.abs(centred) >= abs(real) - 1e-12)) / (permutations + 1)
        decided.append(p <= ERROR / len(LOOKS))
    return decided


def against_permutation(random, trials):
    """One contrast, decided by the look at 10, 20, 40: these intervals, and AdaStop's permutations."""
    plan, rows = plan_of(SEEDS, 1), []
    for what, by, kind, ratio in (
        ("nothing differs", 0.0, "normal", 1.0),
        ("nothing but the spread, 3 times, skewed", 0.0, "skewed", 3.0),
        ("1 standard deviation", 1.0, "normal", 1.0),
        ("2 standard deviations", 2.0, "normal", 1.0),
    ):
        found = []
        for _ in range(trials):
            values = shifted(random, plan, by, kind, ratio=ratio)
            ours = np.logical_or.accumulate([speaks_falsely(each) for each in at_every_look(values, plan)])
            found.append([ours, np.logical_or.accumulate(by_permutation(random, values))])
        ours, theirs = np.mean(found, axis=0).tolist()
        rows.append({"truth": what, "intervals": ours, "permutations": theirs})
    return rows


def changed(random, trials):
    """What gets no verdict, or not for new splits, would be wrong so often at 5, 10 and 20 seeds; nothing differs."""
    one, three = (plan_of(20, contrasts) for contrasts in (1, 3))
    cases = {
        "one variant": lambda: exchanged(random, one, 0),
        "a variant that is exchanged five times": lambda: exchanged(random, one, 5),
        "1 contrast, new splits, one for each seed": lambda: [over_splits(random, one, 20)],
        "3 contrasts, new splits, one for each seed": lambda: [over_splits(random, three, 20)],
        "1 contrast, new splits, five for all seeds": lambda: [over_splits(random, one, 5)],
        "3 contrasts, new splits, five for all seeds": lambda: [over_splits(random, three, 5)],
    }
    rows = []
    for what, draw in cases.items():
        plan = three if what.startswith("3") else one
        wrong = [
            any(speaks_falsely(each) for values in draw() for each in at_every_look(values, plan))
            for _ in range(trials)
        ]
        rows.append({"what": what, "wrong": float(np.mean(wrong))})
    return rows


def as_table(rows):
    """The rows in Markdown, shares in percent."""

    def text(name, value):
        if isinstance(value, list):
            return " / ".join(f"{each:.1%}" for each in value)
        share = isinstance(value, float) and name not in (
            "difference",
            "correlation",
            "spread ratio",
            "smallest",
            "N",
            "runs",
        )
        return f"{value:.1%}" if share else f"{value:.3g}" if isinstance(value, float) else value

    return table(list(rows[0]), [[text(name, value) for name, value in row.items()] for row in rows])


PARTS = {
    "errors": errors, "power": power, "same": sameness, "savings": savings, "takes": takes, "peeking": peeking,
    "permutation": against_permutation, "changed": changed,
}  # fmt: skip


def main():
    """Simulate all, print the tables."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    found = {}
    for index, (name, simulate) in enumerate(PARTS.items()):
        found[name] = simulate(np.random.default_rng(2026 + index), trials)
    text = "\n\n".join(f"{simulate.__doc__}\n\n{as_table(found[name])}" for name, simulate in PARTS.items())
    publish("verdicts", text, {"experiments": trials, **found})


if __name__ == "__main__":
    main()
