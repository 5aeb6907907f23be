"""A cost model: what a device stores, which keeps ranks in multiples."""

from __future__ import annotations

from dataclasses import dataclass

from morenas.space import Choice
from morenas.space.cost import LinearLayer


@dataclass(frozen=True)
class Padded:
    """Parameters of an adapter whose rank is rounded up.

    Attributes:
        multiple: Ranks are kept in multiples of this.
    """

    multiple: int = 2

    def __call__(self, layer: LinearLayer, choice: Choice) -> int:
        rank = -(-choice.blk_r // self.multiple) * self.multiple
        return Choice(choice.nblocks, rank).params(layer.in_features, layer.out_features) if rank else 0
