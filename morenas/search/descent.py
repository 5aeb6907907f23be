"""Architecture steps on weights that stand still: gradients of the val loss say where the budget goes.

The mixture's probabilities p enter every layer linearly, so that the gradient dL/dp gives, for every choice of every
group at once, what a little more of it does to the loss. At the midpoint of two architectures the differences of
dL/dp between their choices add up to the difference of their losses, to a few percent; one backward pass is worth as
many measured losses as there are groups. So it is taken at midpoints, of the best architecture so far and another one
at every step (``relaxation=midpoint``), unless another relaxation is asked for.

The steps are those of dual averaging (Nesterov 2009) on the polytope of mixtures within the budget, with the entropy as
its regularizer: the next mixture minimizes ``<mean gradient, p> - t entropy(p)`` there. All groups share one ``t``, so
that a gradient that is large beside another stays large; Adam on logits would level them. ``t`` is found, step by step,
such that the mean entropy of a group falls from where the start has set it to ``ENTROPY_END``. The scores of the start
count as ``PRIOR`` gradients of the same deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from morenas.base.seeds import derive
from morenas.bilevel import BilevelProblem
from morenas.search.mixture import Mixture
from morenas.search.objective import Objective
from morenas.search.settings import SearchSettings
from morenas.selection import Picks
from morenas.selection.standard import deviation, standardized
from morenas.supernet import Supernet

PRIOR = 4  # gradients that the scores of the start weigh as much as
ENTROPY_END = 0.1  # nats a group: of two choices, one has 98 %
ARCH_STEPS = 0.01  # architecture steps, as a share of the weight steps
FEWEST_ARCH_STEPS = 8  # or one for 10 weight steps, where that is less


@dataclass(frozen=True)
class ArchStep:
    """What one architecture step did.

    Attributes:
        number: Of the step, from 0.
        loss: Of the mixture before it.
        probs: The distribution after it, ``(groups, choices)``.
        vertex: The best architecture within the budget by the gradients so far.
    """

    number: int
    loss: float
    probs: Tensor
    vertex: Picks


@dataclass(frozen=True)
class MixtureGradient:
    """Loss and gradient of the mixture at an architecture step, on the val batches of its number.

    Attributes:
        seed: Of the search; what a relaxation draws follows from it and the step.
        at: Weight step at which the weights stand.
    """

    supernet: Supernet
    mixture: Mixture
    objective: Objective
    problem: BilevelProblem
    seed: int
    at: int

    def __call__(self, number: int) -> tuple[float, Tensor]:
        """The loss, and its gradient in the mixing probabilities, ``(groups, choices)``.

        Raises:
            NonFiniteLoss: If the loss is NaN or infinite.
        """
        generator = torch.Generator().manual_seed(derive(self.seed, "search", "mixture", number))
        probs = self.mixture.mixing_probs(self.at, generator).detach().requires_grad_(True)
        self.objective.enter(lambda step, generator: self.supernet.mix(probs))
        losses, (grad,) = self.problem.gradients(self.problem.upper, number, [probs])
        return losses.read(), grad


Gradient = Callable[[int], tuple[float, Tensor]]


def arch_steps(mixture: Mixture, at: int, gradient: Gradient, steps: int) -> Iterator[ArchStep]:
    """Take so many steps. The mixture's logits are left where the last one puts them.

    Args:
        at: Weight step at which the weights stand.
        gradient: Of a step, by its number; see ``MixtureGradient``.
    Yields:
        Each step, when it is taken.
    """
    allowed, total = ~mixture.forbidden, torch.zeros(mixture.costs.shape, dtype=torch.float64)
    prior, entropy = standardized(mixture.scores(), allowed), mixture.entropy(at)
    for number in range(steps):
        loss, grad = gradient(number)
        total += grad.double().cpu()
        scores = (PRIOR * deviation(total / (number + 1), allowed) * prior - total) / (PRIOR + number + 1)
        share = (number + 1) / steps
        mixture.start_at(scores, entropy ** (1 - share) * min(entropy, ENTROPY_END) ** share)
        yield ArchStep(number, loss, mixture.distribution(at), mixture.vertex(scores))


def arch_steps_alone(settings: SearchSettings) -> int:
    """Architecture steps of a search while its weights stand still."""
    if not settings.stands:
        return 0
    return usual_arch_steps(settings.steps) if settings.arch_steps is None else settings.arch_steps


def usual_arch_steps(steps: int) -> int:
    """Architecture steps after so many weight steps: few in a short search, which they would outweigh."""
    return max(round(ARCH_STEPS * steps), min(FEWEST_ARCH_STEPS, steps // 10), 1)
