"""What a search may choose from and how much it may spend, as plain values. Free of torch, as ``SearchSettings`` is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from morenas.base.kinds import GRANULARITIES
from morenas.base.settings import one_of

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

    def build(self, modules: Mapping[str, tuple[int, int]]) -> SearchSpace:
        """The search space.

        Args:
            modules: Module name to ``(in_features, out_features)``.
        Raises:
            InputError: If a value is out of range, or a module is left without any shape that fits.
        """
        from morenas.space import build_space

        return build_space(modules, **asdict(self))


@dataclass(frozen=True)
class BudgetSettings:
    """The budget, as a number of parameters, as a share of the model's, or as a share of a LoRA's.

    Attributes:
        params: Adapter parameters.
        fraction: Share of the model's parameters, or of a LoRA's where ``lora_rank`` is set.
        lora_rank: Rank of the LoRA on the same modules that ``fraction`` refers to.
    """

    params: int | None = None
    fraction: float | None = None
    lora_rank: int | None = None

    def resolve(self, space: SearchSpace, model_parameters: int) -> Budget:
        """The number of parameters that an architecture of the space must not exceed.

        Args:
            model_parameters: Those of the model, its head not counted.
        Raises:
            InputError: If the budget is missing, ambiguous, or below the smallest architecture.
        """
        from morenas.space import Budget

        return Budget.resolve(space, model_parameters, **asdict(self))
