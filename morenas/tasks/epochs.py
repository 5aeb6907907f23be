"""Numbered batches: which rows each is made of, epoch after epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Generic, TypeVar

Rows = TypeVar("Rows")


class Epochs(ABC, Generic[Rows]):
    """The rows of batch 0, 1, 2, … without end, put in another order every epoch.

    Invariant: they depend on what was given at the start and on the number alone, if ``order`` depends on that and on
    the epoch alone; so a resumed run needs no other state.
    """

    def __init__(self, steps: int) -> None:
        """Count ``steps`` batches an epoch."""
        self.steps_per_epoch = steps
        self._epoch = lru_cache(maxsize=2)(self.order)

    @abstractmethod
    def order(self, epoch: int) -> Sequence[Rows]:
        """The rows of every batch of an epoch."""

    def rows(self, number: int) -> Rows:
        """Row numbers of the examples of a batch."""
        epoch, index = divmod(number, self.steps_per_epoch)
        return self._epoch(epoch)[index]
