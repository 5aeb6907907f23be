"""The step that the weights are about to take, as a differentiable function of their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor, Mapping[str, Any], Mapping[str, Any]], Tensor]


@dataclass(frozen=True)
class WeightStep:
    """What ``optimizer`` is about to do to the weights.

    Modelled is what torch computes: clipping by the norm over all weights; of ``AdamW`` and ``Adam`` the moments kept
    from the steps before, their bias corrections and weight decay, decoupled or not; of ``SGD`` the rate and weight
    decay; of each parameter group its rate as it is set now. An entry whose gradient has been zero in every Adam step,
    this one included (padding, a slot never drawn), stays where it is whatever the gradients: its true slope,
    ``rate / eps``, holds no further than ``eps``.

    Attributes:
        optimizer: Of the weights. It is read, never stepped.
        max_grad_norm: Gradients are clipped to this norm; 0 for no clipping.
    """

    optimizer: torch.optim.Optimizer
    max_grad_norm: float = 0.0

    def after(self, weights: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor]:
        """Where the step takes ``weights`` whose gradients are ``grads``.

        Differentiable in ``grads`` once; ``weights`` and the optimizer's state are left as they are.

        Args:
            weights: Tensors that the optimizer holds.
            grads: One for each weight, of its shape.
        Raises:
            ValueError: If the optimizer is none of AdamW, Adam and SGD, or has an option that is not modelled.
        """
        rule = _rule(self.optimizer)
        groups = {id(tensor): group for group in self.optimizer.param_groups for tensor in group["params"]}
        return [
            rule(weight.detach(), grad, groups[id(weight)], self.optimizer.state.get(weight, {}))
            for weight, grad in zip(weights, _clipped(grads, self.max_grad_norm), strict=True)
        ]


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all entries together, a scalar."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]))


def _clipped(grads: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """As ``torch.nn.utils.clip_grad_norm_``, its guard against a norm of zero included."""
    if not 0 < max_norm < math.inf:
        return list(grads)
    factor = (max_norm / (total_norm(grads) + 1e-6)).clamp(max=1.0)
    return [grad * factor for grad in grads]


def _rule(optimizer: torch.optim.Optimizer) -> Rule:
    rule = RULES.get(type(optimizer))
    if rule is None:
        known = ", ".join(kind.__name__ for kind in RULES)
        raise ValueError(f"The step of {type(optimizer).__name__} is not modelled; those of {known} are.")
    for option in ("amsgrad", "maximize", "momentum", "differentiable"):
        if any(group.get(option) for group in optimizer.param_groups):
            raise ValueError(f"The step of {type(optimizer).__name__} is modelled without {option}; leave it out.")
    return rule


def _sgd(weight: Tensor, grad: Tensor, group: Mapping[str, Any], state: Mapping[str, Any]) -> Tensor:
    return weight - group["lr"] * (grad + group["weight_decay"] * weight)


def _adam(weight: Tensor, grad: Tensor, group: Mapping[str, Any], state: Mapping[str, Any]) -> Tensor:
    return _adam_update(weight, grad + group["weight_decay"] * weight, group, state)


def _adamw(weight: Tensor, grad: Tensor, group: Mapping[str, Any], state: Mapping[str, Any]) -> Tensor:
    return _adam_update(weight * (1 - group["lr"] * group["weight_decay"]), grad, group, state)


def _adam_update(weight: Tensor, grad: Tensor, group: Mapping[str, Any], state: Mapping[str, Any]) -> Tensor:
    """Source: Kingma and Ba 2015, algorithm 1, in torch's order: ``eps`` is added after the bias correction."""
    first, second = group["betas"]
    number = float(state["step"]) + 1 if state else 1.0
    square = second * (state["exp_avg_sq"] if state else 0.0) + (1 - second) * grad * grad
    moved = (square > 0).detach()
    mean = first * (state["exp_avg"] if state else 0.0) + (1 - first) * torch.where(moved, grad, grad.detach())
    # The root's slope at zero is infinite, and times zero it would be NaN.
    root = torch.where(moved, torch.where(moved, square, 1.0).sqrt(), 0.0)
    rate = group["lr"] / (1 - first**number)
    return weight - rate * mean / (root / math.sqrt(1 - second**number) + group["eps"])


RULES: dict[type, Rule] = {torch.optim.AdamW: _adamw, torch.optim.Adam: _adam, torch.optim.SGD: _sgd}
"""What is modelled, by class of optimizer: ``rule(weight, grad, parameter group, state)`` is the weight after."""
