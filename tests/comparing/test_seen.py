"""Runs of other code or data than were looked at before are told, and not forgotten."""

from pipeline.comparing.comparison import compare
from pipeline.comparing.seen import Seen
from tests.comparable import plan_of, runs_of

STEADY = [0.1, 0.2, 0.3, 0.4, 0.5]
OWN = {"network": "my_net:Net"}


def groups_of(code_of_base, code_of_a, data="d1", **knobs):
    runs = [
        *runs_of("base", STEADY, tags={"code": code_of_base}, data=data),
        *runs_of("a", STEADY, tags={"code": code_of_a}, data=data, **knobs),
    ]
    return compare(runs, baseline="base", plan=plan_of(5)).groups


def told(what):
    return f"looked at before, at 5 seeds, with other runs: {what}; each has its own 5 %"


def test_a_variant_that_was_exchanged_by_its_own_code_is_told_each_time():
    seen = Seen(5)
    for code in ("c1", "c2", "c2"):
        groups = groups_of("x", code, **OWN)
        assert seen.note(groups) == ("" if code == "c1" else told("code of a c1 then and c2 now"))
        seen = seen.and_of(groups)
        seen = Seen.of_facts(5, seen.as_facts(), [])  # as the tag keeps it
    assert seen.note(groups_of("x", "c3", **OWN)) == told("code of a c1, c2 then and c3 now")
    assert seen.note(groups_of("x", "c1", **OWN)) == told("code of a c2 then and c1 now")  # given back


def test_code_and_data_that_changed_for_all_are_told_once():
    seen = Seen(5).and_of(groups_of("x", "x"))
    assert seen.note(groups_of("x", "x")) == ""
    assert seen.note(groups_of("y", "y")) == told("code x then and y now")
    assert seen.note(groups_of("y", "y", data="d2")) == told("code x then and y now, data d1 then and d2 now")


def test_a_comparison_tells_it():
    runs = [*runs_of("base", STEADY, tags={"code": "y"}), *runs_of("a", STEADY, tags={"code": "y"})]
    seen = Seen(5).and_of(groups_of("x", "x"))
    assert compare(runs, baseline="base", plan=plan_of(5), seen=seen).notes[-1] == told("code x then and y now")


def test_an_older_tag_keeps_one_code_of_the_runs_without_own_code():
    seen = Seen.of_facts(5, {"code": "x", "data": "d1"}, ["base", "a"])
    assert seen.note(groups_of("x", "c1", **OWN)) == ""
    assert seen.note(groups_of("y", "c1", **OWN)) == told("code of base x then and y now")
    assert seen.note(groups_of("x", "c1", data="d2", **OWN)) == told("data d1 then and d2 now")
    later = seen.and_of(groups_of("x", "c1", **OWN))
    assert later.note(groups_of("x", "c2", **OWN)) == told("code of a c1 then and c2 now")
    assert Seen.of_facts(0, {}, []).note(groups_of("x", "x")) == ""


def test_what_is_asked_for_comes_back_from_a_tag_of_one_code_and_of_several():
    for codes in (("x", "x"), ("x", "y")):
        now = {label: (code, "d1") for label, code in zip(("base", "a"), codes, strict=True)}
        facts = {**Seen(now=now).as_facts(), "variants": {"base": "", "a": ""}}
        assert Seen.of_facts(0, facts, []).now == now
    assert Seen.of_facts(0, {"seen": {}}, []).now == {}
