"""The verdict on two models by the images on which they disagree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.registry.promotion import Verdict, judge


def predictions(both, only_champion, only_candidate, neither):
    champion = np.repeat([3, 3, 5, 5], [both, only_champion, only_candidate, neither])
    candidate = np.repeat([3, 4, 3, 4], [both, only_champion, only_candidate, neither])
    return np.full(len(champion), 3), champion, candidate


@pytest.mark.parametrize(
    ("only_champion", "only_candidate", "p"),
    [(0, 5, 2 / 32), (6, 0, 2 / 64), (1, 5, 14 / 64), (7, 1, 18 / 256), (8, 2, 112 / 1024), (3, 3, 1), (0, 0, 1)],
)
def test_mcnemars_exact_test_by_hand(only_champion, only_candidate, p):
    """Twice the share of the 2**n coin tosses that are at least as uneven, at most 1."""
    found = judge(*predictions(11, only_champion, only_candidate, 4))
    assert found.p == pytest.approx(p)
    assert (found.only_champion, found.only_candidate) == (only_champion, only_candidate)
    assert (found.champion, found.candidate) == (11 + only_champion, 11 + only_candidate)
    assert found.images == 15 + only_champion + only_candidate


TABLE = st.tuples(*[st.integers(0, 20)] * 4)


@settings(max_examples=20)
@given(TABLE, st.randoms(use_true_random=False))
def test_the_order_of_the_images_decides_nothing(table, random):
    labels, champion, candidate = predictions(*table)
    order = random.sample(range(len(labels)), len(labels))
    assert judge(labels[order], champion[order], candidate[order]) == judge(labels, champion, candidate)


@settings(max_examples=20)
@given(TABLE)
def test_with_the_sides_exchanged_the_counts_are_and_p_stays(table):
    labels, champion, candidate = predictions(*table)
    found, turned = judge(labels, champion, candidate), judge(labels, candidate, champion)
    assert (turned.champion, turned.candidate) == (found.candidate, found.champion)
    assert (turned.only_champion, turned.only_candidate) == (found.only_candidate, found.only_champion)
    assert turned.p == found.p
    assert not (turned.shown_worse and found.shown_worse)
    assert turned.promotes or found.promotes


@settings(max_examples=20)
@given(TABLE, st.integers(0, 20), st.integers(0, 20))
def test_images_on_which_both_agree_prove_nothing(table, right, wrong):
    found, more = judge(*predictions(*table)), judge(*predictions(table[0] + right, *table[1:3], table[3] + wrong))
    assert (more.p, more.words) == (found.p, found.words)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict(99, 50, 50, 0, 0, 1.0), "promote: at least as accurate, and not shown to be worse"),
        (Verdict(99, 50, 51, 0, 1, 1.0), "promote: at least as accurate, and not shown to be worse"),
        (Verdict(99, 50, 60, 0, 10, 0.002), "promote: at least as accurate, and not shown to be worse"),
        (Verdict(99, 51, 50, 1, 0, 1.0), "refuse: less accurate than the champion"),
        (Verdict(99, 60, 50, 10, 0, 0.05), "refuse: less accurate than the champion"),
        (Verdict(99, 60, 50, 10, 0, 0.04999), "refuse: shown to be worse (p = 0.05)"),
        (Verdict(99, 60, 50, 10, 0, 0.00195), "refuse: shown to be worse (p = 0.0019)"),
    ],
)
def test_a_verdict_in_words(verdict, words):
    assert verdict.words == words
    assert verdict.promotes == words.startswith("promote")
    assert verdict.shown_worse == ("shown to be worse (" in words)


def test_as_many_lost_as_won_is_not_worse_whatever_p_says():
    assert not Verdict(99, 50, 50, 5, 5, 0.01).shown_worse
