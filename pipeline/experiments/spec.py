"""An experiment file: a question, the knobs that all its runs share, the variants, the seeds; checked whole."""

import contextlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.comparing.looks import baseline_count, drawn_seeds
from pipeline.comparing.quantities import DIRECTIONS, METRIC, higher_is_better
from pipeline.config import ROLES, UNREGISTERED, ConfigError, RunConfig, problems_of
from pipeline.config.yaml_files import read_yaml
from pipeline.experiments.question import Claim, Question
from pipeline.values import did_you_mean, unknown_name

KEYS = ("question", "shared", "variants", "baseline", "seeds", "splits", "metric", "better", "smallest", "claims")
MOST = 10_000  # seeds, splits
MEANT = {
    "seed": "list seeds under `seeds`",
    "validation_seed": "say under `splits` how many there are",
    "num_nodes": "an experiment's runs are trained on one machine each",
}
A_CLAIM = "a final value and who claims it, like {test_accuracy: 0.98, source: arXiv 2011.08927}"
EXAMPLE = """expected, for example:
    question: Does dropout give a better test result?
    shared: {epochs: 20, validation_size: 10000}
    variants:
      none: {dropout: 0.0}
      sample: {dropout: 0.2}
    baseline: sample
    seeds: 20"""


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
    if not (has_knobs := isinstance(shared, dict)):
        problems.append(
            f"shared is {type(shared).__name__}, expected knobs like {{epochs: 20, validation_size: 10000}}"
        )
        shared = {}
    seeds, is_drawn = _seeds(content.get("seeds"), path.stem, problems)
    shared = {"model_name": UNREGISTERED, "record": "light", **shared}
    problems += [f"shared: {problem}" for problem in _misplaced(shared, MEANT)]
    common = {**shared, **everywhere}
    variants = _variants(content["variants"], {**common, "seed": seeds[0]}, problems) if has_knobs else {}
    labels = [str(label) for label in content["variants"]] if variants else []
    baseline = str(content.get("baseline", next(iter(variants), "")))
    if variants and baseline not in labels:
        problems.append(f"baseline {baseline!r} is not among the variants: {', '.join(labels)}")
    metric = _metric(content.get("metric", METRIC), variants.values(), problems)
    better = _better(content.get("better", ""), metric, problems)
    smallest, splits = _smallest(content, problems), _splits(content, problems)
    claims = _claims(content.get("claims"), labels, problems) if variants else ()
    if problems:
        raise ConfigError([f"in {path}:", *problems] if len(problems) > 1 else [f"in {path}: {problems[0]}"])
    question = " ".join(str(content["question"]).split())
    more = drawn_seeds(path.stem, baseline_count(len(seeds), len(variants) - 1)) if is_drawn else seeds
    given = tuple(seeds), tuple(more), splits, metric, better, smallest, claims
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
    wrong = [f"seeds: {problem}" for seed in given for problem in problems_of({"seed": seed})]
    problems += wrong
    return [0] if wrong else given, False


def _splits(content: dict[str, Any], problems: list[str]) -> int:
    given = content.get("splits", 1)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MOST:
        problems.append(f"splits {given!r}: expected how many sets of held-out examples the seeds go round, from 1")
        return 1
    return given


def _metric(given: Any, variants: Iterable[RunConfig], problems: list[str]) -> str:
    """The metric that decides, which the runs of all variants will have; a callback may log any."""
    if not isinstance(given, str) or not given.startswith("val_"):
        problems.append(f"metric {given!r}: expected one of the held-out examples, like val_accuracy or val_loss")
        return METRIC
    for config in variants:
        own = [path.rpartition(":")[2] for path in config.metric.split(",") if path]
        known = [f"val_{name}" for name in dict.fromkeys(["accuracy", "loss", *own])]
        if given not in known and not config.callback:
            problems.append(
                f"metric {given!r}: the runs will have {', '.join(known)}{did_you_mean(given, known)}; one of your own "
                "is a knob (shared: {metric: my_metrics:f1})"
            )
            return METRIC
    return given


def _better(given: Any, metric: str, problems: list[str]) -> str:
    if given not in ("", *DIRECTIONS):
        problems.append(f"better {given!r}: expected {' or '.join(DIRECTIONS)}")
    elif not given and higher_is_better(metric) is None:
        problems.append(f"metric {metric}: is more of it better, or less? Say `better: higher` or `better: lower`")
    return str(given)


def _smallest(content: dict[str, Any], problems: list[str]) -> float | None:
    given = content.get("smallest")
    if given is None:
        return None
    with contextlib.suppress(ValueError, TypeError):
        if 0 < (number := float(given)) < math.inf:
            return number
    problems.append(f"smallest {given}: expected the smallest difference of interest, like 0.001 of an accuracy")
    return None


def _claims(given: Any, variants: list[str], problems: list[str]) -> tuple[Claim, ...]:
    if given is None:
        return ()
    if not isinstance(given, dict):
        problems.append(f"claims {given!r}: expected variants, each with {A_CLAIM}")
        return ()
    claims = []
    for label, content in given.items():
        if str(label) not in variants:
            problems.append(f"claims: {unknown_name('variant', str(label), variants)}")
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
    """The variants; what is wrong with what they share is told once, if none of them sets it right."""
    if not isinstance(given, dict) or not given:
        problems.append(f"variants {given!r}: expected a name with its knobs each, like `none: {{dropout: 0.0}}`")
        return {}
    wrong = {
        label: problems_of({**common, **(knobs or {})})
        for label, knobs in given.items()
        if isinstance(knobs, dict | None)
    }
    shared = [problem for problem in problems_of(common) if all(problem in each for each in wrong.values())]
    problems += [f"shared: {problem}" for problem in shared]
    variants: dict[str, RunConfig] = {}
    for label, knobs in given.items():
        if label not in wrong:
            problems.append(f"variant {label}: {knobs!r} is not knobs like {{dropout: 0.0}}")
            continue
        own = [*_misplaced(knobs or {}), *(problem for problem in wrong[label] if problem not in shared)]
        own += [] if str(label).strip() else ["expected a name that is not blank"]
        problems += [f"variant {label}: {problem}" for problem in own]
        if not own and not wrong[label]:
            variants[str(label)] = config = RunConfig.from_mapping({**common, **(knobs or {})})
            problems += _unjudgeable(str(label), config, variants)
    return variants


def _unjudgeable(label: str, config: RunConfig, variants: Mapping[str, RunConfig]) -> list[str]:
    """Why a variant that can be trained could not be compared with the others."""
    problems = []
    if not config.validation_size:
        problems.append(
            f"variant {label}: validation_size is 0, so it would be judged on the test set; "
            "hold images out for that (shared: {validation_size: 10000})"
        )
    if config.keep_best:
        problems.append(
            f"variant {label}: keep_best is on, and what is compared are the values of the last epoch, not of the one "
            "that is kept; leave it out"
        )
    for other, before in variants.items():
        differing = [name for name, value in config.as_dict().items() if before.as_dict().get(name) != value]
        if other != label and not any(name not in ROLES or ROLES[name].groups for name in differing):
            what = f"only {' and '.join(differing)} differs" if differing else "every knob has the same value"
            problems.append(f"variants {other} and {label} are the same: {what}")
    return problems


def _misplaced(knobs: Iterable[str], names: Iterable[str] = ROLES) -> list[str]:
    """Which of the knobs the experiment decides by itself."""
    return [
        f"{name} does not belong here; {MEANT.get(name, 'the experiment decides it')}"
        for name in knobs
        if name in names and not ROLES[name].asked
    ]
