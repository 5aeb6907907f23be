"""Batches by number: endless, and each a function of its number alone, so that a resumed run needs no other state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import default_collate

from morenas.base.errors import InputError
from morenas.base.seeds import derive, seed_pass

Batch = Mapping[str, Tensor]
Collate = Callable[[list[Any]], Any]
Rows = TypeVar("Rows")


class Batches(Protocol):
    """An endless sequence of batches, each a function of its number alone; ``numbered_batches`` makes one."""

    def __getitem__(self, number: int) -> Batch: ...


class Epochs(ABC, Generic[Rows]):
    """The rows of batch 0, 1, 2, … without end, put in another order every epoch.

    Invariant: if ``order`` is a function of the epoch alone, the rows of a batch are a function of its number alone.
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


class DatasetBatches(Epochs[list[int]]):
    """Batches of a map-style data set, shuffled anew each epoch.

    Invariants: every epoch of ``steps_per_epoch`` batches holds every example once, its last examples in a smaller
    batch where the batch size does not divide their number; what ``collate_fn`` or the data set draw from torch is
    seeded by the number, and the global random state is left as it was.
    """

    def __init__(self, dataset: Any, batch_size: int | None, collate_fn: Collate | None, seed: int) -> None:
        self._dataset, self._seed = dataset, seed
        self._size = 1 if batch_size is None else batch_size
        self._collate: Collate = collate_fn or (_only if batch_size is None else default_collate)
        super().__init__(-(-len(dataset) // self._size))

    def __getitem__(self, number: int) -> Batch:
        """The batch of a number, at least 0.

        Raises:
            InputError: If it is no mapping of names to tensors.
        """
        with torch.random.fork_rng(devices=[]):
            seed_pass(derive(self._seed, "batch", number), torch.device("cpu"))
            batch = self._collate([self._dataset[row] for row in self.rows(number)])
        return _checked(batch)

    def order(self, epoch: int) -> list[list[int]]:
        """All rows in random order, a batch's worth at a time."""
        generator = torch.Generator().manual_seed(derive(self._seed, "epoch", epoch))
        rows = torch.randperm(len(self._dataset), generator=generator)
        return [batch.tolist() for batch in rows.split(self._size)]


def numbered_batches(
    dataset: Any, batch_size: int | None, collate_fn: Collate | None = None, seed: int = 0
) -> DatasetBatches:
    """Number the batches of a data set, for ``search_architecture``; the arguments are those of torch's DataLoader.

    Args:
        dataset: Map-style: ``len(dataset)`` and ``dataset[row]``; with ``batch_size=None`` a list of whole batches.
        batch_size: Examples a batch; None where every item is a batch already.
        collate_fn: Makes a mapping of names to tensors of a list of examples; None for torch's own.
        seed: Of the order, which is another in every epoch.
    Returns:
        ``batches[0]``, ``batches[1]``, … without end.
    Raises:
        InputError: If the data set is empty, or has no length or no rows by number; if the batch size is below 1.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise InputError(
            f"numbered_batches: {type(dataset).__name__} has no length or no rows by number; give a map-style data set "
            "or a list. Of a DataLoader: numbered_batches(loader.dataset, loader.batch_size, loader.collate_fn)."
        )
    if len(dataset) == 0:
        raise InputError("numbered_batches: the data set is empty; a search needs at least one example of each kind.")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"numbered_batches: batch_size={batch_size}: at least 1, or None for a list of whole batches.")
    return DatasetBatches(dataset, batch_size, collate_fn, seed)


def _only(items: list[Any]) -> Any:
    return items[0]


def _checked(batch: Any) -> Batch:
    wrong = type(batch).__name__
    if isinstance(batch, Mapping):
        others = [name for name, value in batch.items() if not isinstance(value, Tensor)]
        if not others:
            return batch
        wrong = f"'{others[0]}' of type {type(batch[others[0]]).__name__}"
    raise InputError(
        f"numbered_batches: a batch must map names to tensors, as {{'input_ids': …, 'labels': …}}, and this one has or "
        f"is {wrong}; give a collate_fn that makes one, transformers' DataCollatorWithPadding(tokenizer) say."
    )
