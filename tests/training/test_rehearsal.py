"""A network of the user's own is tried before a training: what is wrong is one line with the line of its code."""

import pytest
import torch

from pipeline.config import RunConfig
from pipeline.config.own_code import OwnCodeError
from pipeline.training import building, rehearsal

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
"""


def rehearse(tmp_path, monkeypatch, name, **knobs):
    (tmp_path / "my_rehearsed.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = RunConfig(dataset="digits", network=f"my_rehearsed:{name}", **knobs)
    data = building.make_data(config)
    data.setup()
    rehearsal.rehearse(config, data)


def test_a_network_that_answers_right_passes_and_leaves_the_random_state_to_others(tmp_path, monkeypatch):
    before = torch.random.get_rng_state()
    rehearse(tmp_path, monkeypatch, "Right")
    assert torch.equal(torch.random.get_rng_state(), before)


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
    ],
)
def test_what_is_wrong_is_one_line_with_the_place(tmp_path, monkeypatch, name, knobs, words):
    with pytest.raises(OwnCodeError, match=rf"^network my_rehearsed:{name} {words}") as caught:
        rehearse(tmp_path, monkeypatch, name, **knobs)
    assert "\n" not in str(caught.value)
