"""Training losses: read from the device rarely where that costs time, and all of them checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MicroBatch:
    """Where a loss came from: optimizer step (from 1), micro-batch number (from 0), learning rate."""

    step: int
    number: int
    learning_rate: float


class NonFiniteLoss(Exception):
    """A training loss is infinite or not a number."""

    def __init__(self, at: MicroBatch, value: float) -> None:
        super().__init__(f"loss {value} at step {at.step}")
        self.at, self.value = at, value


class LossLog:
    """Collect losses on their device.

    Args:
        eager: Read each loss as it comes: free on a CPU, a wait for the device elsewhere.
    """

    def __init__(self, eager: bool) -> None:
        self.eager = eager
        self._unread: list[tuple[MicroBatch, Tensor]] = []
        self._sum = 0.0

    def add(self, at: MicroBatch, loss: Tensor) -> None:
        """Note the loss of a micro-batch."""
        self._unread.append((at, loss.detach()))
        if self.eager:
            self._read()

    def drain(self) -> float:
        """Return the sum of the losses since the last call, after checking all of them.

        Raises:
            NonFiniteLoss: At the first loss that is not finite.
        """
        self._read()
        total, self._sum = self._sum, 0.0
        return total

    def _read(self) -> None:
        if not self._unread:
            return
        values = torch.stack([loss for _, loss in self._unread]).tolist()
        for (at, _), value in zip(self._unread, values, strict=True):
            if not math.isfinite(value):
                raise NonFiniteLoss(at, value)
        self._sum += sum(values)
        self._unread.clear()
