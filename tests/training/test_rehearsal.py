"""What is the user's own is tried before a training: what is wrong is one line with the line of its code."""

import pytest
import torch

from pipeline.config import RunConfig
from pipeline.config.own_code import OwnCodeError
from pipeline.training import building, rehearsal

OWN = "tests.own_training_code"
CODE = """
from torch import nn
class Right(nn.Module):
    def __init__(self, spec, width: int = 10):
        super().__init__()
        self.layer = nn.Linear(spec.size, width)
    def forward(self, inputs):
        return self.layer(inputs.flatten(1))
class NotANumber(Right):
    def forward(self, inputs):
        return super().forward(inputs) * float("nan")
class Fails(Right):
    def forward(self, inputs):
        return self.layer(inputs)
class Keeps(Right):
    def get_extra_state(self):
        return Fails
    def set_extra_state(self, state):
        pass
class Normed(Right):
    def __init__(self, spec, width: int = 10):
        super().__init__(spec, width)
        self.norm = nn.BatchNorm1d(width)
    def forward(self, inputs):
        return self.norm(super().forward(inputs))
class Squeezes(Right):
    def forward(self, inputs):
        return super().forward(inputs).squeeze()
class Across(Right):
    def __init__(self, spec, width: int = 10):
        super().__init__(spec, width)
        self.steps = nn.LSTM(width, 10, batch_first=False)
    def forward(self, inputs):
        return self.steps(super().forward(inputs)[:, None])[0][:, -1]
class Draws(Right):
    def forward(self, inputs):
        return nn.functional.dropout(super().forward(inputs), 0.5, training=True)
"""
OTHERS = """
import numpy as np, torch
from pytorch_lightning import Callback
class Thing:
    pass
class Holds(Callback):
    what = Thing()
    def state_dict(self):
        return {"held": self.what}
class Local(Holds):
    what = [lambda: 1]
class Raises(Holds):
    def state_dict(self):
        return {"held": self.nothing}
class Numbers(Holds):
    what = [np.float64(0.5), np.arange(3)]
class Keeping(torch.optim.SGD):
    def step(self, closure=None):
        loss = super().step(closure)
        self.state["all"] = {"held": Thing()}
        return loss
def keeping(parameters, learning_rate):
    return Keeping(parameters, lr=learning_rate)
class Stumbling(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("no step")
def stumbling(parameters, learning_rate):
    return Stumbling(parameters, lr=learning_rate)
"""


