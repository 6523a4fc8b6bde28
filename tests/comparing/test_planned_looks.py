"""When an experiment is looked at, and what each look may spend."""

import math

import pytest

from pipeline.comparing import looks
from pipeline.comparing.looks import ALL, Plan, baseline_count, drawn_seeds, grouped, share, sizes, ungrouped


def test_looks_double_from_5_seeds_to_1280():
    assert ALL == (5, 10, 20, 40, 80, 160, 320, 640, 1280)
    assert [sizes(seeds) for seeds in (0, 4, 5, 9, 10, 39)] == [[], [], [5], [5], [5, 10], [5, 10, 20]]


def test_each_look_has_its_share_of_the_error_whatever_the_others_show():
    assert [share(size) for size in ALL[:4]] == [0.01, 0.43, 0.45, 0.08]
    assert [share(size) for size in ALL[4:]] == pytest.approx([0.015, 0.0075, 0.00375, 0.001875, 0.0009375])


def test_all_looks_of_all_contrasts_together_spend_5_percent_and_no_more():
    plan = Plan(("1",), ("1",), 7)
    assert 7 * sum(plan.level(size) for size in ALL) == pytest.approx(0.05 * 0.9990625)
    assert math.fsum(map(share, ALL)) < 1


def test_contrasts_share_the_level_of_a_look_also_those_that_were_asked_once():
    assert Plan(("1",), ("1",), 1).level(10) == pytest.approx(0.0215)
    assert Plan(("1",), ("1",), 5).level(10) == pytest.approx(0.0043)
    assert Plan(("1",), ("1",), 2, asked=5).level(10) == pytest.approx(0.0043)
    assert Plan(("1",), ("1",), 0).level(10) == pytest.approx(0.0215)


def test_a_name_draws_the_same_seeds_for_ever():
    """Other ones would train every recorded question anew."""
    assert drawn_seeds("dropout", 3) == [279204833, 913019654, 826747680]
    assert drawn_seeds("dropout", 2) == [279204833, 913019654]


def test_more_seeds_of_a_name_begin_with_the_fewer_and_none_comes_twice():
    many = drawn_seeds("optimizer", 200)
    assert drawn_seeds("optimizer", 20) == many[:20]
    assert len(set(many)) == 200
    assert all(1 <= seed < 10**9 for seed in many)


def test_two_names_have_no_seed_in_common():
    assert not set(drawn_seeds("dropout", 100)) & set(drawn_seeds("dropout2", 100))


def test_a_seed_drawn_twice_counts_once(monkeypatch):
    class Generator:
        def __init__(self, _):
            self.numbers = iter([4, 4, 9, 4, 2])

        def integers(self, *_):
            return next(self.numbers)

    monkeypatch.setattr(looks.np.random, "Generator", Generator)
    assert drawn_seeds("any", 3) == [4, 9, 2]


@pytest.mark.parametrize(("size", "contrasts", "count"), [(5, 1, 5), (5, 2, 8), (5, 4, 10), (20, 3, 35), (5, 0, 5)])
def test_the_baseline_gets_the_root_of_k_times_as_many_seeds(size, contrasts, count):
    assert baseline_count(size, contrasts) == count


def test_seeds_go_round_the_splits():
    plan = Plan.of([7, 8, 9], [7, 8, 9, 10], splits=2, contrasts=2)
    assert plan.seeds == ("7", "8/1", "9")
    assert plan.baseline_seeds == ("7", "8/1", "9", "10/1")
    assert [plan.splits(size) for size in (1, 2, 3)] == [1, 2, 2]
    assert Plan.of([7, 8], [7, 8], splits=1, contrasts=1).splits(2) == 1


def test_a_look_takes_the_first_seeds_in_the_plans_order():
    drawn = Plan.of(range(30, 20, -1), range(30, 0, -1), splits=1, contrasts=3)
    assert drawn.looks == [5, 10]
    assert drawn.units(5) == ("30", "29", "28", "27", "26")
    assert drawn.baseline_units(5) == ("30", "29", "28", "27", "26", "25", "24", "23", "22")


def test_where_the_file_lists_the_seeds_the_baseline_has_as_many_as_a_variant():
    listed = Plan.of(range(10), range(10), splits=1, contrasts=9)
    assert (listed.baseline_size(5), len(listed.baseline_units(10))) == (5, 10)


@pytest.mark.parametrize("baseline_seeds", [("7", "8/1"), ("7", "8/1", "9")])
def test_a_plan_comes_back_from_its_tag_with_what_else_stands_there(baseline_seeds):
    plan = Plan(("7", "8/1"), baseline_seeds, 1, asked=3)
    assert Plan.from_text(plan.as_text(look=5, file="a.yaml")) == (plan, {"look": 5, "file": "a.yaml"})
    assert ("baseline_seeds" in plan.as_text()) == (len(baseline_seeds) > 2)


@pytest.mark.parametrize("splits", [1, 3, 7])
def test_of_drawn_seeds_a_tag_keeps_how_many_they_are(splits):
    plan = Plan.of(drawn_seeds("trial", 20), drawn_seeds("trial", 35), splits, 3, asked=4)
    counts = {"seeds": 20, "baseline_seeds": 35, "splits": splits, "contrasts": 3, "asked": 4}
    assert plan.as_facts("trial") == {"drawn": "trial", **counts}
    assert plan.as_facts("another")["seeds"] == " ".join(plan.seeds)
    for name in ("trial", "another"):
        assert Plan.from_text(plan.as_text(name, look=5)) == (plan, {"look": 5})


def test_a_text_that_several_labels_have_stands_once_and_that_of_an_older_tag_is_read():
    texts = {"a": "it was added", "b": "its knobs were changed", "c": "it was added"}
    assert grouped(texts) == {"it was added": ["a", "c"], "its knobs were changed": ["b"]}
    assert ungrouped(grouped(texts)) == ungrouped(texts) == texts
    assert ungrouped(grouped({"": "the seeds were changed"})) == {"": "the seeds were changed"}


def test_a_tag_keeps_the_most_contrasts_that_there_were():
    plan, _ = Plan.from_text(Plan(("1",), ("1",), 4).as_text())
    assert (plan.contrasts, plan.asked) == (4, 4)
    assert Plan.of([1], [1], 1, 2, asked=4).asked == 4
    assert Plan.of([1], [1], 1, 4, asked=2).asked == 4


@pytest.mark.parametrize(
    "text", ["", "null", "7", "[]", "{}", '{"seeds": 7}', '{"seeds": "1 2"}', '{"seeds": "1", "contrasts": "x"}']
)
def test_what_is_no_plan_is_none(text):
    assert Plan.from_text(text) is None
