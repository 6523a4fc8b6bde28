"""A whole comparison: what it is made of, which runs it shows, what a reader must know of the others."""

import pytest

from pipeline.comparing.comparison import compare
from pipeline.comparing.groups import training_of
from pipeline.comparing.looks import Plan
from pipeline.comparing.seen import Seen
from tests.comparable import BASE, BETTER, diverged, plan_of, run, runs_of, verdicts

STEADY = [0.1, 0.2, 0.3, 0.4, 0.5]


def test_of_a_metric_and_a_smallest_difference_nothing_need_be_said():
    found = compare([*runs_of("a", BASE), *runs_of("b", BETTER)])
    assert (found.metric, found.smallest, found.plan, found.title) == ("val_accuracy", 0.001, None, "")
    assert compare(runs_of("a", BASE), smallest=0.02).smallest == 0.02
    assert compare(runs_of("a", BASE, metric="val_loss"), metric="val_loss").smallest == 0.005


def test_a_difference_inside_the_smallest_of_interest_is_the_same():
    close = [*STEADY[1:], STEADY[0]]
    runs = [*runs_of("base", STEADY, metric="f1"), *runs_of("a", close, metric="f1")]
    words = [compare(runs, metric="f1", smallest=each, plan=plan_of(5)).contrasts[0].verdict for each in (2, 0.5)]
    assert words == ["same", "undecided"]


def test_a_comparison_keeps_its_plan_and_what_is_undecided():
    plan = plan_of(5, 2)
    runs = [*runs_of("base", STEADY), *runs_of("far", [each + 9 for each in [*STEADY[1:], STEADY[0]]])]
    found = compare([*runs, *runs_of("near", STEADY[:4])], plan=plan, baseline="base")
    assert found.plan is plan
    assert [each.label for each in found.undecided] == ["near"]
    assert verdicts(found) == {"far": "better", "near": "undecided"}


def test_the_runs_that_a_look_took_are_shown_and_the_others_wait():
    runs = [*runs_of("base", STEADY), *runs_of("a", [*STEADY, 0.6]), *runs_of("b", [*STEADY, 0.6, 0.7])]
    found = compare(runs, baseline="base", plan=plan_of(10, 2))
    assert [len(each.runs) for each in found.groups] == [5, 5, 5]
    assert found.notes == ("of a 1 more run waits for the next look", "of b 2 more runs wait for the next look")


def test_seeds_that_are_not_planned_are_left_out_and_told():
    runs = [*runs_of("base", [*STEADY, 9.0]), *runs_of("a", STEADY), *runs_of("a", [7.0, 8.0], first_seed=100)]
    found = compare([*runs, diverged("a", 99)], baseline="base", plan=plan_of(5))
    assert [len(each.everyone) for each in found.groups] == [5, 5]
    assert found.notes == (
        "of base 1 run is left out, for want of a planned seed",
        "of a 3 runs are left out, for want of a planned seed",
    )
    assert found.contrasts == compare([*runs_of("base", STEADY), *runs_of("a", STEADY)], plan=plan_of(5)).contrasts


def test_runs_of_knobs_that_a_question_asks_no_more_for_are_left_out_and_told():
    labels = ("base", "a", "gone")
    runs = [run(label, seed, 0.5, epochs=epochs) for label in labels for seed, epochs in ((1, "5"), (2, "30"))]
    known = {"epochs": 30, "seed": 7, "validation_seed": 3, "rho": 0.9, "data_dir": "/there"}  # of those one decides
    trainings = {label: training_of({**known, "variant_knob": label}) for label in labels[:2]}
    found = compare(runs, baseline="base", trainings=trainings)
    assert [(each.label, [one.params["epochs"] for one in each.runs]) for each in found.groups] == [
        ("base", ["30"]),
        ("a", ["30"]),
    ]
    assert found.notes == ("4 runs of knobs that the question asks no more for, left out",)
    with pytest.raises(ValueError, match="none of 6 runs has the knobs that the question asks for now"):
        compare(runs, baseline="base", trainings={"base": "another"})


