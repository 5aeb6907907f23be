"""Batches of tensors, shuffled."""

from __future__ import annotations

import torch
from torch import Tensor

from morenas.base.seeds import derive
from morenas.tasks.batches import Batch, Epochs


class ShuffledBatches(Epochs[Tensor]):
    """Batches of tensors that share their first dimension; what is left of an epoch for a smaller one is left out."""

    def __init__(self, examples: Batch, batch_size: int, seed: int, stream: str = "batches") -> None:
        """Draw the order from the stream of that name under the seed."""
        self._examples, self._seed, self._stream = examples, seed, stream
        self._total = len(next(iter(examples.values())))
        self._size = min(batch_size, self._total)
        super().__init__(self._total // self._size)

    def __getitem__(self, number: int) -> Batch:
        """The batch of a number."""
        return {key: values[self.rows(number)] for key, values in self._examples.items()}

    def order(self, epoch: int) -> tuple[Tensor, ...]:
        """All rows in random order, a batch's worth at a time."""
        generator = torch.Generator().manual_seed(derive(self._seed, self._stream, epoch))
        return torch.randperm(self._total, generator=generator).split(self._size)
