"""The micro-batches of an optimizer step, shared by the processes of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from morenas.base import processes


class SharedGradients:
    """Leaves in ``grad`` of every parameter, at the last micro-batch of a step, what one process alone would.

    Losses and gradients of a process travel in one vector, so that a loss that is not finite reaches all of them.

    Args:
        trained: Parameters that are trained.
        accumulation: Micro-batches of a step.
    """

    def __init__(self, trained: Sequence[nn.Parameter], accumulation: int) -> None:
        self._trained, self._accumulation = trained, accumulation
        self._own: Tensor | None = None
        self._total: Tensor | None = None

    def step(self, number: int, backward: Callable[[], Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Take a micro-batch backward, if it is this process's share.

        Args:
            number: Of the micro-batch; every process goes through all of them, in order.
            backward: Adds its gradients to ``grad``, and returns its loss.
        Yields:
            Micro-batches whose losses are known now, by number, with their losses.
        """
        if processes.count() == 1:
            yield number, backward()
            return
        place = number % self._accumulation
        if processes.is_own(place):
            self._own = self._taken(place, backward())
        last = place == self._accumulation - 1
        shares = place % processes.count() + 1
        if last or shares == processes.count():
            yield from self._gather(number, shares, last)

    def _gather(self, number: int, shares: int, last: bool) -> Iterator[tuple[int, Tensor]]:
        own = self._empty() if self._own is None else self._own
        self._total, self._own = processes.add_shares(self._total, own, shares), None
        first = number - number % self._accumulation
        for other in range(number - shares + 1, number + 1):
            yield other, self._total[other - first].clone()
        if last:
            self._give(self._total)
            self._total = None

    def _taken(self, place: int, loss: Tensor) -> Tensor:
        """What a process sends: losses by place, which parameters have a gradient, and the gradients."""
        vector = self._empty()
        losses, there, grads = vector.split(self._sizes())
        losses[place] = loss
        for index, (parameter, grad) in enumerate(zip(self._trained, grads.split(self._numels()), strict=True)):
            if parameter.grad is not None:
                there[index] = 1
                grad.copy_(parameter.grad.flatten())
                parameter.grad = None
        return vector

    def _give(self, total: Tensor) -> None:
        _, there, grads = total.split(self._sizes())
        for parameter, known, grad in zip(self._trained, there.tolist(), grads.split(self._numels()), strict=True):
            parameter.grad = grad.view_as(parameter).to(parameter, copy=True) if known else None

    def _empty(self) -> Tensor:
        dtype = reduce(torch.promote_types, (parameter.dtype for parameter in self._trained))
        return torch.zeros(sum(self._sizes()), dtype=dtype, device=self._trained[0].device)

    def _sizes(self) -> list[int]:
        return [self._accumulation, len(self._trained), sum(self._numels())]

    def _numels(self) -> list[int]:
        return [parameter.numel() for parameter in self._trained]
