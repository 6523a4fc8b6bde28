"""When an experiment is looked at, and what each look may spend of the 5 %: a group sequential plan.

Who looks after every seed and stops when he likes what he sees is wrong in a fifth of the questions instead of a
twentieth. So there are planned looks, at 5, 10, 20, 40, ... seeds, each with a fixed share of the 5 %, whatever the
others show (error spending: Lan and DeMets, 1983, Biometrika 70, 659; little early: O'Brien and Fleming, 1979,
Biometrics 35, 549), and between two looks the last one stands. The intervals of all looks, at the levels that they
spend, hold together: repeated confidence intervals (Jennison and Turnbull, 1989, JRSS B 51, 305). The shares add up, so
nothing is asked of how the looks depend on each other, and nobody has to say beforehand how many there will be.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

PLAN = "plan"  # the tag that keeps a plan with its question's own run
UNREADABLE = (
    "what was looked at cannot be read (the tag `plan` is damaged): start the experiment again, or ask it in a file of "
    "another name"
)
FIRST = 5
ERROR = 0.05
# Of the 5 %, by look. Simulated (benchmarks/verdicts.py): at 10 seeds two standard deviations are shown in 85 %, at 20
# one in 70 %, which leaves the look at 5 what nobody would call chance, and those beyond 40 halves of what remains.
SHARES = (0.01, 0.43, 0.45, 0.08)
ALL: tuple[int, ...] = tuple(FIRST * 2**index for index in range(9))
MOST_SEEDS = ALL[-1]  # what takes more is not asked by seeds


def sizes(seeds: int) -> list[int]:
    """The looks, in seeds of a variant, that so many seeds reach."""
    return [size for size in ALL if size <= seeds]


def share(size: int) -> float:
    """What the look at so many seeds spends, as a share of the whole error."""
    index = ALL.index(size)
    rest = 1 - sum(SHARES)
    return SHARES[index] if index < len(SHARES) else rest / 2 ** (index - len(SHARES) + 1)


def drawn_seeds(name: str, count: int) -> list[int]:
    """Seeds that the question's name decides: two questions share none but by a chance of one in a million."""
    generator = np.random.Generator(np.random.PCG64(int(hashlib.sha256(name.encode()).hexdigest()[:16], 16)))
    seeds: dict[int, None] = {}
    while len(seeds) < count:
        seeds.setdefault(int(generator.integers(1, 10**9)))
    return list(seeds)


@dataclass(frozen=True)
class Plan:
    """Which seeds count, in their order, and how many comparisons share the error.

    Attributes:
        seeds: of each variant, with the split that each has: `7`, `8/1`, `9/2`.
        baseline_seeds: of the baseline; the first are those of the variants, and all where the file lists them.
        contrasts: variants that are compared with the baseline.
        asked: the most that there ever were, which share the error.
    """

    seeds: tuple[str, ...]
    baseline_seeds: tuple[str, ...]
    contrasts: int
    asked: int = 0

    @classmethod
    def of(
        cls, seeds: Sequence[int], baseline_seeds: Sequence[int], splits: int, contrasts: int, asked: int = 0
    ) -> Self:
        """The plan of an experiment file: its seeds go round the splits."""
        own, all_of_them = (tuple(map(_unit, each, itertools.cycle(range(splits)))) for each in (seeds, baseline_seeds))
        return cls(own, all_of_them, contrasts, max(contrasts, asked))

    @property
    def looks(self) -> list[int]:
        """All that these seeds reach, in seeds of a variant."""
        return sizes(len(self.seeds))

    def splits(self, size: int) -> int:
        """Sets of held-out examples that the first so many seeds of a variant have among them."""
        return len({unit.partition("/")[2] for unit in self.units(size)})

    def baseline_size(self, size: int) -> int:
        """Seeds of the baseline at the look at so many of a variant: as many where the file lists them."""
        return baseline_count(size, self.contrasts) if len(self.baseline_seeds) > len(self.seeds) else size

    def units(self, size: int) -> tuple[str, ...]:
        """The seeds that the look at so many takes of a variant."""
        return self.seeds[:size]

    def baseline_units(self, size: int) -> tuple[str, ...]:
        """The seeds that it takes of the baseline."""
        return self.baseline_seeds[: self.baseline_size(size)]

    def level(self, size: int) -> float:
        """The error that one contrast may make at this look."""
        return ERROR * share(size) / max(1, self.contrasts, self.asked)

    def as_text(self, name: str = "", **more: object) -> str:
        """As a tag holds it, with what else is to be known of it; see `as_facts`."""
        return json.dumps({**self.as_facts(name), **more}, ensure_ascii=False, separators=(",", ":"))

    def as_facts(self, name: str = "") -> dict[str, object]:
        """As JSON holds it; seeds that the question's name has drawn as how many they are: a tag has little room."""
        counts = {"contrasts": self.contrasts, "asked": max(self.contrasts, self.asked)}
        splits = 1 + max((int(unit.partition("/")[2] or 0) for unit in self.baseline_seeds), default=0)
        sizes_of = len(self.seeds), len(self.baseline_seeds)
        if name and self == Plan.of(*_drawn(name, *sizes_of), splits, *counts.values()):
            return {"drawn": name, "seeds": sizes_of[0], "baseline_seeds": sizes_of[1], "splits": splits, **counts}
        whose = {} if self.baseline_seeds == self.seeds else {"baseline_seeds": " ".join(self.baseline_seeds)}
        return {"seeds": " ".join(self.seeds), **whose, **counts}

    @classmethod
    def from_text(cls, text: str) -> tuple[Self, dict[str, Any]] | None:
        """The plan, and what else the tag holds; None if there is none that can be read."""
        try:
            more = json.loads(text)
            return cls.from_facts(more), more
        except (ValueError, KeyError, AttributeError, TypeError):
            return None

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Self:
        """The plan of `as_facts`, which it takes out of them."""
        seeds, counts = facts.pop("seeds"), (int(facts.pop("contrasts")), int(facts.pop("asked")))
        if name := facts.pop("drawn", ""):
            return cls.of(*_drawn(name, seeds, facts.pop("baseline_seeds")), facts.pop("splits"), *counts)
        units = seeds.split()
        return cls(tuple(units), tuple(facts.pop("baseline_seeds", seeds).split()), *counts)


def _drawn(name: str, seeds: int, baseline_seeds: int) -> tuple[list[int], list[int]]:
    return drawn_seeds(name, seeds), drawn_seeds(name, baseline_seeds)


def _unit(seed: int, split: int) -> str:
    """As `Run.seed` has it."""
    return f"{seed}/{split}" if split else str(seed)


def baseline_count(size: int, contrasts: int) -> int:
    """About the square root of k times as many: all contrasts rest on it (Dunnett, 1955, JASA 50, 1096)."""
    return math.ceil(math.sqrt(max(1, contrasts)) * size)


def grouped(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Text -> the labels that have it: each text once, for a tag has little room."""
    found: dict[str, list[str]] = {}
    for label, text in texts.items():
        found.setdefault(text, []).append(label)
    return found


def ungrouped(found: Mapping[str, Any]) -> dict[str, str]:
    """Label -> text, of what `grouped` made; or of a tag from before, which is that already."""
    return {
        label: text
        for one, other in found.items()
        for label, text in ([(one, other)] if isinstance(other, str) else zip(other, [one] * len(other), strict=True))
    }
