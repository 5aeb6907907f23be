"""LoRA of equal parameters: the baseline that any other way to spend a budget has to beat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morenas.base.errors import InputError
from morenas.finetune.methods.low_rank import Lora
from morenas.finetune.methods.method import Targets, check_dropout, check_setting

if TYPE_CHECKING:
    from peft import LoraConfig

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class RankedLora(Lora):
    """LoRA with a rank for each module; all are scaled by ``alpha / rank``.

    Attributes:
        ranks: Rank by module, in place of ``rank``; modules left out, or of rank 0, get no adapter.
    """

    ranks: Mapping[str, int]

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> LoraConfig:
        return self._config({name: rank for name, rank in self.ranks.items() if rank > 0}, head)


@dataclass(frozen=True)
class EqualLora:
    """LoRA of as many parameters as another method has, spread over the modules as evenly as they go.

    Attributes:
        params: Adapter parameters, which are not exceeded.
        alpha: Adapters are scaled by alpha over the largest rank; None for twice that rank.
        dropout: Probability that an input of an adapter is dropped in training.
    """

    params: int | None = None
    alpha: float | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        check_setting("params", self.params, self.params is None or self.params >= 1, "at least 1")
        fits = self.alpha is None or 0 < self.alpha < math.inf
        check_setting("alpha", self.alpha, fits, "above 0 and finite, or null for twice the largest rank")

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> LoraConfig:
        if self.params is None:
            raise InputError("method.params: give the adapter parameters that method=equal_lora may have.")
        ranks = equal_parameter_lora(self.params, targets)
        largest = RankedLora(rank=max(ranks.values()), alpha=self.alpha, dropout=self.dropout, ranks=ranks)
        return largest.peft_config(targets, head, total_steps)


def equal_parameter_lora(params: int, targets: Targets) -> dict[str, int]:
    """Spread a number of parameters over LoRA ranks as evenly as they go.

    Every module gets the same rank, the largest that fits. The remaining parameters raise the rank by one in modules
    spread evenly over depth, chosen so that the total is the largest that does not exceed ``params``.

    Args:
        params: Adapter parameters to spend.
        targets: Modules that may get an adapter; rank 1 costs ``in_features + out_features`` there.
    Returns:
        Rank by module; modules of rank 0 are absent.
    Raises:
        InputError: If ``params`` is less than the smallest adapter.
    """
    costs = {name: sum(shape) for name, shape in targets.items()}
    floor, remainder = divmod(params, sum(costs.values()))
    raised = _spread_subset(costs, remainder)
    ranks = {name: floor + (name in raised) for name in targets}
    if not any(ranks.values()):
        raise InputError(
            f"LoRA of equal parameters: {params:,} parameters are fewer than the smallest adapter of rank 1 "
            f"({min(costs.values()):,}); raise the budget."
        )
    return {name: rank for name, rank in ranks.items() if rank > 0}


def _spread_subset(costs: dict[str, int], limit: int) -> set[str]:
    """Return modules whose costs add up to the most that ``limit`` allows, spread over their order.

    Multiples of the golden ratio fall evenly into the unit interval and in step with no period, so a prefix
    of that order favours neither a depth nor one type of module in every layer.
    """
    unit = math.gcd(*costs.values())
    position = {name: index * _GOLDEN % 1 for index, name in enumerate(costs)}
    order = sorted(costs, key=position.__getitem__)
    window = (1 << limit // unit + 1) - 1
    sums = [1]  # bit s of sums[k]: the last k modules of the order have a subset of cost s
    for name in reversed(order):
        sums.append((sums[-1] | sums[-1] << costs[name] // unit) & window)
    left, chosen = sums[-1].bit_length() - 1, set()
    for name, rest in zip(order, reversed(sums[:-1]), strict=True):
        after = left - costs[name] // unit
        if after >= 0 and rest >> after & 1:
            chosen.add(name)
            left = after
    return chosen
