"""What the looks at an experiment have spent, kept with its own run: what was changed after a look is told."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.comparing.comparison import Comparison
from pipeline.comparing.looks import PLAN, Plan
from pipeline.experiments.spec import Question
from pipeline.recording.resuming import QUESTION
from pipeline.tracking.folders import all_folders
from pipeline.tracking.journal import RunFolder


@dataclass(frozen=True)
class Looked:
    """A question's plan as it stood at its furthest look.

    Attributes:
        look: seeds of a variant; 0: nothing was looked at.
        facts: the file, baseline, metric, code and data of then.
    """

    plan: Plan | None = None
    look: int = 0
    facts: tuple[tuple[str, str], ...] = ()

    def objection(self, question: Question) -> str:
        """Why the question as it is now allows no verdict, or nothing."""
        if not self.plan or not self.look:
            return ""
        then, now = self.plan.baseline_units(self.look), question.plan().baseline_units(self.look)
        if then[: len(now)] != now[: len(then)]:
            return (
                f"the seeds were changed after the look at {self.look} ({_few(then)} then, {_few(now)} now): ask it as "
                "a question of its own, in a file of another name"
            )
        facts = dict(self.facts)
        for name, value in (("baseline", question.baseline), ("metric", question.metric)):
            if facts.get(name, value) != value:
                return (
                    f"the {name} was {facts[name]} at the look at {self.look} and is {value} now: ask it as a question "
                    "of its own, in a file of another name"
                )
        return ""

    def note(self, found: Comparison) -> str:
        """What is other now than at the look before, and no reason against a verdict; or nothing."""
        then, now = dict(self.facts), facts_of(found)
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
    read = Plan.from_text(tags.get(PLAN, ""))
    if read is None:
        return Looked()
    plan, more = read
    file = str(more.get("file", ""))
    if file and Path(file) != question.path and Path(file).exists() and Path(file).read_text() != question.text:
        raise ValueError(
            f"experiment {question.name} is asked by {file} already, and {question.path} asks something else under the "
            "same name; give one of the files another name"
        )
    facts = {name: str(more[name]) for name in ("baseline", "metric", "code", "data") if name in more}
    return Looked(plan, int(more.get("look", 0)), tuple(facts.items()))


def plan_tag(
    question: Question, plan: Plan, looked: Looked, found: Comparison | None, objection: str
) -> dict[str, str]:
    """The tag that keeps the plan, after what was found."""
    look = max((each.look for each in found.contrasts), default=0) if found else 0
    if objection or look < looked.look:
        plan, look, facts = looked.plan or plan, looked.look, dict(looked.facts)
    else:
        facts = {"baseline": question.baseline, "metric": question.metric, **(facts_of(found) if found else {})}
    more: dict[str, Any] = {"look": look, "file": str(question.path), **facts}
    if question.smallest is not None:
        more["smallest"] = question.smallest
    return {PLAN: plan.as_text(**more, **({"objection": objection} if objection else {}))}


def facts_of(found: Comparison) -> dict[str, str]:
    """The code and the data of the runs that were looked at."""
    runs = [run for each in found.groups for run in each.everyone]
    codes = {run.tags.get("code", "") for run in runs if run.is_of_this_code_alone}
    return {"code": ", ".join(sorted(codes)), "data": ", ".join(sorted({run.data for run in runs}))}
