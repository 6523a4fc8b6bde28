"""RMSprop as Keras defines it, and the family it grew out of."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pipeline.config import own_code
from pipeline.config.own_code import OwnCodeError

LONG_AGO = torch.tensor(1e9)
FUSED_FROM_RHO = 1e-3  # below, (1 - rho) / rho is too large a factor for epsilon


class RMSprop(torch.optim.Optimizer):
    """Divide the gradient by a running average of its recent magnitude (Tieleman and Hinton, 2012, lecture 6e).

        v <- rho * v + (1 - rho) * g**2
        w <- w - lr * g / sqrt(v + epsilon)

    as in `keras.optimizers.RMSprop` 3.15: epsilon stands inside the root. `torch.optim.RMSprop` divides by
    sqrt(v) + epsilon and smooths with 0.99; with epsilon 1e-7 the two part by 0.1 in loss within ten steps.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        rho: float = 0.9,
        epsilon: float = 1e-7,
    ) -> None:
        """Take parameters or parameter groups, as every torch optimizer.

        Raises:
            ValueError: for a negative lr or epsilon, or a rho outside [0, 1).
        """
        if lr < 0 or epsilon < 0 or not 0 <= rho < 1:
            raise ValueError(f"RMSprop needs lr >= 0, epsilon >= 0 and 0 <= rho < 1, not {lr=}, {epsilon=}, {rho=}")
        super().__init__(params, {"lr": lr, "rho": rho, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns the closure's loss, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._update(weights, group["lr"], group["rho"], group["epsilon"])
        return loss

    def _update(self, weights: list[Tensor], lr: float, rho: float, epsilon: float) -> None:
        """Update the weights in place.

        The state is u = v + epsilon, which follows u <- rho * u + (1 - rho) * (g**2 + epsilon): one pass less over the
        memory than adding epsilon anew, and never small enough to become a denormal number.
        """
        for weight in weights:
            if "average" not in self.state[weight]:
                self.state[weight]["average"] = torch.full_like(weight, epsilon)
        averages = [self.state[weight]["average"] for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if rho >= FUSED_FROM_RHO and all(weight.device.type == "cpu" for weight in weights):
            # Before the decay, so divided by rho: the fused update has no place for it after.
            torch._foreach_add_(averages, (1 - rho) * epsilon / rho)
            _adam_without_momentum(weights, gradients, averages, lr, rho)
        else:
            torch._foreach_mul_(averages, rho)
            torch._foreach_add_(averages, (1 - rho) * epsilon)
            torch._foreach_addcmul_(averages, gradients, gradients, value=1 - rho)
            torch._foreach_addcdiv_(weights, gradients, torch._foreach_sqrt(averages), value=-lr)


def _adam_without_momentum(
    weights: list[Tensor], gradients: list[Tensor], averages: list[Tensor], lr: float, rho: float
) -> None:
    """averages <- rho * averages + (1 - rho) * g**2; weights <- weights - lr * g / sqrt(averages), in one pass.

    torch has no fused RMSprop, but a fused Adam, and with beta1 = 0, epsilon = 0 and no bias correction (so many steps
    behind it that 1 - rho**steps is 1) Adam is this. Its first moment is then the gradient itself.
    """
    torch._fused_adam_(
        weights,
        gradients,
        gradients,
        averages,
        [],
        [LONG_AGO] * len(weights),
        lr=lr,
        beta1=0.0,
        beta2=rho,
        weight_decay=0.0,
        eps=0.0,
        amsgrad=False,
        maximize=False,
    )


def make_optimizer(
    name: str,
    params: Iterable[Tensor],
    *,
    learning_rate: float,
    rho: float = 0.9,
    epsilon: float = 1e-7,
    momentum: float = 0.0,
    weight_decay: float = 0.01,
) -> torch.optim.Optimizer:
    """The optimizer of that name: ours for rmsprop, torch's for its relatives, or a function of the user's own.

    Raises:
        ValueError: for a name that is not known.
        OwnCodeError: if the user's own gives something else.
    """
    if own_code.is_own(name):
        return _own(name, params, learning_rate)
    if name == "rmsprop":
        return RMSprop(params, lr=learning_rate, rho=rho, epsilon=epsilon)
    if name in ("sgd", "nesterov"):
        return torch.optim.SGD(params, lr=learning_rate, momentum=momentum, nesterov=name == "nesterov")
    if name == "adagrad":
        return torch.optim.Adagrad(params, lr=learning_rate, eps=epsilon)
    if name == "adadelta":
        return torch.optim.Adadelta(params, lr=learning_rate, rho=rho, eps=epsilon)
    if name == "adam":
        return torch.optim.Adam(params, lr=learning_rate, eps=epsilon)
    if name == "adamw":
        return torch.optim.AdamW(params, lr=learning_rate, eps=epsilon, weight_decay=weight_decay)
    raise ValueError(f"unknown optimizer {name!r}: rmsprop, sgd, nesterov, adagrad, adadelta, adam, adamw")


def _own(name: str, params: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
    optimizer = own_code.load(name, ("parameters", "learning_rate"))(params, learning_rate)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise OwnCodeError(f"{name} gave {type(optimizer).__name__}, expected a torch.optim.Optimizer")
    return optimizer
