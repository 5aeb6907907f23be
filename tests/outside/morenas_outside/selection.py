"""A selection that spends little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from morenas.selection import Evidence, budgeted


@dataclass(frozen=True)
class Thrifty:
    """The best total of the scores under a part of the budget, where that is enough for an architecture.

    Attributes:
        share: Fraction of the budget that may be spent.
    """

    share: float = 0.5

    def __call__(self, evidence: Evidence) -> Sequence[int]:
        least = int(evidence.costs.masked_fill(~evidence.allowed, evidence.costs.max()).min(dim=1).values.sum())
        return budgeted(replace(evidence, budget=max(least, int(self.share * evidence.budget))))
