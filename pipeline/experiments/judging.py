"""A question judged by its plan: what its trials say so far, and which of them the next look needs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.analysis import runs
from pipeline.comparing.comparison import Comparison
from pipeline.comparing.looks import Plan
from pipeline.experiments.looked import Looked, plan_tag
from pipeline.experiments.spec import Question
from pipeline.experiments.trial import Trial


@dataclass(frozen=True)
class Judged:
    """The question with what was seen of it before."""

    question: Question
    looked: Looked

    @property
    def plan(self) -> Plan:
        """When it is looked at, the error shared by all contrasts that were ever asked of it."""
        return self.question.plan(self.looked.plan.asked if self.looked.plan else 0)

    @property
    def objection(self) -> str:
        """Why there can be no verdict, or nothing."""
        return self.looked.objection(self.question)

    def of(self, trials: Iterable[Trial]) -> Comparison:
        """What the trials say that have begun.

        Raises:
            ValueError: if none of them is finished.
        """
        begun = [trial.folder for trial in trials if trial.folder and trial.folder.started()]
        found = self.question.compare(map(runs.of_folder, begun), self.plan, self.objection)
        note = self.looked.note(found)
        return replace(found, notes=(*found.notes, note)) if note else found

    def tag(self, found: Comparison | None) -> dict[str, str]:
        """The tag that keeps the plan and how far it was looked at."""
        return plan_tag(self.question, self.plan, self.looked, found, self.objection)


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
