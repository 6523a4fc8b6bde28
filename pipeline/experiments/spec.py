"""An experiment file: a question, the knobs that all its runs share, the variants, the seeds; checked whole."""

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.comparing import comparison
from pipeline.comparing.comparison import Comparison
from pipeline.comparing.groups import Run
from pipeline.comparing.looks import Plan, baseline_count, drawn_seeds
from pipeline.comparing.quantities import METRIC
from pipeline.config import ROLES, UNREGISTERED, ConfigError, RunConfig, problems_of
from pipeline.config.yaml_files import read_yaml
from pipeline.values import unknown_name

KEYS = ("question", "shared", "variants", "baseline", "seeds", "splits", "metric", "smallest", "claims")
MOST = 10_000  # seeds, splits
A_CLAIM = "a final value and who claims it, like {test_accuracy: 0.98, source: arXiv 2011.08927}"
EXAMPLE = """expected, for example:
    question: Does dropout give a better test result?
    shared: {epochs: 20, validation_size: 10000}
    variants:
      none: {dropout: 0.0}
      sample: {dropout: 0.2}
    baseline: sample
    seeds: 20"""


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
    smallest: float | None
    claims: tuple[Claim, ...]
    text: str
    path: Path

    def configs(self, variant: str) -> list[RunConfig]:
        """A config for each seed of the variant."""
        seeds = self.baseline_seeds if variant == self.baseline else self.seeds
        first = self.variants[variant]
        return [first.replace(seed=seed, validation_seed=place % self.splits) for place, seed in enumerate(seeds)]

    def own_code(self) -> list[str]:
        """The import paths of the user's own code that takes part in any variant."""
        return sorted({path for config in self.variants.values() for path in config.own_code()})

    def plan(self, asked: int = 0) -> Plan:
        """When its runs are looked at; `asked` is the most contrasts that there ever were."""
        return Plan.of(self.seeds, self.baseline_seeds, self.splits, len(self.variants) - 1, asked)

    def compare(self, runs: Iterable[Run], plan: Plan | None = None, objection: str = "") -> Comparison:
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
            objection=objection,
        )


def read_question(path: Path | str, **everywhere: Any) -> Question:
    """Read an experiment file.

    Args:
        path: the YAML file.
        everywhere: knobs that hold for every run of this command (data_dir, runs_dir).

    Raises:
        ValueError: if the file cannot be read; ConfigError with everything that is wrong in it.
    """
    path = Path(path)
    try:
        text, content = read_yaml(path, "experiment file")
    except OSError as error:
        known = ", ".join(str(each) for each in sorted(Path("experiments").glob("*.yaml")))
        there = f" (here are: {known})" if known else ""
        raise ValueError(f"experiment file {path} cannot be read ({error.strerror}){there}") from None
    except ValueError as error:
        raise ValueError(f"{error}; {EXAMPLE}") from None
    if not isinstance(content, dict) or "variants" not in content:
        raise ValueError(f"experiment file {path} has no variants; {EXAMPLE}")
    return _checked(path, content, text, everywhere)


def _checked(path: Path, content: dict[str, Any], text: str, everywhere: dict[str, Any]) -> Question:
    problems = [
        unknown_name("key", str(key), KEYS) + f" (keys: {', '.join(KEYS)})" for key in content if key not in KEYS
    ]
    shared = content.get("shared") or {}
    if not str(content.get("question") or "").strip():
        problems.append("question is missing: say in words what the experiment asks")
    if not isinstance(shared, dict):
        problems.append(
            f"shared is {type(shared).__name__}, expected knobs like {{epochs: 20, validation_size: 10000}}"
        )
        shared = {}
    seeds, is_drawn = _seeds(content.get("seeds"), path.stem, problems)
    shared = {"model_name": UNREGISTERED, "record": "light", **shared}
    problems += [f"shared: {problem}" for problem in _problems_of({**shared, **everywhere})]
    common = {**shared, **everywhere, "seed": seeds[0]}
    variants = {} if problems else _variants(content["variants"], common, problems)
    baseline = str(content.get("baseline", next(iter(variants), "")))
    if variants and baseline not in (labels := [str(label) for label in content["variants"]]):
        problems.append(f"baseline {baseline!r} is not among the variants: {', '.join(labels)}")
    metric, smallest, splits = _metric(content, problems), _smallest(content, problems), _splits(content, problems)
    claims = _claims(content.get("claims"), variants, problems) if variants else ()
    if problems:
        raise ConfigError([f"in {path}:", *problems] if len(problems) > 1 else [f"in {path}: {problems[0]}"])
    question = " ".join(str(content["question"]).split())
    more = drawn_seeds(path.stem, baseline_count(len(seeds), len(variants) - 1)) if is_drawn else seeds
    given = tuple(seeds), tuple(more), splits, metric, smallest, claims
    return Question(path.stem, question, variants, baseline, *given, text, path.absolute())


