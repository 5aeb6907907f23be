"""What a layer may take: one Monarch shape, or no adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from morenas.monarch import num_parameters


class Choice(NamedTuple):
    """One Monarch shape; ``blk_r == 0`` means no adapter.

    This is all that the rest asks of a candidate: whether it fits a layer and how many parameters it stores there; its
    adapter, by ``nblocks`` and ``blk_r``; and how the supernet mixes it, by the slots that it takes.
    """

    nblocks: int
    blk_r: int

    def __str__(self) -> str:
        return f"N{self.nblocks}r{self.blk_r}" if self.blk_r else "none"

    def params(self, in_features: int, out_features: int) -> int:
        """Parameters stored for a layer, padding counted."""
        return num_parameters(in_features, out_features, self.nblocks, self.blk_r)

    def fits(self, in_features: int, out_features: int, pad: bool) -> bool:
        """Whether a layer can take it; ``pad`` allows block counts that do not divide a feature count."""
        if self.blk_r == 0:
            return True
        if pad:
            return self.nblocks <= min(in_features, out_features)
        return in_features % self.nblocks == 0 and out_features % self.nblocks == 0

    def slots(self, counts: Sequence[int], max_rank: int) -> range:
        """The slots of a supernet layer that it takes, of ``len(counts) * max_rank``.

        Rank is nested: slot j of a block count is taken by every choice of that count with ``blk_r > j``.
        """
        start = counts.index(self.nblocks) * max_rank if self.blk_r else 0
        return range(start, start + self.blk_r)
