"""The user's own code, tried on a few examples before a training begins: what would fail late fails now."""

import functools
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from pytorch_lightning import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import RunConfig, own_code
from pipeline.config.own_code import OwnCodeError, begin_of
from pipeline.data.datamodule import DataModule
from pipeline.training.building import make_callbacks, make_classifier
from pipeline.training.checkpoints import problem_of
from pipeline.training.classifier import Batch, Classifier
from pipeline.values import counted

EXAMPLES = 4
SAME = 0.01  # of the largest logit: what a GPU rounds otherwise for another number of examples is far below
LAST = "; so few has the last batch of an epoch: take another batch_size or validation_size"
T = TypeVar("T")


def rehearse(config: RunConfig, data: DataModule, processes: int = 1) -> None:
    """Try each part that is the user's own, over one classifier that is thrown away; torch's random state stays.

    Args:
        config: the knobs; of what is shipped only the augmentation is tried, which may not go with the data.
        data: set up.
        processes: how many share an epoch's examples.

    Raises:
        OwnCodeError: saying what is wrong, in which file and line.
    """
    if not config.own_code() and not config.augment:
        return
    assert data.source is not None
    with torch.random.fork_rng(devices=[]):
        _try_callbacks(config.callback)
        classifier = make_classifier(config, data.source.spec)
        for epoch in (0, config.epochs - 1):
            if classifier.factor:
                classifier.factor(epoch)
        share = -(-len(data.train_examples) // processes)
        last = share % config.batch_size or min(config.batch_size, share)
        if classifier.augment:
            inputs, _ = data.train_examples.__getitems__([*range(min(config.batch_size, len(data.train_examples)))])
            for count in (len(inputs), last):
                classifier.augment(inputs[:count])
        batch = data.train_examples.__getitems__([*range(min(EXAMPLES, len(data.train_examples)))])
        classifier.to(batch[0].device)
        if own_code.is_own(config.network):
            few = {LAST: (batch[0][:last], batch[1][:last])} if last < EXAMPLES else {}
            _try_network(config.network, classifier.network, {"": batch} | few, len(data.source.spec.classes))
        if own_code.is_own(config.optimizer):
            _try_optimizer(config.optimizer, classifier, batch)


def _try_callbacks(paths: str) -> None:
    """Ask each for its state, which every checkpoint is to hold and a resumption to load."""
    names = [path for path in paths.split(",") if path]
    owners: dict[str, str] = {}
    for path, callback in zip(names, make_callbacks(paths), strict=True):
        what = f"callback {path}"
        state = _told(what, path, callback.state_dict)
        if problem := problem_of(state):
            raise OwnCodeError(f"{what} ({begin_of(type(callback).state_dict)}): its state {problem}")
        if type(callback).state_dict is Callback.state_dict:
            continue
        if other := owners.get(callback.state_key):
            raise OwnCodeError(
                f"{what} keeps its state as {callback.state_key!r}, as {other} does; give it a state_key"
            )
        owners[callback.state_key] = path


def _try_network(path: str, network: nn.Module, batches: Mapping[str, Batch], classes: int) -> None:
    """Take each batch forward, backward and through an evaluation; its key is what an error of it says at the end."""
    what, place = f"network {path}", begin_of(type(network).forward)
    for hint, batch in batches.items():
        count, *shape = batch[0].shape
        tried = f"; tried on {counted(count, 'example')} of shape {tuple(shape)}{hint}"
        if problem := _told(what, path, functools.partial(_problem_of_answers, network, batch, classes), tried):
            raise OwnCodeError(f"{what} ({place}): {problem}{hint}")
    alone = functools.partial(_problem_of_one, network, batches[""][0])
    if problem := _told(what, path, alone, "; tried in evaluation on one example alone"):
        raise OwnCodeError(f"{what} ({place}): {problem}")
    if lost := problem_of(_told(what, path, network.state_dict)):
        raise OwnCodeError(f"{what} ({place}): its state {lost}")


def _try_optimizer(path: str, classifier: Classifier, batch: Batch) -> None:
    """Take one step, after which its state is what checkpoints hold."""
    inputs, labels = batch
    optimizer = classifier.make_optimizer(classifier.network.parameters())
    what = f"optimizer {path}"

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(classifier.network(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    classifier.network.train()
    _told(what, path, lambda: optimizer.step(closure))  # type: ignore[arg-type]
    if problem := problem_of(_told(what, path, optimizer.state_dict)):
        raise OwnCodeError(f"{what} ({begin_of(type(optimizer))}): its state {problem}")


def _told(what: str, path: str, call: Callable[[], T], tried: str = "") -> T:
    """What the call gives; an error of the user's code ends in one line with the place that it came from."""
    try:
        return call()
    except Exception as error:
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise OwnCodeError(f"{what} ({own_code.place_of(error, path)}): {words}{tried}") from error


def _problem_of_answers(network: nn.Module, batch: Batch, classes: int) -> str:
    inputs, labels = batch
    logits = network.train()(inputs)
    expected = f"expected ({len(inputs)}, {classes}): a logit for each class"
    if not isinstance(logits, Tensor):
        return f"it gives {type(logits).__name__}, {expected}"
    if logits.shape != (len(inputs), classes):
        return f"it gives shape {tuple(logits.shape)}, {expected}"
    if not logits.is_floating_point():
        return f"it gives {logits.dtype}, expected floating-point logits"
    loss = F.cross_entropy(logits, labels)
    if not loss.isfinite():
        return f"its loss on the first batch is {loss.item():g}, expected a finite number"
    if not loss.requires_grad:
        return "its answer depends on no weight that can be trained"
    loss.backward()  # type: ignore[no-untyped-call]
    if not any(weight.grad is not None for weight in network.parameters()):
        return "no gradient reaches a weight"
    with torch.no_grad():
        finite = network.eval()(inputs).isfinite().all()
    return "" if finite else "its answers in evaluation are not finite"


def _problem_of_one(network: nn.Module, inputs: Tensor) -> str:
    """Why the last example alone is not answered as among the others, or nothing: a service is asked so."""
    with torch.no_grad():
        answers, again, alone = network.eval()(inputs), network(inputs), network(inputs[-1:])
    if alone.shape != answers[-1:].shape:
        return f"to one example alone it gives shape {tuple(alone.shape)}, expected {tuple(answers[-1:].shape)}"
    if not torch.equal(again, answers) or (alone - answers[-1:]).abs().max() <= SAME * answers.abs().max():
        return ""
    return (
        "in evaluation its answer to an example depends on the others of the batch, which is the first dimension "
        "(a layer without batch_first=True?)"
    )
