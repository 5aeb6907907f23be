"""What a candidate costs a layer: what the budget is counted in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.space.candidates import Choice

PARAMS = "params"
"""The name of the cost that a budget is counted in where nothing else is said."""


class LinearLayer(NamedTuple):
    """A linear layer that may take an adapter, by its module name."""

    name: str
    in_features: int
    out_features: int


class Cost(Protocol):
    """Counts what an adapter costs: parameters, or a unit of one's own, such as microseconds.

    An architecture costs the sum over its layers, and the budget holds exactly in that sum.
    """

    def __call__(self, layer: LinearLayer, choice: Choice) -> int:
        """Return a whole number of at least 0, for "no adapter" too: a function of the arguments alone."""
        ...


@dataclass(frozen=True)
class Params:
    """Adapter parameters that are stored, padding counted."""

    def __call__(self, layer: LinearLayer, choice: Choice) -> int:
        return choice.params(layer.in_features, layer.out_features)


def cost_table(
    cost: Any,
    modules: Mapping[str, tuple[int, int]],
    groups: Mapping[str, tuple[str, ...]],
    choices: Sequence[Choice],
) -> Tensor:
    """What every choice costs every group, shape ``(groups, choices)``, int64.

    Args:
        cost: A name of the registry, or such an object.
        modules: Module name to ``(in_features, out_features)``.
    Raises:
        InputError: If a cost is not a whole number of at least 0.
    """
    of: Cost = registry("cost").build(cost)
    layers = {name: LinearLayer(name, *features) for name, features in modules.items()}
    rows = [
        [sum(_whole(of(layers[name], choice), cost, layers[name], choice) for name in names) for choice in choices]
        for names in groups.values()
    ]
    return torch.tensor(rows, dtype=torch.int64)


def _whole(value: Any, cost: Any, layer: LinearLayer, choice: Choice) -> int:
    try:
        number = index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise InputError(
            f"budget.cost={registry('cost').chosen_by(cost)}: says {value!r} for '{layer.name}' with {choice}; a cost "
            "is a whole number of at least 0. Round it, in a finer unit where that is too coarse."
        )
    return number
