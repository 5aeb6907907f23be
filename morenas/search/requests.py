"""What a search may choose from and how much it may spend, as plain values. Free of torch, as ``SearchSettings`` is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from morenas.base.kinds import GRANULARITIES
from morenas.base.settings import door, one_of

if TYPE_CHECKING:
    from morenas.space import Budget, SearchSpace


@dataclass(frozen=True)
class SpaceSettings:
    """The search space over the modules of a model.

    Attributes:
        nblocks: Block counts, each at least 1.
        ranks: Block ranks, each at least 0; 0 allows a module to go without an adapter.
        granularity: What chooses a shape together: one "module", all of one "type", all of one "layer", or "all".
        pad: Allow block counts that do not divide a feature count.
    """

    nblocks: tuple[int, ...] = (1, 2, 4, 8, 16)
    ranks: tuple[int, ...] = (0, 1, 2, 4, 8)
    granularity: str = one_of(GRANULARITIES, "module")
    pad: bool = True

    def build(self, modules: Mapping[str, tuple[int, int]], cost: Any = "params") -> SearchSpace:
        """The search space.

        Args:
            modules: Module name to ``(in_features, out_features)``.
            cost: What the budget is counted in: the name of a registered cost, or such an object.
        Raises:
            InputError: If a value is out of range, or a module is left without any shape that fits.
        """
        from morenas.space import build_space

        return build_space(modules, **asdict(self), cost=cost)


@dataclass(frozen=True)
class BudgetSettings:
    """The budget: a number of parameters, a share of the model's or of a LoRA's, or a number in a unit of one's own.

    Attributes:
        params: Adapter parameters.
        fraction: Share of the model's parameters, or of a LoRA's cost where ``lora_rank`` is set.
        lora_rank: Rank of the LoRA on the same modules that ``fraction`` refers to.
        value: A number in the unit of another cost than parameters.
        cost: What the budget is counted in.
    """

    params: int | None = None
    fraction: float | None = None
    lora_rank: int | None = None
    value: int | None = None
    cost: Any = door("cost", "params")

    def resolve(self, space: SearchSpace, model_parameters: int) -> Budget:
        """What an architecture must not exceed.

        Args:
            space: A search space of the same cost.
            model_parameters: Those of the model, its head not counted.
        Raises:
            InputError: If the budget is missing, ambiguous, or below the smallest architecture.
        """
        from morenas.space import Budget

        return Budget.resolve(space, model_parameters, self.params, self.fraction, self.lora_rank, self.value)