def rehearse(tmp_path, monkeypatch, processes=1, **knobs):
    (tmp_path / "my_rehearsed.py").write_text(CODE)
    (tmp_path / "my_others.py").write_text(OTHERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = RunConfig(dataset="digits", **knobs)
    data = building.make_data(config)
    data.setup()
    rehearsal.rehearse(config, data, processes)


def test_what_is_right_passes_and_leaves_the_random_state_to_others(tmp_path, monkeypatch):
    before = torch.random.get_rng_state()
    knobs = {"optimizer": f"{OWN}:nadam", "callback": "my_others:Numbers", "augment": "shift"}
    rehearse(tmp_path, monkeypatch, network="my_rehearsed:Right", **knobs)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_network_that_draws_in_evaluation_too_is_not_taken_for_one_that_mixes_examples(tmp_path, monkeypatch):
    rehearse(tmp_path, monkeypatch, network="my_rehearsed:Draws")


def test_a_network_is_built_once_for_all_that_is_tried_on_it(tmp_path, monkeypatch):
    built = []
    make = building.make_network
    monkeypatch.setattr(building, "make_network", lambda *given: built.append(given) or make(*given))
    rehearse(tmp_path, monkeypatch, network=f"{OWN}:Network", optimizer=f"{OWN}:lbfgs", augment="shift")
    assert len(built) == 1
    rehearse(tmp_path, monkeypatch)  # nothing is the user's own
    assert len(built) == 1


@pytest.mark.parametrize(
    ("name", "knobs", "words"),
    [
        (
            "Right",
            {"width": 7},
            r"\(my_rehearsed.py:7\): it gives shape \(4, 7\), expected \(4, 10\): a logit for each",
        ),
        ("NotANumber", {}, r"\(my_rehearsed.py:10\): its loss on the first batch is nan, expected a finite number"),
        ("Fails", {}, r"\(my_rehearsed.py:14\): RuntimeError: .*; tried on 4 examples of shape \(1, 28, 28\)"),
        ("Squeezes", {}, r"\(my_rehearsed.py:27\): to one example alone it gives shape \(10,\), expected \(1, 10\)$"),
        ("Across", {}, r"\(my_rehearsed.py:33\): in evaluation its answer to an example depends on the others of the"),
        ("Keeps", {}, r"\(my_rehearsed.py:7\): its state holds my_rehearsed.Fails; expected tensors, NumPy arrays and"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_place(tmp_path, monkeypatch, name, knobs, words):
    with pytest.raises(OwnCodeError, match=rf"^network my_rehearsed:{name} {words}") as caught:
        rehearse(tmp_path, monkeypatch, network=f"my_rehearsed:{name}", **knobs)
    assert "\n" not in str(caught.value)


LAST = "so few has the last batch of an epoch: take another batch_size or validation_size"


@pytest.mark.parametrize(
    ("knobs", "processes"),
    [
        ({"batch_size": 4}, 1),
        ({"validation_size": 28}, 1),  # 1,409 to train on
        ({"batch_size": 1}, 1),
        ({"validation_size": 156}, 10),  # 1,281, of which each gets 129, some of them twice
    ],
)
def test_a_network_that_cannot_take_an_epochs_last_batch_is_told_before_it_costs_one(
    tmp_path, monkeypatch, knobs, processes
):
    words = r"ValueError: Expected more than 1 value per channel .*; tried on 1 example of shape \(1, 28, 28\); "
    with pytest.raises(OwnCodeError, match=rf"^network my_rehearsed:Normed \(my_rehearsed.py:25\): {words}{LAST}$"):
        rehearse(tmp_path, monkeypatch, processes, network="my_rehearsed:Normed", **knobs)
    words = r"it gives shape \(10,\), expected \(1, 10\): a logit for each class"
    place = r"\(my_rehearsed.py:27\)"
    with pytest.raises(OwnCodeError, match=rf"^network my_rehearsed:Squeezes {place}: {words}; {LAST}$"):
        rehearse(tmp_path, monkeypatch, processes, network="my_rehearsed:Squeezes", **knobs)


@pytest.mark.parametrize(
    ("knobs", "processes"),
    [({}, 1), ({"batch_size": 3}, 1), ({"validation_size": 29}, 1), ({"validation_size": 28}, 2), ({"epochs": 1}, 10)],
)
def test_a_network_that_needs_two_examples_passes_where_the_last_batch_has_them(
    tmp_path, monkeypatch, knobs, processes
):
    rehearse(tmp_path, monkeypatch, processes, network="my_rehearsed:Normed", **knobs)


@pytest.mark.parametrize(
    ("knob", "name", "words"),
    [
        (
            "callback",
            "Holds",
            r"8\): its state holds my_others.Thing; expected tensors, NumPy arrays and plain types: ",
        ),
        ("callback", "Local", r"8\): its state cannot be pickled \(PicklingError: "),
        ("callback", "Raises", r"14\): AttributeError: 'Raises' object has no attribute 'nothing'"),
        ("optimizer", "keeping", r"17\): its state holds my_others.Thing; expected tensors"),
        ("optimizer", "stumbling", r"26\): RuntimeError: no step"),
    ],
)
def test_a_state_that_no_checkpoint_could_give_back_is_told_before_it_costs_a_resumption(
    tmp_path, monkeypatch, knob, name, words
):
    with pytest.raises(OwnCodeError, match=rf"^{knob} my_others:{name} \(my_others.py:{words}") as caught:
        rehearse(tmp_path, monkeypatch, **{knob: f"my_others:{name}"})
    assert "\n" not in str(caught.value)


def test_two_callbacks_whose_states_would_be_one_are_told_apart_before_lightning_refuses_them(tmp_path, monkeypatch):
    words = r"^callback my_others:Numbers keeps its state as 'Numbers', as my_others:Numbers does; give it a state_key$"
    with pytest.raises(OwnCodeError, match=words):
        rehearse(tmp_path, monkeypatch, callback="my_others:Numbers,my_others:Numbers")