def test_before_the_first_look_all_planned_runs_are_shown():
    found = compare([*runs_of("base", STEADY), *runs_of("a", STEADY[:3])], plan=plan_of(10), baseline="base")
    assert [len(each.runs) for each in found.groups] == [5, 3]
    assert found.notes == ()


def test_of_the_baseline_those_of_the_furthest_look_are_shown():
    plan = Plan(tuple(map(str, range(1, 11))), tuple(map(str, range(1, 16))), 2)
    values = [value / 10 for value in range(15)]
    runs = [*runs_of("base", values), *runs_of("a", values[:10]), *runs_of("b", values[:5])]
    found = compare(runs, baseline="base", plan=plan)
    assert [(each.look, each.test) for each in found.contrasts] == [
        (10, "Welch, 10 and 15 runs"),
        (5, "Welch, 5 and 8 runs"),
    ]
    assert [len(each.runs) for each in found.groups] == [15, 10, 5]


def test_a_run_of_other_code_that_no_look_took_is_not_told():
    runs = [*runs_of("base", STEADY, tags={"code": "x"}), *runs_of("a", STEADY, tags={"code": "x"})]
    found = compare([*runs, run("a", 6, 0.5, started=1, tags={"code": "y"})], baseline="base", plan=plan_of(10))
    assert found.notes == ("of a 1 more run waits for the next look",)


@pytest.mark.parametrize("of_now", [{"tags": {"code": "y"}}, {"data": "d2"}], ids=["code", "data"])
def test_runs_of_former_code_or_data_are_left_out_where_those_of_now_reach_a_look(of_now):
    former = {"tags": {"code": "x"}, "data": "d1"}
    values = [0.5 + seed / 100 for seed in range(20)]
    runs = [*runs_of("base", values, **former), *runs_of("a", [value + 5 for value in values], **former)]
    of_now = {**former, **of_now, "started": 1}
    runs += [*runs_of("base", STEADY, **of_now), *runs_of("a", [each + 9 for each in STEADY], **of_now)]
    found = compare(runs, baseline="base", plan=plan_of(20))
    assert [(each.verdict, each.look) for each in found.contrasts] == [("better", 5)]
    assert found.notes == ("40 runs of former code or data, left out",)


def test_where_code_was_given_back_the_runs_count_that_are_asked_for_not_the_newest():
    mine = [
        *runs_of("base", STEADY, tags={"code": "x"}),
        *runs_of("a", [each + 9 for each in STEADY], tags={"code": "x"}),
    ]
    newer = {"tags": {"code": "y"}, "started": 1}
    runs = [*mine, *runs_of("base", STEADY, **newer), *runs_of("a", [each - 9 for each in STEADY], **newer)]
    for code, verdict in (("x", "better"), ("y", "worse")):
        facts = Seen(now=dict.fromkeys(("base", "a"), (code, "d1"))).as_facts()  # as the tag has it
        seen = Seen.of_facts(5, {**facts, "variants": {"base": "", "a": ""}}, [])
        found = compare(runs, baseline="base", plan=plan_of(5), seen=seen)
        assert [each.verdict for each in found.contrasts] == [verdict]
        assert found.notes == ("10 runs of former code or data, left out",)


def test_a_variant_that_was_not_trained_with_the_code_of_now_gets_no_verdict_against_a_baseline_that_was():
    runs = [*runs_of("base", STEADY, tags={"code": "x"}), *runs_of("a", STEADY, tags={"code": "x"})]
    for count, reason in ((5, "runs of different code"), (4, "runs of different code in base")):
        of_now = runs_of("base", STEADY[:count], started=1, tags={"code": "y"})
        (contrast,) = compare([*runs, *of_now], baseline="base", plan=plan_of(5)).contrasts
        assert (contrast.verdict, contrast.reason) == ("none", reason)


@pytest.mark.parametrize("metric", ["val_accuracy", "f1"])
def test_a_mistyped_baseline_is_named_with_what_there_is(metric):
    runs = [*runs_of("base", BASE, metric=metric), *runs_of("a", BETTER, metric=metric)]
    with pytest.raises(ValueError, match=r"^baseline 'bsae' is not among the groups: base, a$"):
        compare(runs, baseline="bsae", metric=metric)
