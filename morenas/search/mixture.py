"""The architecture as it is searched: logits, and the probabilities that mix the candidates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from morenas.base.registry import registry
from morenas.bilevel import Schedule, hold_budget, sharpened
from morenas.search.settings import SearchSettings
from morenas.selection import Picks, knapsack
from morenas.space import SearchSpace
from morenas.space.cost import PARAMS
from morenas.supernet import Midpoint, Relaxation


def mean_entropy(probs: Tensor) -> float:
    """Of distributions ``(groups, choices)``, in nats a group."""
    return float(torch.special.entr(probs).sum(dim=-1).mean())


class Mixture:
    """Logits of every choice, and what they stand for at a weight step, under the budget.

    Everything here lives on the CPU, whatever the model's device: the budget is held by bisection in float64, which mps
    lacks and which would make a GPU wait at every halving.

    Attributes:
        logits: The trainable architecture parameters, ``(groups, choices)``; they start at zero.
        costs: Of every choice, whole numbers in the unit of the budget, same shape.
        params: Of every choice, adapter parameters, same shape.
        counts_another_cost: Whether the unit of the budget is not parameters.
        forbidden: Which choices do not fit every module of their group, same shape.
        budget: The most that the choices may cost together, at every step in expectation.
    """

    def __init__(self, space: SearchSpace, budget: int, settings: SearchSettings, schedule: Schedule) -> None:
        self.costs, self.forbidden, self.budget = space.costs(), ~space.admissible(), budget
        self.params = space.params()
        self.counts_another_cost = registry("cost").chosen_by(space.cost) != PARAMS
        self.logits = torch.zeros(self.costs.shape, requires_grad=True)
        relaxation: Relaxation = registry("relaxation").build(settings.acting_relaxation)
        self.relaxation = relaxation.over(self) if isinstance(relaxation, Midpoint) else relaxation
        self._settings, self._schedule = settings, schedule
        self._kept: tuple[tuple[int, int], Tensor] | None = None

    def temperature(self, step: int) -> float:
        """Exponential from first to last over the weight steps after the warm-up; 1 where there are none."""
        if self._schedule.upper_steps() == 0:
            return 1.0
        start, end = self._settings.temperature_start, self._settings.temperature_end
        return float(start * (end / start) ** self._schedule.progress(step))

    def mixing_probs(self, step: int, generator: torch.Generator) -> Tensor:
        """What mixes the candidates at a weight step, ``(groups, choices)``; drawn, where the relaxation draws."""
        return self.relaxation.mixing_probs(self._tilted_logits(step), self.temperature(step), generator)

    @torch.no_grad()
    def distribution(self, step: int) -> Tensor:
        """Probabilities of every choice under the budget, ``(groups, choices)``: the mean of what is drawn."""
        return torch.softmax(self._tilted_logits(step) / self._own_temperature(step), dim=-1)

    def entropy(self, step: int) -> float:
        """Mean entropy of the distribution, in nats a group."""
        return mean_entropy(self.distribution(step))

    def scores(self) -> Tensor:
        """What the logits say of every choice, the budget left aside; 0 where it is forbidden."""
        allowed = self.logits.detach().masked_fill(self.forbidden, -torch.inf)
        return self.relaxation.scores(allowed).masked_fill(self.forbidden, 0.0)

    def vertex(self, scores: Tensor) -> Picks:
        """The best whole architecture within the budget by scores ``(groups, choices)``."""
        return tuple(knapsack(scores.double().masked_fill(self.forbidden, -torch.inf), self.costs, self.budget))

    def best(self) -> Tensor:
        """The best whole architecture by the logits, one-hot ``(groups, choices)``."""
        return self._one_hot(self.vertex(self.scores()))

    def drawn(self, generator: torch.Generator) -> Tensor:
        """A random whole architecture: the best by scores drawn from a normal distribution, one-hot."""
        return self._one_hot(self.vertex(torch.randn(self.costs.shape, generator=generator, dtype=torch.float64)))

    def _one_hot(self, picks: Picks) -> Tensor:
        return F.one_hot(torch.tensor(picks), self.costs.shape[1]).float()

    @torch.no_grad()
    def start_at(self, scores: Tensor, entropy: float) -> None:
        """Let the logits say what scores say, so surely that the distribution has the entropy, in nats a group."""
        allowed = scores.masked_fill(self.forbidden, -torch.inf)
        start = self.relaxation.logits(sharpened(allowed, self.costs, self.budget, entropy))
        self.logits.copy_(start.nan_to_num(neginf=0.0))

    def moved(self) -> bool:
        """Whether any logit is other than zero."""
        return bool((self.logits.detach().abs() > 1e-8).any())

    def _tilted_logits(self, step: int) -> Tensor:
        """Scores tilted under the budget; those without gradients are kept until the logits or the step change."""
        if self.logits.requires_grad and torch.is_grad_enabled():
            return self._tilt(step)
        # The bisection takes longer than a small model's pass, and several passes of a step ask for the same.
        key = (step, self.logits._version)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self._tilt(step).detach()
        return self._kept[1]

    def _tilt(self, step: int) -> Tensor:
        allowed = self.logits.masked_fill(self.forbidden, -torch.inf)
        temperature = self._own_temperature(step)
        return self.relaxation.scores(allowed, lambda s: hold_budget(s, self.costs, self.budget, temperature))

    def _own_temperature(self, step: int) -> float:
        """Temperature of the distribution that the logits stand for."""
        return self.temperature(step) if self.relaxation.tempers_logits else 1.0
