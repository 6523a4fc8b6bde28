"""A question judged by its plan: what its looks have spent, kept with its own run, and what the next one needs."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.analysis import runs
from pipeline.comparing.comparison import Comparison
from pipeline.comparing.groups import Group, Run
from pipeline.comparing.looks import PLAN, UNREADABLE, Plan, baseline_count, drawn_seeds, grouped
from pipeline.comparing.seen import Origin, Seen
from pipeline.comparing.verdicts import EVERY
from pipeline.experiments.question import Question
from pipeline.experiments.trial import Trial
from pipeline.recording.resuming import QUESTION
from pipeline.tracking.folders import all_folders
from pipeline.tracking.journal import RunFolder

FACTS: tuple[str, ...] = ("file", "baseline", "metric")
ELSEWHERE = "ask it as a question of its own, in a file of another name"


@dataclass(frozen=True)
class Looked:
    """A question's plan as it stood at its furthest look.

    Attributes:
        look: seeds of a variant; 0: nothing was looked at.
        facts: the file, baseline and metric of then.
        trainings: of all variants that were ever looked at, label -> `groups.training_of`.
        seen: the code and data of the runs of all looks.
        is_readable: False: there is a tag, and what was looked at is not known.
    """

    plan: Plan | None = None
    look: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)
    trainings: Mapping[str, str] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)
    is_readable: bool = True

    @classmethod
    def of_tag(cls, text: str) -> "Looked":
        """As `plan_tag` has written it; empty: nothing was looked at."""
        read = Plan.from_text(text)
        if read is None:
            return cls(is_readable=not text)
        plan, more = read
        look, facts = int(more.get("look", 0)), {name: str(more[name]) for name in FACTS if name in more}
        trainings = more.get("looked_at", more.get("variants", {}))
        return cls(plan, look, facts, trainings, Seen.of_facts(look, more, trainings))

    def objections(self, question: Question) -> dict[str, str]:
        """Why the question as it is now allows no verdict of a variant, by its label; of any: by `EVERY`."""
        if not self.is_readable:
            return {EVERY: UNREADABLE}
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


def _few(seeds: tuple[str, ...]) -> str:
    return ", ".join(seeds[:5]) + (", ..." if len(seeds) > 5 else "")


def before(question: Question, runs_dir: str) -> Looked:
    """How far the question was looked at, by any of its own runs that lie here.

    Raises:
        ValueError: if the name was another file's question.
    """
    found = [_read(folder, question) for folder in all_folders(runs_dir) if _is_of(folder, question.name)]
    furthest = max(found, key=lambda each: (not each.is_readable, each.look), default=Looked())
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
    """The tag that keeps the plan, after what was found; none where that cannot be read which is there."""
    if not looked.is_readable:
        return {}
    asked, asks = plan, {"baseline": question.baseline, "metric": question.metric}
    objections, reached = looked.objections(question), _looked_at(found) if found else []
    look, facts = max((each.look for each in found.contrasts), default=0) if found else 0, asks
    if EVERY in objections or look < looked.look:
        plan, look, facts = looked.plan or plan, looked.look, {**asks, **looked.facts}
    now = question.trainings
    looked_at = (looked.trainings if looked.look else {}) or now
    other = {"plan": asked.as_facts(question.name)} if EVERY in objections and asked != plan else {}
    more: dict[str, Any] = {
        **{"look": look, **facts, "file": str(question.path), "variants": now, "asks": {**asks, **other}},
        **looked.seen.and_of(reached).as_facts(),
        **({"looked_at": looked_at} if looked_at != now else {}),
        **({"objections": grouped(objections)} if objections else {}),
        **({"smallest": question.smallest} if question.smallest is not None else {}),
        **({"better": question.better} if question.better else {}),
    }
    return {PLAN: plan.as_text(question.name, **more)}


def _looked_at(found: Comparison) -> list[Group]:
    """The groups that a look was at."""
    labels = {each.label for each in found.contrasts if each.look}
    return [each for each in found.groups if labels and each.label in {*labels, found.baseline}]


@dataclass(frozen=True)
class Judged:
    """The question with what was seen of it before."""

    question: Question
    looked: Looked

    @classmethod
    def after(cls, question: Question, looked: Looked, now: Mapping[str, Origin] = {}) -> "Judged":
        """The question, its baseline with as many seeds as at the look before, whatever variants came or went since.

        With others the same look would be taken a second time.

        Args:
            question: what is asked.
            looked: what was looked at.
            now: label -> code and data of the runs that are asked for; empty: as it was noted.
        """
        if now:
            looked = replace(looked, seen=replace(looked.seen, now=now))
        if looked.look and looked.plan and question.is_drawn:
            count = baseline_count(len(question.seeds), looked.plan.contrasts)
            question = replace(question, baseline_seeds=tuple(drawn_seeds(question.name, count)))
        return cls(question, looked)

    @property
    def plan(self) -> Plan:
        """When it is looked at, the error shared by all contrasts that were asked of it when it was looked at first.

        Those that were added later are judged by nobody.
        """
        then = self.looked.plan
        if then is None:
            return self.question.plan()
        return self.question.plan(then.contrasts if self.looked.look else None, then.asked)

    def compare(self, found: Iterable[Run]) -> Comparison:
        """What the runs say, by the plan and what was seen before.

        Raises:
            ValueError: if none of them is finished.
        """
        return self.question.compare(found, self.plan, self.looked.objections(self.question), self.looked.seen)

    def of(self, trials: Iterable[Trial]) -> Comparison:
        """What the trials say that have begun.

        Raises:
            ValueError: if none of them is finished.
        """
        begun = [trial.folder for trial in trials if trial.folder and trial.folder.started()]
        return self.compare(map(runs.of_folder, begun))

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
