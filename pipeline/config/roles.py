"""How a knob is declared: its default, meaning and range, and what another value of it means elsewhere."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from pipeline.config import own_code
from pipeline.values import Value, did_you_mean, short

MOST = 2**53  # of a whole number: the largest up to which MLflow's and JSON's numbers are exact


@dataclass(frozen=True)
class Role:
    """What another value of a knob means for comparing, naming and resuming, and who may give it.

    Attributes:
        groups: a comparison puts runs that differ in it into different groups.
        decides: an experiment takes a run that differs in it for another answer, and trains anew.
        told: a run's name and description tell it where it is not the sample's.
        resumes: what a run that is gone on with may be given: no other value, a larger one, any.
        asked: an experiment's file may set it; what the experiment itself decides it may not.
        of_mlproject: MLproject declares it, and so gives it whether a person typed it or not.
    """

    groups: bool = True
    decides: bool = True
    told: bool = True
    resumes: Literal["no other", "larger", "any"] = "no other"
    asked: bool = True
    of_mlproject: bool = False


@dataclass(frozen=True)
class Names:
    """What a knob may name: something shipped, or code of the user's own; whether several, with commas between.

    Attributes:
        own: what the code is, in words.
    """

    shipped: tuple[str, ...]
    own: str
    several: bool = False

    def problem_of(self, text: str) -> str:
        """What is wrong with the value, or nothing."""
        for name in text.split(",") if self.several else [text]:
            if own_code.is_own(name):
                if problem := own_code.problem_of(name):
                    return problem
            elif name not in self.shipped:
                return f"{short(repr(name))} is not {self.words}{did_you_mean(name, self.shipped)}"
        return ""

    @property
    def words(self) -> str:
        shipped = ", ".join(filter(None, self.shipped))
        return f"one of {shipped}, or {self.own} of your own, module:name" if shipped else f"{self.own}, module:name"


KEPT, TURNED = Role(), Role(of_mlproject=True)
NAME = Role(groups=False, decides=False, told=False)
PLACE = replace(NAME, resumes="any")  # where things lie and what is printed changes no number
UNASKED = Role(groups=False, told=False, asked=False)
ALONE = replace(UNASKED, decides=False)  # of a single run, not of an experiment's: one by one or not at all
OWN_NAME, OWN_PLACE = replace(NAME, asked=False), replace(PLACE, asked=False)


def knob(default: Value, meaning: str, role: Role = KEPT, **limits: float) -> Any:
    """A field with its documentation, its role and its range: `gt`, `ge`, `lt`, `le` as pydantic has them."""
    field: Any = Field(default, description=meaning, **limits)  # type: ignore[call-overload]
    field.metadata.append(role)
    return field


def named(default: str, meaning: str, names: Names, role: Role = KEPT) -> Any:
    """A field that names something shipped or something own."""
    field = knob(default, meaning, role)
    field.metadata.append(names)
    return field


def role_of(field: FieldInfo) -> Role:
    """The role of a knob; those that a network or a dataset declares itself count like any other."""
    return next((each for each in field.metadata if isinstance(each, Role)), KEPT)


def names_of(field: FieldInfo) -> Names | None:
    """What the knob may name, if it names something."""
    return next((each for each in field.metadata if isinstance(each, Names)), None)
