"""Result of one method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from morenas.benchmark.problem import Shapes


@dataclass(frozen=True)
class SearchResult:
    """An architecture and what it cost to find.

    Attributes:
        shapes: Module name to choice.
        passes: Forward and backward passes of one batch, the training of the found architecture itself not counted;
            a pass without gradients counts as a third.
        curve: After so many passes, the best architecture known by then.
        details: Further measures by name.
        finish: Trains on from what the search has learnt, for so many more passes: the test loss in the end. None for a
            method whose final training starts anew.
        scores: What a supernet says of each of ``reference.random_architectures``; lower is better.
    """

    shapes: Shapes
    passes: float
    curve: list[tuple[float, Shapes]] = field(default_factory=list)
    details: dict[str, float] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    finish: Callable[[int], float] | None = None
