"""A bilevel problem: two losses, each a function of a step number, over two disjoint sets of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Step(NamedTuple):
    """Where a loop stands: the number of an upper step, and that of the lower step it precedes."""

    upper: int
    lower: int


class NonFiniteLoss(ArithmeticError):
    """A loss that is not finite."""

    def __init__(self, level: str, step: int, micro_batch: int, value: float) -> None:
        super().__init__(f"{level} loss is {value} at step {step}, micro-batch {micro_batch}")
        self.level, self.step, self.micro_batch, self.value = level, step, micro_batch, value


@dataclass(frozen=True)
class StepLosses:
    """The losses of a step's micro-batches, left on their device until they are read."""

    level: str
    step: int
    values: Tensor

    def read(self) -> float:
        """Wait for the device and return their mean.

        Raises:
            NonFiniteLoss: If one is NaN or infinite.
        """
        values: list[float] = self.values.tolist()
        for micro, value in enumerate(values):
            if not math.isfinite(value):
                raise NonFiniteLoss(self.level, self.step, micro, value)
        return sum(values) / len(values)


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

    def gradients(self, step: int, inputs: Sequence[Tensor]) -> tuple[StepLosses, list[Tensor]]:
        """Losses of a step and the gradients of their mean with respect to ``inputs``.

        ``.grad`` of no tensor is touched. Inputs that the loss does not reach get zeros. Nothing waits for the device.
        """
        losses = []
        sums: list[Tensor] = []
        for micro in range(self.accumulation):
            loss = self.loss(step * self.accumulation + micro)
            losses.append(loss.detach())
            grads = _gradients(loss / self.accumulation, inputs)
            sums = [total + grad for total, grad in zip(sums, grads, strict=True)] if sums else grads
        return StepLosses(self.name, step, torch.stack(losses)), sums


def _gradients(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Zeros for inputs that the loss does not reach, and for all where it reaches nothing."""
    if not loss.requires_grad:
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))


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

    def gradients(self, level: Level, step: int, inputs: Sequence[Tensor]) -> tuple[StepLosses, list[Tensor]]:
        """``level.gradients``, while of all the problem's tensors ``inputs`` alone require gradients.

        A layer that computes gradients itself then computes none that nobody asks for.
        """
        with _only(inputs, (*self.weights, *self.arch)):
            return level.gradients(step, inputs)


@contextmanager
def _only(inputs: Sequence[Tensor], tensors: Sequence[Tensor]) -> Iterator[None]:
    kept = {id(tensor) for tensor in inputs}
    others = [tensor for tensor in tensors if id(tensor) not in kept]
    for tensor in others:
        tensor.requires_grad_(False)
    try:
        yield
    finally:
        for tensor in others:
            tensor.requires_grad_(True)
