"""Hand-made runs to compare, and plans of their looks."""

from dataclasses import replace

from pipeline.comparing.groups import Run
from pipeline.comparing.looks import Plan

BASE = [0.970, 0.972, 0.974]
BETTER = [0.980, 0.981, 0.982]


def run(variant, seed, value, *, metric="val_accuracy", status="FINISHED", started=0, tags=(), data="d1", **params):
    knobs = {"variant_knob": variant, "epochs": "20", "seed": str(seed), **params}
    tags = {"variant": variant, **dict(tags)}
    return Run(f"{variant}-{seed}-{started}", variant, status, started, knobs, tags, {metric: value}, data)


def runs_of(variant, values, *, first_seed=1, metric="val_accuracy", **more):
    return [run(variant, first_seed + k, value, metric=metric, **more) for k, value in enumerate(values)]


def diverged(variant, seed, **more):
    lost = run(variant, seed, 0.1, **more)
    return replace(lost, metrics={}, tags={**lost.tags, "diverged_in_epoch": "3"})


def plan_of(seeds, contrasts=1, *, baseline_seeds=None):
    """Of the seeds 1, 2, ...; listed in the file, if the baseline is given no others."""
    own = tuple(map(str, range(1, seeds + 1)))
    return Plan(own, own if baseline_seeds is None else tuple(map(str, baseline_seeds)), contrasts)


def verdicts(found):
    return {each.label: each.verdict for each in found.contrasts}
