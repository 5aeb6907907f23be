"""What a search method is given, and how what it finds is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from morenas.monarch import num_parameters
from morenas.space import Choice, SearchSpace
from morenas.tasks.batches import Batch, Batches

__all__ = ["Batch", "Batches", "Problem", "Recipe", "Shapes", "cost"]

Shapes = Mapping[str, Choice]
"""An architecture: module name to choice; modules without an adapter are absent."""


@dataclass(frozen=True)
class Recipe:
    """How an architecture is trained alone. Frozen before any method is run.

    Attributes:
        steps: Optimizer steps of AdamW, one forward and backward pass of one batch each.
        learning_rate: Peak; a linear ramp, then a cosine.
        batch_size: Examples a step.
    """

    steps: int
    learning_rate: float
    batch_size: int
    weight_decay: float = 1e-3
    max_grad_norm: float = 1.0


class Problem(Protocol):
    """A frozen model, data in disjoint splits, a search space, a budget and a recipe.

    Splits: "search_train" and "search_val" for the two levels of a search, "select" to choose between candidates,
    "final" (the first two together) to train an architecture alone, and "test", which no method may read.
    """

    table: str
    family: str
    number: int
    model: nn.Module
    head: tuple[str, ...]
    space: SearchSpace
    budget: int
    recipe: Recipe

    @property
    def planted(self) -> Shapes | None:
        """The architecture that made the data, where one did."""
        ...

    def batches(self, split: str, seed: int) -> Batches:
        """Shuffled batches of ``recipe.batch_size`` examples."""
        ...

    def examples(self, split: str) -> Batch:
        """The whole split as one batch."""
        ...

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss of each example, shape ``(examples,)``."""
        ...


def cost(space: SearchSpace, shapes: Shapes) -> int:
    """Adapter parameters of an architecture."""
    return sum(num_parameters(*space.modules[name], *choice) for name, choice in shapes.items())
