"""What a search expects of its architecture beside a LoRA that costs as much, before either is trained on.

Both are measured in the weights that the search leaves, on the same batches of data that chose nothing. Where the
interval holds 0 the search has found nothing better than LoRA, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy import stats

from morenas.search.measure import Measurement
from morenas.selection import Picks, knapsack
from morenas.space import SearchSpace

BATCHES = 8  # that both are measured on
FEWEST_BATCHES = 4  # in a short search, or one for 20 weight steps
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Worth:
    """By how much the loss of what was found is below that of LoRA, with a 95 % interval of the paired difference.

    Training narrows it: the interval is that of the batches alone.

    Attributes:
        gain: Mean over the batches; above 0 where what was found is better.
        low: Lower end of the interval, by Student's t.
        high: Its upper end.
        batches: Batches that both were measured on.
    """

    gain: float
    low: float
    high: float
    batches: int

    @classmethod
    def of(cls, lora: Sequence[float], found: Sequence[float]) -> Worth:
        """The paired difference of losses on two batches or more."""
        differences = np.subtract(lora, found)
        gain, error = float(differences.mean()), float(stats.sem(differences))
        reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)) * error
        return cls(gain, gain - reach, gain + reach, len(differences))

    def document(self) -> dict[str, float]:
        """The JSON object of ``architecture.json``."""
        return asdict(self)

    def __str__(self) -> str:
        """One sentence."""
        interval = f"{self.gain:+.4f} of loss, 95 % interval {self.low:+.4f} to {self.high:+.4f}"
        if self.low > 0:
            said = "better than LoRA of equal cost"
        elif self.high < 0:
            said = "worse than LoRA of equal cost"
        else:
            said = "not to be told from LoRA of equal cost"
        return f"Before either is trained on, what was found is {said} ({interval})."


def uniform_lora(space: SearchSpace, budget: int) -> Picks | None:
    """LoRA of one rank in every group, and of the space's next rank in those that use up the rest of the budget.

    Args:
        budget: In the unit of the space's cost.
    Returns:
        One choice index per group; None where the space holds no such LoRA.
    """
    costs, allowed = space.costs(), space.admissible()
    ranks = [index for index, choice in enumerate(space.choices) if choice.nblocks == 1]  # the lowest first
    paid = [
        place for place, index in enumerate(ranks) if bool(allowed[:, index].all()) and costs[:, index].sum() <= budget
    ]
    if not paid:
        return None
    scores = torch.full(costs.shape, -torch.inf, dtype=torch.float64)
    for index in ranks[paid[-1] : paid[-1] + 2]:
        scores[:, index] = costs[:, index].double().masked_fill(~allowed[:, index], -torch.inf)
    return tuple(knapsack(scores, costs, budget))


def worth(found: Sequence[int], space: SearchSpace, measurement: Measurement, steps: int) -> Worth | None:
    """Measure what was found beside LoRA; the supernet computes what was found from then on.

    Args:
        found: One choice index per group.
        measurement: Of the search.
        steps: Weight steps of the search.
    Returns:
        None where there is no such LoRA to compare with.
    """
    cost = int(space.costs()[torch.arange(len(found)), torch.tensor(found)].sum())
    lora = uniform_lora(space, cost)
    if lora is None or not any(space.choices[pick].blk_r for pick in lora):
        return None
    numbers = range(worth_batches(steps))
    return Worth.of(measurement.on_decisive(lora, numbers), measurement.on_decisive(found, numbers))


def worth_batches(steps: int) -> int:
    """Batches that both are measured on after so many weight steps."""
    return min(BATCHES, max(FEWEST_BATCHES, steps // 20))
