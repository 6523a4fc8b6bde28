"""Of which code and data the runs were that a question's looks were at."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.comparing.groups import Group, Run
from pipeline.comparing.looks import grouped, ungrouped

Origin = tuple[str, str]  # code and data of a run


@dataclass(frozen=True)
class Seen:
    """What was looked at, by variant; never forgotten, for each code has its own 5 %.

    Attributes:
        look: the furthest, in seeds of a variant.
        origins: label -> of the runs of all looks.
        is_of_before: from a tag that kept one code for all variants, of the runs without code of the user's own.
        now: label -> of the runs that the question asks for now, looked at or not; empty: it has not said.
    """

    look: int = 0
    origins: Mapping[str, frozenset[Origin]] = field(default_factory=dict)
    is_of_before: bool = False
    now: Mapping[str, Origin] = field(default_factory=dict)

    @classmethod
    def of_facts(cls, look: int, facts: Mapping[str, Any], labels: Iterable[str]) -> "Seen":
        """As the tag of a plan keeps it beside the plan."""
        asked = facts.get("now", {})
        asked = dict.fromkeys(facts.get("variants", {}), asked) if isinstance(asked, str) else ungrouped(asked)
        now = {label: _origin(text) for label, text in asked.items()}
        if "seen" in facts:
            texts = ungrouped(facts["seen"])
            return cls(look, {label: frozenset(map(_origin, text.split())) for label, text in texts.items()}, now=now)
        codes, data = (str(facts.get(name, "")).split(", ") for name in ("code", "data"))
        return cls(look, dict.fromkeys(labels, frozenset((code, each) for code in codes for each in data)), True, now)

    def as_facts(self) -> dict[str, Any]:
        """As `of_facts` reads it."""
        texts = {label: " ".join(sorted(map("/".join, each))) for label, each in self.origins.items()}
        now: Any = grouped({label: "/".join(origin) for label, origin in self.now.items()})
        if len(now) == 1:
            (now,) = now  # of all variants: a tag has little room
        return {name: each for name, each in (("seen", grouped(texts)), ("now", now)) if each}

    def and_of(self, groups: Iterable[Group]) -> "Seen":
        """With the runs of these groups."""
        more = {each.label: self._then(each) | _origins(each) for each in groups}
        return replace(self, origins={**self.origins, **more}, is_of_before=False) if more else self

    def note(self, groups: Sequence[Group]) -> str:
        """Which other runs were looked at than these, and no reason against a verdict; or nothing."""
        what = ", ".join(self._changes(groups))
        return f"looked at before, at {self.look} seeds, with other runs: {what}; each has its own 5 %" if what else ""

    def _changes(self, groups: Sequence[Group]) -> Iterator[str]:
        for place, what in enumerate(("code", "data")):
            found = {}
            for each in groups:
                then, now = ({origin[place] for origin in one} - {""} for one in (self._then(each), _origins(each)))
                if now and then - now:
                    found[each.label] = f"{', '.join(sorted(then - now))} then and {', '.join(sorted(now))} now"
            for words, labels in grouped(found).items():
                whose = "" if len(labels) == len(groups) else f" of {' and '.join(labels)}"
                yield f"{what}{whose} {words}"

    def _then(self, group: Group) -> frozenset[Origin]:
        """Of the runs that were looked at of the group."""
        origins = self.origins.get(group.label, frozenset())
        if self.is_of_before and not all(run.is_of_this_code_alone for run in group.everyone):
            return frozenset(("", data) for _, data in origins)
        return origins


NOTHING_SEEN = Seen()


def origin_of(run: Run) -> Origin:
    """Its code and data."""
    return run.tags.get("code", ""), run.data


def _origins(group: Group) -> frozenset[Origin]:
    return frozenset(map(origin_of, group.everyone))


def _origin(text: str) -> Origin:
    code, _, data = text.partition("/")
    return code, data
