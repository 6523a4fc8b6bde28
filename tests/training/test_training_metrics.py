"""Means over images: exact, over unequal batches, NaN among them, in float64 whatever the training computes with."""

import contextlib

import pytest
import torch

from pipeline.config.own_code import OwnCodeError
from pipeline.training.metrics import EpochMeasure, ExampleMean, make_measures


def test_a_mean_is_over_images_and_not_over_batches():
    mean = ExampleMean()
    mean.update(torch.tensor(1.0), 4)
    mean.update(torch.tensor(6.0), 1)
    assert mean.compute().item() == 2.0
    mean.update(torch.tensor([True, False, False]), 3)
    assert mean.compute().item() == 11 / 8
    mean.reset()
    mean.update(torch.tensor(3.0), 2)
    assert mean.compute().item() == 3.0


def test_sums_are_exact_where_float32_would_round():
    mean = ExampleMean()
    for loss in (2.0**24, 1.0, 1.0):
        mean.update(torch.tensor(loss), 1)
    assert (mean.total.item(), mean.examples.item(), mean.compute().dtype) == (2**24 + 2, 3, torch.float64)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_the_mean_and_not_dropped(value):
    mean = ExampleMean()
    mean.update(torch.tensor(1.0), 9)
    mean.update(torch.tensor(value), 1)
    assert repr(mean.compute().item()) == repr(value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_module_of_fewer_bits_does_not_round_it(dtype):
    mean = torch.nn.ModuleDict({"loss": ExampleMean()}).to(dtype)["loss"]
    for begin in (1, 2):
        for _ in range(1000):
            mean.update(torch.tensor([True, True, False]), 3)
        assert mean.compute().item() == 2 / 3, begin
        mean.reset()


def test_a_batch_that_is_counted_keeps_no_graph_alive():
    mean = ExampleMean()
    mean.update(torch.ones(1, requires_grad=True).sum() * 2, 1)
    assert not mean.total.requires_grad


OWN = "tests.own_training_code"
LABELS = torch.tensor([0, 0, 0, 1, 1, 2])
PREDICTED = torch.tensor([0, 0, 1, 1, 1, 0])


def logits_of(predicted, classes=3):
    return torch.nn.functional.one_hot(predicted, classes).float()


def test_macro_f1_is_the_mean_over_the_classes():
    """Of class 0 two of three are found and two of three found are right; of class 1 2/2 and 2/3; class 2 is missed."""
    (measure,) = make_measures("macro_f1")
    found = measure(logits_of(PREDICTED), LABELS)
    assert found.item() == pytest.approx((2 / 3 + 2 * 1 * (2 / 3) / (1 + 2 / 3) + 0) / 3, rel=1e-6)
    assert (found.dtype, found.shape, measure.name) == (torch.float64, (), "macro_f1")


def test_macro_f1_leaves_out_a_class_that_never_occurs():
    (measure,) = make_measures("macro_f1")
    assert measure(logits_of(LABELS, 9), LABELS).item() == 1.0


def test_several_measures_are_called_like_their_functions():
    assert [each.name for each in make_measures(f"macro_f1,{OWN}:share,{OWN}:nan")] == ["macro_f1", "share", "nan"]
    assert make_measures("") == []


@pytest.mark.parametrize("ranks", [False, True])
def test_a_measure_is_over_all_examples_and_not_a_mean_over_batches(ranks):
    measured = EpochMeasure(*make_measures("macro_f1"))
    for rows in (slice(0, 4), slice(4, 6)):
        measured.update(logits_of(PREDICTED[rows]), LABELS[rows])
    if ranks:  # as torchmetrics leaves the states of all ranks
        measured.logits, measured.labels = (torch.cat(parts) for parts in (measured.logits, measured.labels))
    assert measured.compute().item() == make_measures("macro_f1")[0](logits_of(PREDICTED), LABELS).item()


def test_an_epoch_begins_anew_and_keeps_no_graph_alive():
    measured = EpochMeasure(*make_measures(f"{OWN}:largest"))
    measured.update(torch.full((1, 2), 9.0, requires_grad=True) * 1, torch.zeros(1))
    assert not measured.logits[0].requires_grad
    assert measured.compute().item() == 9.0
    measured.reset()
    measured.update(torch.full((1, 2), 3.0), torch.zeros(1))
    assert measured.compute().item() == 3.0


def test_nan_is_a_number_of_a_measure_and_infinity_and_words_are_not():
    logits = logits_of(PREDICTED)
    assert make_measures(f"{OWN}:nan")[0](logits, LABELS).isnan()
    for name, gave in (("infinite", "inf"), ("words", "'good'")):
        with pytest.raises(OwnCodeError) as error:
            make_measures(f"{OWN}:{name}")[0](logits, LABELS)
        assert str(error.value) == f"{OWN}:{name} gave {gave} for 6 examples, expected a finite number, or nan"


def test_what_a_measure_raises_is_raised_as_it_is():
    with pytest.raises(KeyError, match="a bug of the user's"):
        make_measures(f"{OWN}:broken")[0](logits_of(PREDICTED), LABELS)


def test_a_measure_gets_float32_logits():
    assert make_measures(f"{OWN}:share")[0](logits_of(PREDICTED).bfloat16(), LABELS).item() == pytest.approx(4 / 6)


def beside(metric, other):
    """The metric as it is on a rank beside another one: what torchmetrics gathers of a state are both."""
    states = iter([torch.cat(state) if isinstance(state, list) else state for state in other.metric_state.values()])
    metric.distributed_available_fn = lambda: True
    metric.dist_sync_fn = lambda state, group: [state, next(states)]
    return metric


def test_a_mean_is_over_the_images_of_all_ranks():
    one, other = ExampleMean(), ExampleMean()
    assert (one.total.dtype, one.examples.dtype) == (torch.float64, torch.int64)  # the same on a rank without any yet
    one.update(torch.tensor(1.0), 4)
    other.update(torch.tensor(6.0), 1)
    assert beside(one, other).compute().item() == 2.0


def test_a_measure_is_over_the_examples_of_all_ranks():
    one, other, whole = (EpochMeasure(*make_measures("macro_f1")) for _ in range(3))
    for measured, rows in ((one, slice(0, 2)), (one, slice(2, 4)), (other, slice(4, 6)), (whole, slice(0, 6))):
        measured.update(logits_of(PREDICTED[rows]), LABELS[rows])
    assert beside(one, other).compute().item() == whole.compute().item()


def test_a_measure_is_computed_in_float32_whatever_the_training_computes_in():
    (measure,) = make_measures("macro_f1")
    measure.function = lambda logits, labels: logits @ logits.T
    logits = torch.tensor([[1 + 2**-10]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert measure(logits, LABELS).item() == (1 + 2**-10) ** 2


def test_a_measure_lies_where_its_logits_lie(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # which meta has none of
    (measure,) = make_measures("macro_f1")
    measure.function = lambda logits, labels: 0.5
    assert measure(torch.ones(1, 3, device="meta"), LABELS).device.type == "meta"
