"""A batch cut into parts, which add up to it: what several processes share where a step has fewer batches."""

from __future__ import annotations

from torch import Tensor

from morenas.tasks.batches import Batch, Batches
from morenas.tasks.prompts import IGNORED


class Parts:
    """Every batch cut into so many parts, numbered through; a part of a batch of fewer examples may be empty."""

    def __init__(self, batches: Batches, parts: int) -> None:
        self._batches, self._parts = batches, parts

    def __getitem__(self, number: int) -> Batch:
        """The examples of a part."""
        batch, part = divmod(number, self._parts)
        return self._batches[batch] if self._parts == 1 else _cut(self._batches[batch], part, self._parts)

    def weight(self, number: int) -> float:
        """What a part's mean loss counts in the mean over the parts, so that this is the batch's own mean loss."""
        batch, part = divmod(number, self._parts)
        if self._parts == 1:
            return 1.0
        whole = self._batches[batch]
        return self._parts * _labels(_cut(whole, part, self._parts)) / _labels(whole)


def _cut(batch: Batch, part: int, parts: int) -> Batch:
    return {name: values.tensor_split(parts)[part] for name, values in batch.items()}


def size(batch: Batch) -> int:
    """Examples of a batch."""
    return len(next(iter(batch.values())))


def _labels(batch: Batch) -> int:
    """What a loss is the mean over: tokens with a label, or examples."""
    labels = batch.get("labels")
    if isinstance(labels, Tensor) and labels.ndim > 1 and not labels.is_floating_point():
        return int(labels.ne(IGNORED).sum())
    return size(batch)
