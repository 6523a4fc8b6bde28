"""A question judged by its plan: what its looks have spent, kept with its own run, and what the next one needs."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.analysis import runs
from pipeline.comparing.comparison import Comparison
from pipeline.comparing.groups import Run
from pipeline.comparing.looks import PLAN, Plan
from pipeline.comparing.verdicts import EVERY
from pipeline.experiments.question import Question
from pipeline.experiments.trial import Trial
from pipeline.recording.resuming import QUESTION
from pipeline.tracking.folders import all_folders
from pipeline.tracking.journal import RunFolder

FACTS: tuple[str, ...] = ("file", "baseline", "metric", "code", "data")
ELSEWHERE = "ask it as a question of its own, in a file of another name"


@dataclass(frozen=True)
class Looked:
    """A question's plan as it stood at its furthest look.

    Attributes:
        look: seeds of a variant; 0: nothing was looked at.
        facts: the file, baseline, metric, code and data of then.
        trainings: of all variants that were ever looked at, label -> `groups.training_of`.
    """

    plan: Plan | None = None
    look: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)
    trainings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_tag(cls, text: str) -> "Looked":
        """As `plan_tag` has written it; nothing was looked at, if it cannot be read."""
        read = Plan.from_text(text)
        if read is None:
            return cls()
        plan, more = read
        facts = {name: str(more[name]) for name in FACTS if name in more}
        return cls(plan, int(more.get("look", 0)), facts, more.get("looked_at", more.get("variants", {})))

    def objections(self, question: Question) -> dict[str, str]:
        """Why the question as it is now allows no verdict of a variant, by its label; of any: by `EVERY`."""
        if not self.plan or not self.look:
            return {}
        if words := self._objection(question):
            return {EVERY: f"{words}: {ELSEWHERE}"}
        return {
            label: f"{self._late(label)} after the look at {self.look}: {ELSEWHERE}"
            for label, training in question.trainings.items()
            if self.trainings and self.trainings.get(label) != training
        }

    def _late(self, label: str) -> str:
        return "its knobs were changed" if label in self.trainings else "it was added"

    def _objection(self, question: Question) -> str:
        assert self.plan is not None
        then, now = self.plan.baseline_units(self.look), question.plan().baseline_units(self.look)
        if then[: len(now)] != now[: len(then)]:
            return f"the seeds were changed after the look at {self.look} ({_few(then)} then, {_few(now)} now)"
        for name, value in (("baseline", question.baseline), ("metric", question.metric)):
            if self.facts.get(name, value) != value:
                return f"the {name} was {self.facts[name]} at the look at {self.look} and is {value} now"
        base = question.baseline
        if self.trainings.get(base, question.trainings[base]) != question.trainings[base]:
            return f"the knobs of the baseline {base} were changed after the look at {self.look}"
        return ""

    def note(self, found: Comparison) -> str:
        """What is other now than at the look before, and no reason against a verdict; or nothing."""
        then, now = self.facts, facts_of(found)
        changed = [name for name in ("code", "data") if then.get(name) and now[name] and then[name] != now[name]]
        what = ", ".join(f"{name} {then[name]} then and {now[name]} now" for name in changed)
        return f"looked at before, at {self.look} seeds, with other runs: {what}; each has its own 5 %" if what else ""


def _few(seeds: tuple[str, ...]) -> str:
    return ", ".join(seeds[:5]) + (", ..." if len(seeds) > 5 else "")


def before(question: Question, runs_dir: str) -> Looked:
    """How far the question was looked at, by any of its own runs that lie here.

    Raises:
        ValueError: if the name was another file's question.
    """
    found = [_read(folder, question) for folder in all_folders(runs_dir) if _is_of(folder, question.name)]
    furthest = max(found, key=lambda each: each.look, default=Looked())
    most = max((each.plan.asked for each in found if each.plan and each.look), default=0)
    plan = furthest.plan and replace(furthest.plan, asked=max(most, furthest.plan.asked))
    return replace(furthest, plan=plan)


def _is_of(folder: RunFolder, name: str) -> bool:
    start = folder.started()
    return bool(start and start["tags"].get(QUESTION) == name and os.access(folder.path, os.W_OK))


def _read(folder: RunFolder, question: Question) -> Looked:
    tags: dict[str, str] = {}
    for event in folder.events():
        tags |= event.get("tags", {})
    looked = Looked.of_tag(tags.get(PLAN, ""))
    file = looked.facts.get("file", "")
    if file and Path(file) != question.path and Path(file).exists() and Path(file).read_text() != question.text:
        raise ValueError(
            f"experiment {question.name} is asked by {file} already, and {question.path} asks something else under the "
            "same name; give one of the files another name"
        )
    return looked


def plan_tag(question: Question, plan: Plan, looked: Looked, found: Comparison | None) -> dict[str, str]:
    """The tag that keeps the plan, after what was found."""
    objections = looked.objections(question)
    look = max((each.look for each in found.contrasts), default=0) if found else 0
    if EVERY in objections or look < looked.look:
        plan, look, facts = looked.plan or plan, looked.look, dict(looked.facts)
    else:
        facts = {"baseline": question.baseline, "metric": question.metric, **(facts_of(found) if found else {})}
    now = question.trainings
    looked_at = (looked.trainings if looked.look else {}) or now
    more: dict[str, Any] = {
        **{"look": look, **facts, "file": str(question.path), "variants": now},
        **({"looked_at": looked_at} if looked_at != now else {}),
        **({"objections": objections} if objections else {}),
        **({"smallest": question.smallest} if question.smallest is not None else {}),
        **({"better": question.better} if question.better else {}),
    }
    return {PLAN: plan.as_text(**more)}


def facts_of(found: Comparison) -> dict[str, str]:
    """The code and the data of the runs that were looked at."""
    runs = [run for each in found.groups for run in each.everyone]
    codes = {run.tags.get("code", "") for run in runs if run.is_of_this_code_alone}
    return {"code": ", ".join(sorted(codes)), "data": ", ".join(sorted({run.data for run in runs}))}


@dataclass(frozen=True)
class Judged:
    """The question with what was seen of it before."""

    question: Question
    looked: Looked

    @property
    def plan(self) -> Plan:
        """When it is looked at, the error shared by all contrasts that were ever asked of it."""
        return self.question.plan(self.looked.plan.asked if self.looked.plan else 0)

    def compare(self, found: Iterable[Run]) -> Comparison:
        """What the runs say, by the plan and what was seen before.

        Raises:
            ValueError: if none of them is finished.
        """
        return self.question.compare(found, self.plan, self.looked.objections(self.question))

    def of(self, trials: Iterable[Trial]) -> Comparison:
        """What the trials say that have begun.

        Raises:
            ValueError: if none of them is finished.
        """
        begun = [trial.folder for trial in trials if trial.folder and trial.folder.started()]
        found = self.compare(map(runs.of_folder, begun))
        note = self.looked.note(found)
        return replace(found, notes=(*found.notes, note)) if note else found

    def tag(self, found: Comparison | None) -> dict[str, str]:
        """The tag that keeps the plan and how far it was looked at."""
        return plan_tag(self.question, self.plan, self.looked, found)


def looks(trials: Sequence[Trial], judged: Judged) -> Iterator[list[Trial]]:
    """The trials of each look, with those of the variants alone that the look before has left undecided."""
    base, sizes = judged.question.baseline, judged.plan.looks or [len(judged.plan.seeds)]
    variants = [name for name in judged.question.variants if name != base]
    for index, size in enumerate(sizes):
        wanted = {base: judged.plan.baseline_size(size), **dict.fromkeys(variants, size)}
        part = [trial for trial in trials if trial.place < wanted.get(trial.variant, 0)]
        told = f"look {index + 1} of {', '.join(map(str, sizes))}: {size} seeds of {', '.join(variants) or base}"
        print(told, flush=True)
        yield part
        if any(trial.state == "failed" for trial in part):
            return
        variants = [each.label for each in judged.of(trials).undecided]
        if not variants:
            return
