"""Loss and gradients of the MLP derived by hand, for the CPU, where autograd's bookkeeping is a tenth of a step."""

import copy
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from pipeline.networks.dropout import Dropout
from pipeline.networks.mlp import MLP

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
WEIGHT_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_AGREE: dict[Any, bool] = {}  # of what was tried in this process: whether it is as autograd has it


def derive(network: nn.Module, batch_size: int, precision: str) -> "Backprop | None":
    """The gradients of the network by hand; None where autograd has to derive them.

    Tried on a batch first, once for networks of the same layers: one that was changed and is more than linear layers,
    ReLU and dropout is autograd's.

    Args:
        network: on the CPU.
        batch_size: of the largest batch.
        precision: as Lightning names it.
    """
    if precision not in DTYPES or type(network) is not MLP or _is_watched(network):
        return None
    try:
        kind = _kind(network), precision
        if kind not in _AGREE:
            _AGREE[kind] = _agrees(network, DTYPES[precision])
    except Exception:  # other layers, one less, one without a bias: what the try makes of them is not known
        return None
    return Backprop(network, batch_size, DTYPES[precision]) if _AGREE[kind] else None


def is_hooked(module: nn.Module) -> bool:
    """Whether somebody has hooks on the module, or gave it a forward of its own: only autograd's way calls them."""
    own = vars(module)
    return "forward" in own or any(own[kind] for kind in HOOKS)


def _is_watched(network: nn.Module) -> bool:
    """Whether somebody has hooks on one of the modules, on all there are, or on a weight."""
    hooks = [getattr(weight, kind) for weight in network.parameters() for kind in WEIGHT_HOOKS]
    return any(hooks) or any(map(is_hooked, network.modules())) or _has_any_global_hook()  # type: ignore[no-untyped-call]


def _parts(modules: Sequence[dict[str, Any]]) -> list[Any]:
    """What the gradients depend on, as objects: the same ones as long as nobody changes, freezes or hooks a part.

    Args:
        modules: the `vars` of each, through which one looks in microseconds: it is done before every block.
    """
    found: list[Any] = []
    for own in modules:
        found += [own["training"], own.get("p"), "forward" in own, *[not own[kind] for kind in HOOKS]]
        found += own["_modules"].values()
        for weight in own["_parameters"].values():
            found.append(weight)
            if weight is not None:
                hooks = not weight._backward_hooks, not weight._post_accumulate_grad_hooks
                found += [weight.requires_grad, weight.dtype, *hooks]
    return found


def _kind(network: nn.Module) -> tuple[Any, ...]:
    """What two networks have in common if one's gradients by hand are right where the other's are."""
    layers = tuple((type(module), module.extra_repr()) for module in network.modules())
    return layers, tuple((weight.shape, weight.dtype, weight.requires_grad) for weight in network.parameters())


def _agrees(network: MLP, dtype: torch.dtype) -> bool:
    """Whether both ways give the same gradients to the last bit, on a batch of noise."""
    generator = torch.Generator().manual_seed(0)
    linear = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    inputs = torch.rand(8, linear[0].in_features, generator=generator)
    labels = torch.arange(8) % linear[-1].out_features
    one, other = copy.deepcopy(network).train(), copy.deepcopy(network).train()
    for twin in (one, other):
        for layer in twin.modules():
            if isinstance(layer, Dropout):
                layer.reseed(0)
    Backprop(one, len(inputs), dtype)(inputs, labels)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = F.cross_entropy(other(inputs), labels)
    torch.autograd.backward([loss])
    return all(
        a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad)
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


