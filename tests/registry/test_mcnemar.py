"""The verdict on two models by the images on which they disagree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, multinomial

from pipeline.registry.judgement import Verdict, judge, level_of, p_value, p_value_with_margin
from tests.equal_candidates import SAMPLE, SHAKY, answers, promoted, rise, shown_better


def predictions(both, only_champion, only_candidate, neither):
    champion = np.repeat([3, 3, 5, 5], [both, only_champion, only_candidate, neither])
    candidate = np.repeat([3, 4, 3, 4], [both, only_champion, only_candidate, neither])
    return np.full(len(champion), 3), champion, candidate


@pytest.mark.parametrize(
    ("only_champion", "only_candidate", "p"),
    [(0, 5, 1 / 32), (6, 0, 1), (1, 5, 7 / 64), (5, 1, 63 / 64), (2, 8, 56 / 1024), (0, 0, 1), (2, 2, 11 / 16)],
)
def test_mcnemars_exact_test_by_hand(only_champion, only_candidate, p):
    """The share of the 2**n coin tosses that favour the candidate at least as much."""
    found = judge(*predictions(11, only_champion, only_candidate, 4), look=3, margin=0.0)
    assert found.p == pytest.approx(p)
    assert (found.only_champion, found.only_candidate) == (only_champion, only_candidate)
    assert (found.champion, found.candidate) == (11 + only_champion, 11 + only_candidate)
    assert (found.images, found.look) == (15 + only_champion + only_candidate, 3)


@pytest.mark.parametrize(("champion", "candidate"), [(10, 2), (3, 9), (7, 7), (40, 20), (104, 136)])
def test_it_is_scipys_one_sided_binomial_test(champion, candidate):
    expected = binomtest(candidate, champion + candidate, 0.5, alternative="greater").pvalue
    assert p_value(candidate, champion) == pytest.approx(expected, rel=1e-12)


TABLE = st.tuples(*[st.integers(0, 20)] * 4)


@settings(max_examples=20)
@given(TABLE, st.randoms(use_true_random=False))
def test_the_order_of_the_images_decides_nothing(table, random):
    labels, champion, candidate = predictions(*table)
    order = random.sample(range(len(labels)), len(labels))
    assert judge(labels[order], champion[order], candidate[order]) == judge(labels, champion, candidate)


@settings(max_examples=20)
@given(TABLE)
def test_of_two_at_most_one_is_better(table):
    labels, champion, candidate = predictions(*table)
    found, turned = judge(labels, champion, candidate), judge(labels, candidate, champion)
    assert (turned.champion, turned.candidate) == (found.candidate, found.champion)
    assert not (turned.promotes and found.promotes)


@settings(max_examples=20)
@given(TABLE, st.integers(0, 20), st.integers(0, 20))
def test_images_on_which_both_agree_prove_nothing(table, right, wrong):
    found, more = judge(*predictions(*table)), judge(*predictions(table[0] + right, *table[1:3], table[3] + wrong))
    assert (more.p, more.words) == (found.p, found.words)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (
            Verdict(99, 50, 60, 0, 10, look=5),
            "promote: shown to be better; needs p < 0.00167 (look 5), has 0.000977: 10 to 0",
        ),
        (
            Verdict(99, 50, 57, 24, 31, look=2),
            "refuse: not shown to be better; needs p < 0.00833 (look 2), has 0.209: 31 to 24; "
            "it would have taken 37 to 18",
        ),
        (
            Verdict(99, 50, 50, 0, 0),
            "refuse: not shown to be better; needs p < 0.025 (look 1), has 1: 0 to 0; "
            "no split of 0 would have been enough",
        ),
        (
            Verdict(10_000, 9_800, 9_800, 0, 0, margin=0.2),
            "promote: shown to be at most 0.2 points worse; needs p < 0.025 (look 1), has 0.00025: 0 to 0",
        ),
    ],
)
def test_a_verdict_in_words(verdict, words):
    assert verdict.words == words
    assert verdict.promotes == words.startswith("promote")


@pytest.mark.parametrize(("look", "disagreements"), [(1, 6), (1, 240), (2, 55), (10, 100), (100, 31)])
def test_what_it_would_have_taken_is_the_least_that_is_enough(look, disagreements):
    promoting = [n for n in range(disagreements + 1) if Verdict(999, 0, 0, disagreements - n, n, look).promotes]
    words = Verdict(999, 0, 0, disagreements, 0, look).words
    assert words.endswith(f"; it would have taken {promoting[0]} to {disagreements - promoting[0]}")
    assert promoting == list(range(promoting[0], disagreements + 1))


def test_the_levels_of_all_looks_add_up_to_five_per_cent():
    levels = [level_of(look) for look in range(1, 10_001)]
    assert levels[:3] == pytest.approx([0.025, 0.05 / 6, 0.05 / 12])
    assert sum(levels) == pytest.approx(0.05 * (1 - 1 / 10_001))


# With a margin


@pytest.mark.parametrize(
    ("images", "each_way", "margin", "level"), [(40, 0.05, 0.1, 0.025), (60, 0.0, 0.08, 0.025), (25, 0.2, 0.2, 0.025)]
)
def test_a_model_worse_by_the_margin_is_promoted_no_more_often_than_the_level(images, each_way, margin, level):
    """Summed over all tables that there are: the test is exact, also where normal approximations are not."""
    shares = [each_way, each_way + margin, 1 - 2 * each_way - margin]
    tables = [(c, b, images - b - c) for c in range(images + 1) for b in range(images + 1 - c)]
    likely = [table for table in tables if multinomial.pmf(table, images, shares) > 1e-7]
    promoting = [t for t in likely if p_value_with_margin(t[0], t[1], images, margin, level) < level]
    share = sum(multinomial.pmf(table, images, shares) for table in promoting)
    assert level / 10 < share <= level


def test_p_falls_with_the_margin_so_that_one_chosen_after_a_look_is_as_good():
    margins = [0.0001, 0.001, 0.002, 0.005, 0.02]
    for candidate, champion in ((120, 120), (130, 110), (3, 9), (0, 2)):
        found = [p_value_with_margin(candidate, champion, 10_000, margin, 0.025) for margin in margins]
        assert found == sorted(found, reverse=True)


def test_p_falls_as_the_candidate_wins_more_of_the_disagreements():
    found = [p_value_with_margin(part, 60 - part, 10_000, 0.002, 0.025) for part in range(61)]
    assert found == sorted(found, reverse=True)


def test_ten_times_the_images_show_what_ten_thousand_do_not():
    assert not Verdict(10_000, 0, 0, 120, 120, margin=0.2).promotes
    assert Verdict(100_000, 0, 0, 1200, 1200, margin=0.2).promotes
    assert Verdict(10_000, 0, 0, 120, 120, margin=0.5).promotes


def test_two_that_disagree_on_every_image_are_judged_too():
    assert Verdict(40, 0, 0, 20, 20, margin=5).p > 0.2
    assert Verdict(40, 0, 0, 40, 0, margin=5).p == 1
    assert Verdict(40, 0, 0, 0, 40, margin=5).promotes


# A hundred candidates


@pytest.mark.parametrize("world", [SHAKY, SAMPLE], ids=["1.2 % each way", "0.5 % each way"])
def test_of_a_hundred_equal_candidates_hardly_ever_one_replaces_the_champion(world):
    """Exact: the number of sequences with a new champion is binomial with at most 5 %; 0.1 % of seeds would fail."""
    rng, sequences = np.random.default_rng(0), 20
    found = [promoted(answers(world, 101, rng), shown_better) for _ in range(sequences)]
    assert sum(len(champions) > 1 for champions in found) <= binom.isf(0.001, sequences, 0.05)
    assert np.mean([rise(champions) for champions in found]) <= 0.06


def test_a_candidate_half_a_point_better_is_promoted_at_the_first_look_four_times_in_five():
    rng = np.random.default_rng(0)
    found = rng.multinomial(10_000, [0.0120, 0.0170, 0.971], 1000)
    assert np.mean([Verdict(10_000, 0, 0, int(old), int(new)).promotes for old, new, _ in found]) >= 0.8
