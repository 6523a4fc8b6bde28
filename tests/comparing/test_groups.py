"""Which runs stand together, which are left out, which group is the baseline, and what is said of it."""

import math
from dataclasses import replace

import pytest

from pipeline.comparing.comparison import compare
from tests.comparable import BASE, BETTER, diverged, run, runs_of, verdicts


def test_groups_and_their_contrasts_stand_in_the_order_wanted_then_as_they_began():
    runs = [run(name, seed, 0.9, started=k) for seed in (1, 2) for k, name in enumerate("dacb")]
    assert [each.label for each in compare(runs).groups] == ["d", "a", "c", "b"]
    found = compare(runs, order=["b", "c"], baseline="c")
    assert [each.label for each in found.groups] == ["b", "c", "d", "a"]
    assert [each.label for each in found.contrasts] == ["b", "d", "a"]
    assert (found.baseline, found.contrast("c"), found.contrast("d").label) == ("c", None, "d")


def test_the_baseline_is_the_group_of_most_runs_and_of_those_the_oldest():
    few = [run("few", 1, 0.9, started=0)]
    runs = [*few, *runs_of("late", BASE, started=9), *runs_of("early", BETTER, started=8)]
    assert compare(runs).baseline == "early"
    assert compare([*runs, run("late", 9, 0.9, started=99)]).baseline == "late"
    # what counts is the first run of each: of `later` one has begun again after all of `soon`
    runs = [run("later", 1, 0.9, started=5), run("later", 2, 0.9, started=6)]
    runs += [run("soon", 1, 0.9, started=3), run("soon", 2, 0.9, started=30)]
    assert compare(runs).baseline == "soon"
    assert compare([run("lost", 1, 0.9, started=1), *[diverged("lost", n) for n in (2, 3)], *runs]).baseline == "soon"


def test_of_a_seed_that_is_repeated_the_newest_run_counts_in_whatever_order_they_are_found():
    old, new = run("a", 1, 0.5, started=1), run("a", 1, 0.75, started=2)
    for runs in ([old, new], [new, old]):
        (only,) = compare(runs).groups
        assert only.runs == (new,)
        assert compare(runs).notes == ("1 run repeats a seed of their group; the newest of each counts",)


def test_a_run_that_diverged_and_was_run_again_counts_as_it_ended_last():
    lost, won = diverged("a", 1, started=1), run("a", 1, 0.75, started=2)
    (only,) = compare([lost, won]).groups
    assert (only.runs, only.diverged, only.fate) == ((won,), (), "")


def test_knobs_that_do_not_make_a_run_another_in_kind_make_no_group():
    same = ("run_name", "experiment_name", "model_name", "runs_dir", "data_dir", "verbose", "on_divergence")
    runs = [run("a", k, 0.9, **{name: str(k) for name in same}) for k in (1, 2)]
    found = compare(runs)
    assert [each.label for each in found.groups] == ["a"]
    assert found.common == {"variant_knob": "a", "epochs": "20"}
    assert found.groups[0].knobs == {}


def test_a_group_is_named_by_its_variant_or_by_its_knobs_or_is_all():
    def named(*tags):
        runs = [replace(run("x", k, 0.9, dropout=each[0]), tags=each[1]) for k, each in enumerate(tags)]
        return [each.label for each in compare(runs).groups]

    assert named(("0", {}), ("0", {})) == ["all"]
    assert named(("0", {"variant": "v"}), ("0", {"variant": "v"})) == ["v"]
    assert named(("0", {"variant": "v"}), ("0", {"variant": "w"})) == ["all"]
    assert named(("0", {"variant": "v"}), ("0", {})) == ["all"]
    assert named(("0", {"variant": "v"}), ("1", {})) == ["v", "dropout=1"]
    assert named(("0", {"variant": "v"}), ("1", {"variant": "v"})) == ["dropout=0", "dropout=1"]
    assert named(("0", {"variant": "v"}), ("1", {"variant": "v"}), ("2", {"variant": "w"})) == [
        *("dropout=0", "dropout=1", "w"),
    ]


