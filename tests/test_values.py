"""Counts as a person reads them."""

import pytest

from pipeline.values import counted


@pytest.mark.parametrize(
    ("number", "verb", "words"),
    [
        (0, "", "0 records"),
        (1, "", "1 record"),
        (1200, "", "1,200 records"),
        (1, "wait", "1 record waits"),
        (2, "wait", "2 records wait"),
        (1, "are", "1 record is"),
        (3, "are", "3 records are"),
    ],
)
def test_thing_and_verb_go_with_their_number(number, verb, words):
    assert counted(number, "record", verb) == words
