"""What a search learns from: batches by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from morenas.base.errors import InputError
from morenas.tasks.batches import Batches


@dataclass(frozen=True)
class SearchData:
    """The data of a search, three sets of examples that share none; each by the number of a micro-batch.

    Attributes:
        train: What the weights descend the loss on.
        val: What the architecture descends the loss on, and is measured on.
        select: What a play-off is decided on; None for ``val``.

    Raises:
        InputError: If batches have no numbers, or an end.
    """

    train: Batches
    val: Batches
    select: Batches | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            batches = getattr(self, field.name)
            if batches is not None and (isinstance(batches, Sequence) or not hasattr(batches, "__getitem__")):
                raise InputError(
                    f"{field.name} batches: a search reads batches by number, without end, and a "
                    f"{type(batches).__name__} has an end or no numbers; wrap the data: "
                    "morenas.numbered_batches(dataset, batch_size, collate_fn)."
                )

    @property
    def decisive(self) -> Batches:
        """What trained architectures are compared on."""
        return self.val if self.select is None else self.select