def test_a_knob_that_only_some_runs_have_sets_them_apart():
    runs = [run("a", 1, 0.9), run("b", 1, 0.9, momentum="0.9")]
    found = compare(runs)
    assert [dict(each.knobs) for each in found.groups] == [
        {"momentum": "", "variant_knob": "a"},
        {"momentum": "0.9", "variant_knob": "b"},
    ]
    assert found.common == {"epochs": "20"}


def test_a_seed_with_another_split_is_another_seed():
    first, second, third = (run("a", 7, 0.9, validation_seed=split) for split in ("0", "1", ""))
    assert [each.seed for each in (first, second, third)] == ["7", "7/1", "7"]
    assert compare([first, second]).groups[0].seeds == {"7", "7/1"}


def test_a_group_of_some_seeds_keeps_their_runs_and_divergences():
    (whole,) = compare([*runs_of("a", BASE), diverged("a", 8), diverged("a", 9)]).groups
    part = whole.only(["2", "9", "77"])
    assert ([each.seed for each in part.runs], [each.seed for each in part.diverged]) == (["2"], ["9"])
    assert (part.label, part.seeds) == ("a", {"2", "9"})


@pytest.mark.parametrize(
    ("knob", "own"), [("network", "mine:Net"), ("optimizer", "mine:Opt"), ("dataset", "mine:data"), ("network", "cnn")]
)
def test_code_of_the_users_own_stands_in_a_run(knob, own):
    assert run("a", 1, 0.9, **{knob: own}).is_of_this_code_alone == (":" not in own)


def test_a_run_without_a_seed_is_a_run():
    only = replace(run("a", 1, 0.9), params={"epochs": "20"})
    assert compare([only]).groups[0].values("val_accuracy") == {"": 0.9}


def test_a_group_estimates_only_what_its_runs_have():
    first, second = run("a", 1, 0.5), run("a", 2, 1.0)
    (only,) = compare([first, replace(second, metrics={**second.metrics, "f1": 7.0})]).groups
    assert only.values("f1") == {"2": 7.0}
    assert only.estimate("recall") is None
    found = only.estimate("val_accuracy")
    assert (found.n, found.mean, found.low, found.high) == (2, 0.75, 0.0, 1.0)


def test_a_single_group_is_compared_with_nothing():
    found = compare(runs_of("a", BASE), title="Why?")
    assert (found.title, found.metric, found.baseline, found.contrasts) == ("Why?", "val_accuracy", "a", ())
    assert compare(runs_of("a", BASE)).title == ""


# What a reader must know


def test_what_is_not_finished_or_has_no_such_metric_is_left_out_and_counted():
    runs = [*runs_of("a", BASE), run("a", 8, 0.1, status="RUNNING"), run("a", 9, 0.1, metric="f1")]
    found = compare(runs)
    assert found.notes == ("2 of 5 runs are not finished or lack val_accuracy, and are left out",)
    assert list(found.groups[0].values("val_accuracy")) == ["1", "2", "3"]


@pytest.mark.parametrize("status", ["RUNNING", "KILLED", "SCHEDULED"])
def test_a_run_that_diverges_and_still_runs_or_was_killed_has_not_answered_yet(status):
    found = compare([*runs_of("a", BASE), diverged("a", 9, status=status)])
    assert (found.groups[0].diverged, found.groups[0].fate) == ((), "")
    assert found.notes == ("1 of 4 runs are not finished or lack val_accuracy, and are left out",)


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_a_run_that_diverged_has_answered_whatever_numbers_it_has(status):
    lost = replace(diverged("a", 9, status=status), metrics={"val_accuracy": 0.99})
    found = compare([*runs_of("base", BASE), *runs_of("a", BETTER), lost], baseline="base")
    assert [each.seed for each in found.groups[1].diverged] == ["9"]
    assert found.groups[1].everyone == (*found.groups[1].runs, lost)
    assert verdicts(found) == {"a": "diverged in 1 of 4 runs"}


