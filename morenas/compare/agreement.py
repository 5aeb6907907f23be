"""How far searches that differ in their seeds alone spend the budget in the same places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import fmean

from morenas.space import Architecture
from morenas.space.choices import group_name


def by_module(name: str) -> str:
    """The place of a module: its own."""
    return name


def by_kind(name: str) -> str:
    """The place of a module: that of all layers of its kind, whatever their depth."""
    return group_name(name, "type")


def agreement(found: Sequence[Architecture], place: Callable[[str], str]) -> float | None:
    """Share of the parameters that two architectures spend in the same places, mean over all pairs.

    1 says that all spend as much in every place, 0 that no two meet anywhere. Shapes are not looked at: as many
    parameters are as many, whatever the number of blocks.

    Args:
        found: Architectures for the same model.
        place: Module name to the place that its parameters count for.
    Returns:
        None for fewer than two architectures.
    """
    spent = [_spent(one, place) for one in found]
    shares = [_shared(a, b) for a, b in combinations(spent, 2)]
    return fmean(shares) if shares else None


def _spent(architecture: Architecture, place: Callable[[str], str]) -> Counter[str]:
    spent: Counter[str] = Counter()
    for name, shape in architecture.modules.items():
        spent[place(name)] += shape.params
    return spent


def _shared(a: Counter[str], b: Counter[str]) -> float:
    """Of the larger of two; two that spend nothing agree."""
    larger = max(a.total(), b.total())
    return (a & b).total() / larger if larger else 1.0
