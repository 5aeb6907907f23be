"""Scores corrected by measurement: losses of whole architectures are measured, and a linear model of them is fitted.

The model says that an architecture's loss is a constant, less a positive multiple of each prior score of its choices,
plus a correction of every single choice. Where nothing was measured the corrections are zero and the priors decide.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor

from morenas.selection.evidence import Evidence, Picks
from morenas.selection.knapsack import knapsack
from morenas.selection.standard import standardized

STRENGTH = 10.0  # how much more freely the priors' multiples are fitted than the corrections
NOISE = (0.3, 1.0)  # of the standardized scores, by which proposals differ: least and most
ALPHAS = tuple(10.0**power for power in range(-3, 4))


def surrogate(evidence: Evidence) -> Picks:
    """The architecture of lowest measured loss among those that a linear model of the loss proposes.

    Raises:
        ValueError: If nothing fits the budget, or a loss is not finite.
    """
    return LossModel.of(evidence).improve(evidence.measure, evidence.count())


@dataclass
class LossModel:
    """Proposes architectures, learns from their measured losses, and scores every choice.

    Attributes:
        priors: One or more scores of every choice, higher is better, each ``(groups, choices)``; kept standardized.
        costs: Of every choice, same shape.
        allowed: Which choices may be taken, same shape.
        measured: Loss of every architecture that was measured, by its choices.
    """

    priors: Sequence[Tensor]
    costs: Tensor
    allowed: Tensor
    budget: int
    generator: torch.Generator
    measured: dict[Picks, float] = field(default_factory=dict)

    @classmethod
    def of(cls, evidence: Evidence) -> LossModel:
        """The model before anything was measured."""
        return cls(evidence.priors, evidence.costs, evidence.allowed, evidence.budget, evidence.generator)

    def __post_init__(self) -> None:
        self.priors = [standardized(prior, self.allowed) for prior in self.priors]

    def improve(self, evaluate: Callable[[Picks], float], count: int) -> Picks:
        """Measure up to ``count`` architectures, in two rounds; return the one of lowest loss.

        The first is the best of the first prior, measured whatever ``count`` is.

        Args:
            evaluate: Loss of an architecture, one choice a group; finite.
        Raises:
            ValueError: If nothing fits the budget, or a loss is not finite.
        """
        count, tries = max(count, 1), 0

        def propose(picks: Picks) -> None:
            if len(self.measured) < count:
                self._measure(evaluate, picks)

        for prior in self.priors:
            propose(self._best(prior))
        while len(self.measured) < count // 2 and (tries := tries + 1) < 20 * count:
            propose(self._proposal(self._mixture()))
        scores = self.scores()
        propose(self._best(scores))
        while (known := len(self.measured)) < count and (tries := tries + 1) < 20 * count:
            propose(self._proposal(scores))
            if len(self.measured) > known:
                scores = self.scores()
                propose(self._best(scores))
        return min(self.measured, key=lambda picks: self.measured[picks])

    def scores(self) -> Tensor:
        """Fitted score of every choice, in units of the loss: shape ``(groups, choices)``, float64.

        Before two architectures were measured there is nothing to fit: the mean of the priors.
        """
        groups, choices = self.costs.shape
        if len(self.measured) < 2:
            return torch.stack(list(self.priors)).mean(dim=0)
        one_hot = np.zeros((len(self.measured), groups, choices))
        for row, picks in enumerate(self.measured):
            one_hot[row, range(groups), picks] = 1
        totals = np.stack([(one_hot * prior.numpy()).sum(axis=(1, 2)) for prior in self.priors], axis=1)
        # One ridge for both: a feature that is scaled up needs a smaller coefficient, and so is shrunk less. With few
        # losses the priors' multiples are fitted first, and single choices are corrected only where losses insist.
        features = np.concatenate([STRENGTH * totals, one_hot.reshape(len(one_hot), -1)], axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = RidgeCV(alphas=ALPHAS).fit(features, -np.array(list(self.measured.values())))
        # A prior that contradicts the losses is ignored, never turned round: choices that were not measured would get
        # the scores of its opposite, which nothing speaks for.
        multiples = np.maximum(fit.coef_[: len(self.priors)] * STRENGTH, 0)
        scores = torch.from_numpy(fit.coef_[len(self.priors) :].reshape(groups, choices)).clone()
        for multiple, prior in zip(multiples, self.priors, strict=True):
            scores += float(multiple) * prior
        return scores

    def _mixture(self) -> Tensor:
        """A random mean of the priors."""
        shares = torch.rand(len(self.priors), generator=self.generator, dtype=torch.float64)
        return torch.einsum("p,pgc->gc", shares / shares.sum(), torch.stack(list(self.priors)))

    def _proposal(self, scores: Tensor) -> Picks:
        """The best selection of perturbed scores."""
        scores = standardized(scores, self.allowed)
        low, high = NOISE
        size = low + (high - low) * float(torch.rand((), generator=self.generator))
        noise = torch.randn(scores.shape, generator=self.generator, dtype=torch.float64)
        return self._best(scores + size * noise)

    def _best(self, scores: Tensor) -> Picks:
        return tuple(knapsack(scores.masked_fill(~self.allowed, -torch.inf), self.costs, self.budget))

    def _measure(self, evaluate: Callable[[Picks], float], picks: Picks) -> None:
        if picks in self.measured:
            return
        loss = evaluate(picks)
        if not math.isfinite(loss):
            raise ValueError(f"The loss of architecture {picks} is {loss}; it must be finite.")
        self.measured[picks] = loss
