"""A question: its variants, seeds and metric, as an experiment file asks it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.comparing import comparison
from pipeline.comparing.comparison import Comparison
from pipeline.comparing.groups import Run, training_of
from pipeline.comparing.looks import Plan, drawn_seeds
from pipeline.comparing.quantities import DIRECTIONS
from pipeline.comparing.seen import NOTHING_SEEN, Seen
from pipeline.config import RunConfig


@dataclass(frozen=True)
class Claim:
    """What somebody else says of a variant: a final value, and who says so."""

    variant: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class Question:
    """A checked experiment file.

    Attributes:
        name: the file's name without its ending; the MLflow experiment's name.
        variants: label -> config, with the first seed; the labels stand in the file's order.
        baseline: the label that the others are compared with.
        seeds: of each variant, in the order in which they count.
        baseline_seeds: of the baseline; more of them where the name draws them.
        splits: so many sets of held-out examples the seeds go round.
        metric: the final value that decides.
        better: which of its values are, `higher` or `lower`; empty: as its name tells.
        smallest: the smallest difference of interest in it; None: see `quantities.SMALLEST`.
        claims: what others say of the variants; the lab book has the answer beside it.
        text: the file as it was read.
        path: where it lies.
    """

    name: str
    question: str
    variants: dict[str, RunConfig]
    baseline: str
    seeds: tuple[int, ...]
    baseline_seeds: tuple[int, ...]
    splits: int
    metric: str
    better: str
    smallest: float | None
    claims: tuple[Claim, ...]
    text: str
    path: Path

    def configs(self, variant: str) -> list[RunConfig]:
        """A config for each seed of the variant."""
        seeds = self.baseline_seeds if variant == self.baseline else self.seeds
        first = self.variants[variant]
        return [first.replace(seed=seed, validation_seed=place % self.splits) for place, seed in enumerate(seeds)]

    @cached_property
    def trainings(self) -> dict[str, str]:
        """Label -> what decides the variant's trainings, in the file's order."""
        return {label: training_of(config.as_dict()) for label, config in self.variants.items()}

    def own_code(self) -> list[str]:
        """The import paths of the user's own code that takes part in any variant."""
        return sorted({path for config in self.variants.values() for path in config.own_code()})

    @property
    def is_drawn(self) -> bool:
        """Whether its name has drawn the seeds."""
        return [*self.seeds] == drawn_seeds(self.name, len(self.seeds))

    def plan(self, contrasts: int | None = None, asked: int = 0) -> Plan:
        """When its runs are looked at.

        Args:
            contrasts: those that are judged; None: of all variants.
            asked: the most that there ever were.
        """
        count = len(self.variants) - 1 if contrasts is None else contrasts
        return Plan.of(self.seeds, self.baseline_seeds, self.splits, count, asked)

    def compare(
        self,
        runs: Iterable[Run],
        plan: Plan | None = None,
        objections: Mapping[str, str] = {},
        seen: Seen = NOTHING_SEEN,
    ) -> Comparison:
        """What the runs say of it, its variants in the file's order.

        Raises:
            ValueError: if none of them is finished.
        """
        return comparison.compare(
            runs,
            title=self.question,
            baseline=self.baseline,
            metric=self.metric,
            smallest=self.smallest,
            order=list(self.variants),
            plan=plan or self.plan(),
            objections=objections,
            trainings=self.trainings,
            seen=seen,
            higher_better=DIRECTIONS.get(self.better),
        )
