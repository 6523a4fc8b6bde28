"""Names as MLflow takes them: every name becomes one, and no two become the same."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_metric_name, _validate_param_name

from pipeline.delivery.keys import LONGEST, key_of


@pytest.mark.parametrize(
    "name", ["val_loss", "train/loss", "a.b-c d:e", "Übung", "x40", "_x_y", "_", "a_xyz_", "lr-Adam/pg1", "x" * 250]
)
def test_what_mlflow_takes_stays_as_it_is(name):
    _validate_metric_name(name)
    assert key_of(name) == name


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("loss@2", "loss_x40_2"),
        ("loss_x40_2", "loss_x5f_x40_2"),
        ("top(5)", "top_x28_5_x29_"),
        ("", "_x00_"),
        ("a//b", "a/_x00_/b"),
        ("/a", "_x00_/a"),
        ("a/", "a/_x00_"),
        ("..", "_x2e__x2e_"),
        ("a/../b", "a/_x2e__x2e_/b"),
        ("..a", "_x2e_.a"),
        ("a\nb", "a_xa_b"),
        ("\x04x40_", "_x4_x40_"),
        ("_x4@", "_x5f_x4_x40_"),
        ("\0", "_x0_"),
        ("_x@", "_x_x40_"),
    ],
)
def test_each_character_that_it_does_not_take_has_its_number(name, key):
    assert key_of(name) == key


def test_no_two_of_many_names_become_one():
    pieces = ["a", "/", ".", "_", "x", "0", "@", "\0", "_x0"]
    names = {"".join(each) for length in range(6) for each in itertools.product(pieces, repeat=length)}
    keys = {key_of(name) for name in names}
    assert len(keys) == len(names)


def test_names_too_long_differ_in_their_hashes():
    assert LONGEST == MAX_ENTITY_KEY_LENGTH
    one, other = key_of("x" * 300), key_of("x" * 301)
    assert one != other
    assert one.startswith("x" * 232 + "_x")
    assert (len(one), len(key_of("x" * 251))) == (250, 250)


@given(st.text(max_size=400))
def test_mlflow_takes_every_one(name):
    _validate_metric_name(key_of(name))
    _validate_param_name(key_of(name))
