"""A bilevel problem: two losses, each a function of a step number, over two disjoint sets of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from morenas.base import processes
from morenas.base.errors import InputError
from morenas.bilevel.weight_step import WeightStep


class Step(NamedTuple):
    """Where a loop stands: the number of an upper step, that of the lower step it precedes, and what the latter does.

    ``weights`` is as it will be at that lower step: the optimizer's state before it, its rates those of that step.
    """

    upper: int
    lower: int
    weights: WeightStep


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
        full_precision: The same loss, draws included, without autocast: differences of bfloat16 losses are noise. None
            where ``loss`` itself is that.
    """

    name: str
    loss: Callable[[int], Tensor]
    accumulation: int = 1
    full_precision: Callable[[int], Tensor] | None = None

    def gradients(
        self, step: int, inputs: Sequence[Tensor], full_precision: bool = False, create_graph: bool = False
    ) -> tuple[StepLosses, list[Tensor]]:
        """Losses of a step and the gradients of their mean with respect to ``inputs``.

        ``.grad`` of no tensor is touched. Inputs that the loss does not reach get zeros. Nothing waits for the device.
        Several processes share the micro-batches, and all get the same.

        Args:
            step: Number of the step, of this level.
            inputs: Tensors that require gradients.
            full_precision: Compute without autocast.
            create_graph: Keep what is needed to differentiate the gradients again.
        Raises:
            InputError: If several processes were to keep that: graphs cannot be sent.
        """
        if processes.count() > 1:
            return self._shared(step, inputs, full_precision, create_graph)
        losses = []
        sums: list[Tensor] = []
        compute = self.full_precision if full_precision and self.full_precision is not None else self.loss
        for micro in range(self.accumulation):
            loss = compute(step * self.accumulation + micro)
            losses.append(loss.detach())
            grads = gradients_of(loss / self.accumulation, inputs, create_graph)
            sums = [total + grad for total, grad in zip(sums, grads, strict=True)] if sums else grads
        return StepLosses(self.name, step, torch.stack(losses)), sums

    def _shared(
        self, step: int, inputs: Sequence[Tensor], full_precision: bool, create_graph: bool
    ) -> tuple[StepLosses, list[Tensor]]:
        """The same by several processes: losses and gradients travel in one vector, so that a NaN reaches all."""
        if create_graph:
            raise InputError(
                "An exact second derivative needs the graphs of all micro-batches of a step, which processes cannot "
                "send each other; choose hypergradient=unrolled, or start one process."
            )
        compute = self.full_precision if full_precision and self.full_precision is not None else self.loss
        sizes, total = [self.accumulation, *(tensor.numel() for tensor in inputs)], None
        dtype = reduce(torch.promote_types, (tensor.dtype for tensor in inputs))
        for first in range(0, self.accumulation, processes.count()):
            micro, shares = first + processes.number(), min(processes.count(), self.accumulation - first)
            own = torch.zeros(sum(sizes), dtype=dtype, device=inputs[0].device)
            if micro < self.accumulation:
                loss = compute(step * self.accumulation + micro)
                grads = gradients_of(loss / self.accumulation, inputs)
                own[micro] = loss.detach()
                own[self.accumulation :] = torch.cat([grad.flatten().to(own) for grad in grads])
            total = processes.add_shares(total, own, shares)
        assert total is not None
        losses, *grads = total.split(sizes)
        shaped = [grad.view_as(tensor).to(tensor) for grad, tensor in zip(grads, inputs, strict=True)]
        return StepLosses(self.name, step, losses), shaped


def gradients_of(value: Tensor, inputs: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
    """Gradients of a scalar: zeros for inputs that it does not reach, and for all where it reaches nothing."""
    if not value.requires_grad:
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(
        torch.autograd.grad(value, inputs, create_graph=create_graph, allow_unused=True, materialize_grads=True)
    )


@dataclass(frozen=True)
class BilevelProblem:
    """Minimize ``upper`` over ``arch`` where ``weights`` minimize ``lower``.

    Attributes:
        distribution: Maps a lower step to the probabilities that ``arch`` stands for then, ``(groups, choices)``; None
            where it stands for none. For guards.

    Raises:
        ValueError: If a tensor is in both sets, appears twice, or does not require gradients.
    """

    lower: Level
    upper: Level
    weights: Sequence[Tensor]
    arch: Sequence[Tensor]
    distribution: Callable[[int], Tensor] | None = None

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

    def gradients(
        self, level: Level, step: int, inputs: Sequence[Tensor], full_precision: bool = False
    ) -> tuple[StepLosses, list[Tensor]]:
        """``level.gradients``, while of all the problem's tensors ``inputs`` alone require gradients.

        A layer that computes gradients itself then computes none that nobody asks for.
        """
        with _only(inputs, (*self.weights, *self.arch)):
            return level.gradients(step, inputs, full_precision)

    @contextmanager
    def weights_at(self, values: Sequence[Tensor]) -> Iterator[None]:
        """Meanwhile the weights hold ``values``; then, bit for bit and come what may, what they held before."""
        with _holding(self.weights, values):
            yield

    @contextmanager
    def arch_at(self, values: Sequence[Tensor]) -> Iterator[None]:
        """The same for the architecture parameters."""
        with _holding(self.arch, values):
            yield


@contextmanager
def _holding(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        _fill(tensors, values)
        yield
    finally:
        _fill(tensors, kept)


@torch.no_grad()
def _fill(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


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