def test_seeds_that_diverged_are_told_by_number():
    runs = [*runs_of("base", BASE), *(diverged("a", seed) for seed in (10, 9, 100))]
    found = compare(runs, baseline="base")
    assert found.notes == ("a diverged in 3 of 3 runs (seed 9, 10, 100)",)
    (contrast,) = found.contrasts
    assert (contrast.verdict, contrast.test, contrast.needed) == ("diverged in 3 of 3 runs", "", None)
    kept = compare([*runs_of("base", BASE), *runs_of("a", BETTER), diverged("a", 7)], baseline="base").notes
    assert kept == ("a diverged in 1 of 4 runs (seed 7); the values shown are of the other 3 and judge nothing",)


def test_a_group_is_not_judged_where_the_baseline_diverged_and_its_own_divergence_is_told_first():
    runs = [*runs_of("base", BASE), diverged("base", 9), *runs_of("a", BETTER), *runs_of("b", BETTER), diverged("b", 9)]
    found = compare(runs, baseline="base")
    assert verdicts(found) == {"a": "not judged: base diverged in 1 of 4 runs", "b": "diverged in 1 of 4 runs"}
    numbers = [(each.difference, each.low, each.high, each.p) for each in found.contrasts]
    assert all(math.isnan(number) for four in numbers for number in four)


@pytest.mark.parametrize(("tag", "what"), [("code", "code"), ("device", "devices"), ("threads", "numbers of threads")])
def test_what_else_differs_between_runs_is_said(tag, what):
    runs = [run("a", 1, 0.9, tags={tag: "y"}), run("a", 2, 0.9, tags={tag: "x"}), run("a", 3, 0.9)]
    assert compare(runs).notes == (f"runs on different {what} are compared with each other: x, y",)
    assert compare(runs[1:]).notes == ()


def test_only_a_validation_value_of_the_test_images_is_warned_of():
    runs = [run("a", 1, 0.9, validation_size="0"), run("b", 2, 0.9, validation_size="100")]
    runs = [replace(each, metrics={**each.metrics, "test_accuracy": 0.9, "val_loss": 0.1}) for each in runs]
    for metric in ("val_accuracy", "val_loss"):
        assert compare(runs, metric=metric).notes == (
            f"{metric} of runs with validation_size 0 is that of the test images: nothing may be selected by it",
        )
    assert compare(runs, metric="test_accuracy").notes == ()
    assert compare(runs[1:]).notes == ()


def test_what_cannot_be_compared_is_said_in_a_line():
    running = replace(run("a", 1, 0.9, status="RUNNING"), metrics={"b": 1.0, "a": 2.0})
    for runs, metric, words in (
        ([], "val_accuracy", "none of 0 runs is finished and has val_accuracy; metrics there: none"),
        ([running], "val_loss", "none of 1 runs is finished and has val_loss; metrics there: a, b"),
        ([diverged("a", 1)], "f1", "none of 1 runs is finished and has f1; metrics there: none"),
    ):
        with pytest.raises(ValueError, match=f"^{words}$"):
            compare(runs, metric=metric)
    with pytest.raises(ValueError, match=r"^baseline 'c' is not among the groups: a, b$"):
        compare([*runs_of("a", BASE), *runs_of("b", BASE)], baseline="c")


@pytest.mark.parametrize(
    "name", ["val_accuracy", "val_loss", "train_accuracy", "train_loss", "test_accuracy", "test_loss"]
)
def test_where_all_diverged_that_is_the_answer_in_any_metric_of_ours(name):
    assert compare([diverged("a", 1)], metric=name).groups[0].fate == "diverged in 1 of 1 runs"


def test_a_run_of_before_there_was_another_network_stands_with_those_that_name_the_samples():
    ours = {"dataset": "mnist", "epochs": "3"}
    before = run("", 1, 0.9, **ours)
    now = run("", 2, 0.9, **ours, network="mlp", schedule="constant", gradient_clip="0.0")
    other = run("", 3, 0.9, **ours, network="cnn", schedule="constant", gradient_clip="0.0")
    assert [len(each.runs) for each in compare([before, now, other]).groups] == [2, 1]
    foreign = run("", 4, 0.9, epochs="3")
    assert [len(each.runs) for each in compare([now, foreign]).groups] == [1, 1]
