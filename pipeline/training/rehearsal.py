"""A network of the user's own, tried on a few examples before a training begins: what would fail late fails now."""

import inspect
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from pipeline.config import RunConfig, own_code
from pipeline.config.own_code import OwnCodeError
from pipeline.data.datamodule import DataModule
from pipeline.training.building import make_classifier

EXAMPLES = 4


def rehearse(config: RunConfig, data: DataModule) -> None:
    """Take one small batch forward, backward and through an evaluation, in torch's own random state.

    Args:
        config: the knobs; shipped networks are not tried.
        data: set up.

    Raises:
        OwnCodeError: saying what is wrong with the network's answer, in which file and line.
    """
    if not own_code.is_own(config.network):
        return
    assert data.source is not None
    inputs, labels = data.train_examples.__getitems__(list(range(min(EXAMPLES, len(data.train_examples)))))
    state = torch.random.get_rng_state()
    network = make_classifier(config, data.source.spec).network.to(inputs.device)
    try:
        _try(network, inputs, labels, len(data.source.spec.classes))
    except OwnCodeError as error:
        raise OwnCodeError(f"network {config.network} ({place_of(network)}): {error}") from None
    except Exception as error:
        place = own_code.place_of(error, config.network)
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        tried = f"tried on {len(inputs)} examples of shape {tuple(inputs.shape[1:])}"
        raise OwnCodeError(f"network {config.network} ({place}): {what}; {tried}") from error
    finally:
        torch.random.set_rng_state(state)


def place_of(network: nn.Module) -> str:
    """`my_cnn.py:14`, where the network's `forward` begins."""
    try:
        path, (_, line) = inspect.getsourcefile(type(network)), inspect.getsourcelines(type(network).forward)
        return f"{Path(path or '').name}:{line}"
    except (OSError, TypeError):
        return type(network).__name__


def _try(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, classes: int) -> None:
    logits = network.train()(inputs)
    expected = f"expected ({len(inputs)}, {classes}): a logit for each class"
    if not isinstance(logits, torch.Tensor):
        raise OwnCodeError(f"it gives {type(logits).__name__}, {expected}")
    if logits.shape != (len(inputs), classes):
        raise OwnCodeError(f"it gives shape {tuple(logits.shape)}, {expected}")
    if not logits.is_floating_point():
        raise OwnCodeError(f"it gives {logits.dtype}, expected floating-point logits")
    loss = F.cross_entropy(logits, labels)
    if not loss.isfinite():
        raise OwnCodeError(f"its loss on the first batch is {loss.item():g}, expected a finite number")
    if not loss.requires_grad:
        raise OwnCodeError("its answer depends on no weight that can be trained")
    loss.backward()  # type: ignore[no-untyped-call]
    if not any(weight.grad is not None for weight in network.parameters()):
        raise OwnCodeError("no gradient reaches a weight")
    with torch.no_grad():
        if not network.eval()(inputs).isfinite().all():
            raise OwnCodeError("its answers in evaluation are not finite")
