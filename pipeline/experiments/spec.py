"""An experiment file: a question, the knobs that all its runs share, the variants, the seeds; checked whole."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.analysis import comparison
from pipeline.analysis.comparison import Comparison, Run
from pipeline.config import ROLES, ConfigError, RunConfig, problems_of
from pipeline.config.yaml_files import read_yaml
from pipeline.values import unknown_name

KEYS = ("question", "shared", "variants", "baseline", "seeds")
EXAMPLE = """expected, for example:
    question: Does dropout give a better test result?
    shared: {epochs: 20, validation_size: 10000}
    variants:
      none: {dropout: 0.0}
      sample: {dropout: 0.2}
    baseline: sample
    seeds: [1, 2, 3, 4, 5]"""


@dataclass(frozen=True)
class Question:
    """A checked experiment file.

    Attributes:
        name: the file's name without its ending; the MLflow experiment's name.
        variants: label -> config, with the first seed; the labels stand in the file's order.
        baseline: the label that the others are compared with.
        text: the file as it was read.
    """

    name: str
    question: str
    variants: dict[str, RunConfig]
    baseline: str
    seeds: tuple[int, ...]
    text: str

    def compare(self, runs: Iterable[Run]) -> Comparison:
        """What the runs say of it, its variants in the file's order.

        Raises:
            ValueError: if none of them is finished.
        """
        return comparison.compare(runs, title=self.question, baseline=self.baseline, order=list(self.variants))


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
    seeds = _seeds(content.get("seeds"), problems)
    shared = {"model_name": "", **shared}
    problems += [f"shared: {problem}" for problem in _problems_of({**shared, **everywhere})]
    common = {**shared, **everywhere, "seed": seeds[0]}
    variants = {} if problems else _variants(content["variants"], common, problems)
    baseline = str(content.get("baseline", next(iter(variants), "")))
    if variants and baseline not in (labels := [str(label) for label in content["variants"]]):
        problems.append(f"baseline {baseline!r} is not among the variants: {', '.join(labels)}")
    if problems:
        raise ConfigError([f"in {path}:", *problems] if len(problems) > 1 else [f"in {path}: {problems[0]}"])
    question = " ".join(str(content["question"]).split())
    return Question(path.stem, question, variants, baseline, tuple(seeds), text)


def _seeds(given: Any, problems: list[str]) -> list[int]:
    """The seeds; [0] stands in where they are wrong, so that the rest can be checked too."""
    seeds = list(range(1, given + 1)) if isinstance(given, int) and not isinstance(given, bool) else given
    if not isinstance(seeds, list) or not seeds:
        problems.append(f"seeds {given!r}: expected a list like [1, 2, 3, 4, 5], or how many: 5")
        return [0]
    if any(not isinstance(seed, int) or isinstance(seed, bool) for seed in seeds):
        problems.append(f"seeds {given!r}: expected whole numbers")
        return [0]
    if repeated := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        problems.append(f"seeds {', '.join(map(str, repeated))} stand more than once; the same seed gives the same run")
    problems += [f"seeds: {problem}" for seed in seeds[1:] for problem in problems_of({"seed": seed})]
    return seeds


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
    meant = {"seed": "list seeds under `seeds`"}
    problems = [
        f"{name} does not belong here; {meant.get(name, 'the experiment decides it')}"
        for name in (knobs if written is None else written)
        if name in ROLES and not ROLES[name].asked and (written is not None or name == "seed")
    ]
    return problems + problems_of(knobs)