class Backprop:
    """What `F.cross_entropy(network(inputs), labels).backward()` computes, into memory that is laid out once.

    Back-propagation (Rumelhart, Hinton and Williams, 1986) through linear layers with ReLU and dropout between them:
    autograd's operations in autograd's order, so the same numbers to the last bit, without its graph, its engine and
    its allocations. The gradients overwrite `.grad`; nothing has to be set to zero before.
    """

    def __init__(self, network: MLP, batch_size: int, dtype: torch.dtype = torch.float32) -> None:
        """Lay out memory for batches of up to batch_size examples.

        Args:
            network: float32, on the CPU.
            batch_size: of the largest batch.
            dtype: of the matrix products; bfloat16 is what autocast makes of them.
        """
        self.network, self.dtype = network, dtype
        self.modules = [vars(module) for module in network.modules()]
        self.parts = _parts(self.modules)
        self.linear = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
        self.dropout = [layer for layer in network.layers if isinstance(layer, Dropout)]
        self.scales = [torch.tensor(1 / (1 - layer.p), dtype=dtype).item() for layer in self.dropout]
        widths = [layer.out_features for layer in self.linear[:-1]]
        self.outputs = [torch.empty(batch_size, width, dtype=dtype) for width in widths]
        self.errors = [torch.empty(batch_size, width, dtype=dtype) for width in widths]
        # The parameters as the products take them: themselves, or copies with fewer bits, made anew in every step.
        self.lowered = dtype != torch.float32
        self.weights = [_like(layer.weight, dtype) for layer in self.linear]
        self.biases = [_like(layer.bias, dtype) for layer in self.linear]
        self.gradients = [(torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)) for layer in self.linear]

    def holds(self) -> bool:
        """Whether the network is as it was: nobody has put hooks on it, nor frozen, pruned or changed a part of it."""
        parts = _parts(self.modules)
        same = len(parts) == len(self.parts) and all(map(operator.is_, parts, self.parts))
        return same and not _has_any_global_hook()  # type: ignore[no-untyped-call]

    def __call__(self, examples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, ...) float32 and (B,) int64 -> the mean loss () and the logits (B, classes), both float32."""
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return self._derive(examples.flatten(1), labels)

    def _derive(self, examples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.lowered:
            for layer, weight, bias in zip(self.linear, self.weights, self.biases, strict=True):
                weight.copy_(layer.weight)
                bias.copy_(layer.bias)
        inputs = [examples.to(self.dtype)]
        for weight, bias, dropout, output in zip(self.weights, self.biases, self.dropout, self.outputs, strict=False):
            hidden = torch.addmm(bias, inputs[-1], weight.t(), out=output[: len(examples)]).relu_()
            inputs.append(dropout.drop_(hidden))
        logits = torch.addmm(self.biases[-1], inputs[-1], self.weights[-1].t()).float()
        loss, error = _cross_entropy(logits, labels)
        self._propagate(error.to(self.dtype), inputs)
        return loss, logits

    def _propagate(self, error: Tensor, inputs: list[Tensor]) -> None:
        """From the loss' gradient by the last layer's output (B, classes) to that by every weight and bias."""
        for index in reversed(range(len(self.linear))):
            below, (by_weight, by_bias) = inputs[index], self.gradients[index]
            if self.lowered:
                by_weight.copy_(error.t() @ below)
                by_bias.copy_(error.sum(0))
            else:
                torch.mm(error.t(), below, out=by_weight)
                torch.sum(error, 0, out=by_bias)
            self.linear[index].weight.grad, self.linear[index].bias.grad = by_weight, by_bias
            if index:
                error = torch.mm(error, self.weights[index], out=self.errors[index - 1][: len(below)])
                # An output is above zero where ReLU let its input through and dropout kept it.
                torch.ops.aten.threshold_backward.grad_input(error, below, 0, grad_input=error)
                error.mul_(self.scales[index - 1])


def _like(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    return parameter if parameter.dtype == dtype else torch.empty_like(parameter, dtype=dtype)


def _cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss () and its gradient by the logits (B, classes), by the operations that autograd would choose."""
    aten, mean, ignored = torch.ops.aten, 1, -100
    chances = torch.log_softmax(logits, dim=1)
    loss, weight = aten.nll_loss_forward(chances, labels, None, mean, ignored)
    by_chances = aten.nll_loss_backward(torch.ones(()), chances, labels, None, mean, ignored, weight)
    return loss, aten._log_softmax_backward_data(by_chances, chances, 1, logits.dtype)
