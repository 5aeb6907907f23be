"""The search space: which Monarch shapes each linear layer may take, and which layers choose together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from morenas.base.errors import InputError, suggest
from morenas.base.kinds import GRANULARITIES
from morenas.base.registry import registry
from morenas.space.candidates import Choice
from morenas.space.cost import PARAMS, cost_table


@dataclass(frozen=True)
class SearchSpace:
    """Choices for groups of linear layers.

    Attributes:
        modules: Module name to ``(in_features, out_features)``, in module order.
        choices: Every ``(nblocks, blk_r)``; "none", where allowed, comes first.
        groups: Group name to the modules that take one choice together; a partition of ``modules``.
        pad: Whether feature counts that a block count does not divide are padded.
        cost: What the budget is counted in: a name of the registry "cost", or such an object.
    """

    modules: Mapping[str, tuple[int, int]]
    choices: tuple[Choice, ...]
    groups: Mapping[str, tuple[str, ...]]
    pad: bool = True
    cost: Any = PARAMS

    def costs(self) -> Tensor:
        """What each choice costs each group, in the unit of ``cost``, shape ``(groups, choices)``, int64."""
        return self._costs.clone()

    def params(self) -> Tensor:
        """Parameters of each group under each choice, whatever the budget is counted in, same shape, int64."""
        return cost_table(PARAMS, self.modules, self.groups, self.choices)

    @cached_property
    def _costs(self) -> Tensor:
        """A cost model may be slow: it is called once for each layer and choice."""
        return cost_table(self.cost, self.modules, self.groups, self.choices)

    def admissible(self) -> Tensor:
        """Which choices fit every module of a group, shape ``(groups, choices)``, bool."""
        rows = [
            [all(choice.fits(*self.modules[name], self.pad) for name in names) for choice in self.choices]
            for names in self.groups.values()
        ]
        return torch.tensor(rows, dtype=torch.bool)

    def shapes(self, picks: Sequence[int]) -> dict[str, Choice]:
        """Spell out one choice index per group as module name to choice; modules without an adapter are absent."""
        return {
            name: self.choices[pick]
            for names, pick in zip(self.groups.values(), picks, strict=True)
            for name in names
            if self.choices[pick].blk_r
        }


def build_space(
    modules: Mapping[str, tuple[int, int]],
    nblocks: Sequence[int],
    ranks: Sequence[int],
    granularity: str = "module",
    pad: bool = True,
    cost: Any = PARAMS,
) -> SearchSpace:
    """Build the search space over ``modules``.

    Args:
        modules: Module name to ``(in_features, out_features)``.
        nblocks: Block counts, each at least 1.
        ranks: Block ranks, each at least 0; 0 allows a layer to go without an adapter.
        granularity: "module" (each chooses), "type" (per kind of layer), "layer" (per depth) or "all".
        pad: Allow block counts that do not divide a feature count.
        cost: What the budget is counted in: "params", a name registered as "cost", or an object as ``Cost`` says.
    Raises:
        InputError: If a value is out of range, or a module is left without any shape that fits.
    """
    if granularity not in GRANULARITIES:
        raise InputError(
            f"space.granularity={granularity!r}: choose from "
            f"{', '.join(GRANULARITIES)}{suggest(granularity, GRANULARITIES)}"
        )
    if isinstance(cost, str):
        registry("cost").check(cost, "budget.cost")
    _check_values("space.nblocks", nblocks, least=1)
    _check_values("space.ranks", ranks, least=0)
    if max(ranks) == 0:
        raise InputError(f"space.ranks={list(ranks)}: rank 0 alone means no adapter anywhere; add a rank of 1 or more.")
    none = [Choice(1, 0)] if 0 in ranks else []
    shapes = [Choice(n, r) for n in sorted(set(nblocks)) for r in sorted(set(ranks)) if r]
    space = SearchSpace(dict(modules), (*none, *shapes), _group(modules, granularity), pad, cost)
    _check_every_group_fits(space)
    return space


def _check_values(key: str, values: Sequence[int], least: int) -> None:
    wrong = [v for v in values if isinstance(v, bool) or not isinstance(v, int) or v < least]
    if wrong or not values:
        raise InputError(
            f"{key}={list(values)}: needs one or more whole numbers of at least {least}, for example [1, 2, 4]."
        )


def _check_every_group_fits(space: SearchSpace) -> None:
    adapters = torch.tensor([choice.blk_r > 0 for choice in space.choices])
    fits = (space.admissible() & adapters).any(dim=1)
    for (group, names), ok in zip(space.groups.items(), fits.tolist(), strict=True):
        if not ok:
            counts = sorted({choice.nblocks for choice in space.choices if choice.blk_r})
            shapes = sorted({space.modules[name] for name in names})
            raise InputError(
                f"Search space of '{group}': none of space.nblocks={counts} fits its (in, out) features {shapes} "
                f"with space.pad={str(space.pad).lower()}; add 1 to space.nblocks"
                + ("." if space.pad else ", or set space.pad=true.")
            )


def _group(modules: Mapping[str, tuple[int, int]], granularity: str) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for name in modules:
        groups.setdefault(group_name(name, granularity), []).append(name)
    return {group: tuple(names) for group, names in groups.items()}


def group_name(name: str, granularity: str) -> str:
    """Name the group a module belongs to; the first number in its path is its depth.

    Args:
        granularity: As in ``build_space``.
    """
    if granularity == "module":
        return name
    if granularity == "all":
        return "all"
    depth = re.search(r"(?<=\.)\d+(?=\.)", f".{name}.")
    if depth is None:
        return name
    start, end = depth.start() - 1, depth.end() - 1
    return name[:end] if granularity == "layer" else f"{name[:start]}*{name[end:]}"
