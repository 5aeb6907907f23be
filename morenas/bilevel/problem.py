"""A bilevel problem: two losses, each a function of a step number, over two disjoint sets of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Step(NamedTuple):
    """Where a loop stands: the number of an upper step, and that of the lower step it precedes."""

    upper: int
    lower: int


class NonFiniteLoss(ArithmeticError):
    """A loss that is not finite, found before it reached any parameter."""

    def __init__(self, level: str, step: int, micro_batch: int, value: float) -> None:
        super().__init__(f"{level} loss is {value} at step {step}, micro-batch {micro_batch}")
        self.level, self.step, self.micro_batch, self.value = level, step, micro_batch, value


@dataclass(frozen=True)
class Level:
    """One level's loss.

    Attributes:
        name: "lower" or "upper", for messages.
        loss: Maps the number of a micro-batch (counted from 0 over the whole run) to a scalar loss. It must be a pure
            function of that number and of the parameters, its randomness included: that is what makes a resumed
            run repeat bit for bit.
        accumulation: Micro-batches per step; their losses are averaged.
    """

    name: str
    loss: Callable[[int], Tensor]
    accumulation: int = 1

    def gradients(self, step: int, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Loss of a step and its gradients with respect to ``inputs``, averaged over all micro-batches.

        ``.grad`` of no tensor is touched. Inputs that the loss does not reach get zeros.

        Raises:
            NonFiniteLoss: If a micro-batch's loss is NaN or infinite.
        """
        total = torch.zeros((), dtype=torch.float64)
        sums = [torch.zeros_like(tensor) for tensor in inputs]
        for micro in range(self.accumulation):
            loss = self.loss(step * self.accumulation + micro)
            value = loss.detach().cpu().double()  # in this order: mps has no float64
            if not torch.isfinite(value):
                raise NonFiniteLoss(self.name, step, micro, float(value))
            total += value / self.accumulation
            grads = torch.autograd.grad(loss, inputs, allow_unused=True)
            for accumulated, grad in zip(sums, grads, strict=True):
                if grad is not None:
                    accumulated.add_(grad, alpha=1 / self.accumulation)
        return total, sums


@dataclass(frozen=True)
class BilevelProblem:
    """Minimize ``upper`` over ``arch`` where ``weights`` minimize ``lower``.

    Raises:
        ValueError: If a tensor is in both sets, appears twice, or does not require gradients.
    """

    lower: Level
    upper: Level
    weights: Sequence[Tensor]
    arch: Sequence[Tensor]

    def __post_init__(self) -> None:
        seen: set[int] = set()
        for tensor in (*self.weights, *self.arch):
            if id(tensor) in seen:
                raise ValueError(
                    "A tensor is named twice among weights and architecture parameters; the two sets must be disjoint."
                )
            if not tensor.requires_grad:
                raise ValueError(
                    f"A tensor of shape {tuple(tensor.shape)} does not require gradients and could never be trained."
                )
            seen.add(id(tensor))