def _seeds(given: Any, name: str, problems: list[str]) -> tuple[list[int], bool]:
    """The seeds, and whether the name has drawn them; [0] stands in for wrong ones, so that the rest can be checked."""
    if isinstance(given, int) and not isinstance(given, bool):
        if 1 <= given <= MOST:
            return drawn_seeds(name, given), True
        problems.append(f"seeds {given}: expected at least 1, at most {MOST:,}")
        return [0], True
    if not isinstance(given, list) or not given:
        problems.append(f"seeds {given!r}: expected how many, like 20, or a list like [1, 2, 3, 4, 5]")
        return [0], False
    if any(not isinstance(seed, int) or isinstance(seed, bool) for seed in given):
        problems.append(f"seeds {given!r}: expected whole numbers")
        return [0], False
    if repeated := sorted({seed for seed in given if given.count(seed) > 1}):
        problems.append(f"seeds {', '.join(map(str, repeated))} stand more than once; the same seed gives the same run")
    problems += [f"seeds: {problem}" for seed in given[1:] for problem in problems_of({"seed": seed})]
    return given, False


def _splits(content: dict[str, Any], problems: list[str]) -> int:
    given = content.get("splits", 1)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MOST:
        problems.append(f"splits {given!r}: expected how many sets of held-out examples the seeds go round, from 1")
        return 1
    return given


def _metric(content: dict[str, Any], problems: list[str]) -> str:
    given = content.get("metric", METRIC)
    if not isinstance(given, str) or not given.startswith("val_"):
        problems.append(f"metric {given!r}: expected one of the held-out examples, like val_accuracy or val_loss")
        return METRIC
    return given


def _smallest(content: dict[str, Any], problems: list[str]) -> float | None:
    given = content.get("smallest")
    if given is None:
        return None
    with contextlib.suppress(ValueError, TypeError):
        if 0 < (number := float(given)) < math.inf:
            return number
    problems.append(f"smallest {given}: expected the smallest difference of interest, like 0.001 of an accuracy")
    return None


def _claims(given: Any, variants: Iterable[str], problems: list[str]) -> tuple[Claim, ...]:
    if given is None:
        return ()
    if not isinstance(given, dict):
        problems.append(f"claims {given!r}: expected variants, each with {A_CLAIM}")
        return ()
    claims = []
    for label, content in given.items():
        if str(label) not in variants:
            problems.append(f"claims: {unknown_name('variant', str(label), list(variants))}")
            continue
        values = {str(name): each for name, each in content.items()} if isinstance(content, dict) else {}
        source = str(values.pop("source", "")).strip()
        with contextlib.suppress(ValueError, TypeError):
            ((metric, value),) = values.items()
            if source and math.isfinite(number := float(value)):
                claims.append(Claim(str(label), metric, number, source))
                continue
        problems.append(f"claims: {label}: {content!r}: expected {A_CLAIM}")
    return tuple(claims)


def _variants(given: Any, common: dict[str, Any], problems: list[str]) -> dict[str, RunConfig]:
    if not isinstance(given, dict) or not given:
        problems.append(f"variants {given!r}: expected a name with its knobs each, like `none: {{dropout: 0.0}}`")
        return {}
    variants: dict[str, RunConfig] = {}
    for label, knobs in given.items():
        knobs = {} if knobs is None else knobs
        if not isinstance(knobs, dict):
            problems.append(f"variant {label}: {knobs!r} is not knobs like {{dropout: 0.0}}")
            continue
        wrong = _problems_of({**common, **knobs}, knobs)
        problems += [f"variant {label}: {problem}" for problem in wrong]
        if wrong:
            continue
        config = RunConfig.from_mapping({**common, **knobs})
        if not config.validation_size:
            problems.append(
                f"variant {label}: validation_size is 0, so it would be judged on the test set; "
                "hold images out for that (shared: {validation_size: 10000})"
            )
        problems += [
            f"variants {other} and {label} are the same: every knob has the same value"
            for other, before in variants.items()
            if before == config
        ]
        variants[str(label)] = config
    return variants


def _problems_of(knobs: dict[str, Any], written: dict[str, Any] | None = None) -> list[str]:
    """What is wrong with the knobs; `written` are those that the file itself gives at this place."""
    meant = {"seed": "list seeds under `seeds`", "validation_seed": "say under `splits` how many there are"}
    problems = [
        f"{name} does not belong here; {meant.get(name, 'the experiment decides it')}"
        for name in (knobs if written is None else written)
        if name in ROLES and not ROLES[name].asked and (written is not None or name in meant)
    ]
    return problems + problems_of(knobs)
