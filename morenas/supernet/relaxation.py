"""Relaxations: how architecture logits become the probabilities that mix the candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class Vertices(Protocol):
    """Whole architectures within the budget: corners of what mixtures within it can be."""

    def best(self) -> Tensor:
        """The best by the logits as they are, one-hot ``(groups, choices)``."""
        ...

    def drawn(self, generator: torch.Generator) -> Tensor:
        """The best by scores drawn from a normal distribution, one-hot ``(groups, choices)``."""
        ...


class Relaxation(Protocol):
    """Maps logits to mixing probabilities, in two steps: logits to scores, and scores to probabilities.

    Between the two, scores are tilted under the budget. ``tempers_logits`` says whether the distribution that scores
    stand for, the mean of what is drawn, is ``softmax(scores / temperature)`` or, where the temperature only smooths
    gradients or does nothing, ``softmax(scores)``.
    """

    tempers_logits: ClassVar[bool] = False

    def scores(self, logits: Tensor, hold: Callable[[Tensor], Tensor] = lambda scores: scores) -> Tensor:
        """Scores of the logits, ``(groups, choices)``; ``hold`` tilts scores under the budget."""
        return hold(logits)

    def logits(self, scores: Tensor) -> Tensor:
        """Logits that have these scores, up to a constant a group."""
        return scores

    def mixing_probs(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Return probabilities of the shape of ``logits`` ``(groups, choices)``; rows sum to one."""
        ...


@dataclass(frozen=True)
class Softmax(Relaxation):
    """Every candidate takes part, weighted by ``softmax(logits / temperature)``.

    Source: Liu et al. 2019 (DARTS), with an annealed temperature.
    """

    tempers_logits: ClassVar[bool] = True

    def mixing_probs(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        return torch.softmax(logits / temperature, dim=-1)


class Midpoint(Relaxation):
    """Half the best architecture within the budget by the logits, half a random one, drawn anew at every step.

    Between two architectures the gradient in the probabilities says what each change from one to the other is worth,
    interactions included; another one at every step asks for all changes, each beside many others. Logits get the
    gradient of their softmax, straight through.
    """

    def __init__(self, vertices: Vertices | None = None) -> None:
        self._vertices = vertices

    def over(self, vertices: Vertices) -> Midpoint:
        """The midpoints of these architectures: those of one search, which says what they are."""
        return Midpoint(vertices)

    def mixing_probs(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        if self._vertices is None:
            raise ValueError("a midpoint is one of two architectures; Midpoint().over(...) says which there are")
        middle = (self._vertices.best() + self._vertices.drawn(generator)) / 2
        soft = torch.softmax(logits / temperature, dim=-1)
        return middle.to(soft) + (soft - soft.detach())


@dataclass(frozen=True)
class Gumbel(Relaxation):
    """One candidate is drawn from ``softmax(logits)``; gradients flow through the softened draw.

    Source: Jang et al. 2017, straight-through; Dong and Yang 2019 (GDAS).
    """

    def mixing_probs(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        # The negative logarithm of an exponential draw is a Gumbel draw; in float64, so that no draw rounds to zero and
        # its logarithm stays finite. Drawn on the CPU, so that every device and every rank draws the same architecture.
        noise = torch.empty(logits.shape, dtype=torch.float64).exponential_(generator=generator).log().neg()
        # The temperature divides logits and noise together: it says how smooth the gradient is, not what is drawn.
        soft = torch.softmax((logits + noise.to(logits)) / temperature, dim=-1)
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
        # hard + (soft - soft) is exactly one-hot; hard - soft + soft is not.
        return hard + (soft - soft.detach())


@dataclass(frozen=True)
class Dirichlet(Relaxation):
    """Probabilities drawn from a Dirichlet distribution of concentrations ``elu(logits) + 1``.

    Scores are logarithms of concentrations: the distribution's mean is their softmax. So tilting them under the budget
    holds the expected cost of the mean within it, exactly. Each row's total concentration is put back to what it was
    without the tilt, which leaves the mean alone: the budget does not change how far draws scatter. The temperature
    does nothing.

    Gradients are those of implicit reparametrization, through independent Gamma draws that are divided by their sum.
    Concentrations below ``LEAST`` count as that: their draws are zero but for one in thousands of millions.

    Source: Chen et al. 2021 (DrNAS), without its regularizer towards the uniform distribution.
    """

    def scores(self, logits: Tensor, hold: Callable[[Tensor], Tensor] = lambda scores: scores) -> Tensor:
        free = torch.where(logits > 0, logits.clamp(min=0).log1p(), logits)  # log(elu(logits) + 1)
        held = hold(free)
        return held + (free.logsumexp(dim=-1, keepdim=True) - held.logsumexp(dim=-1, keepdim=True))

    def logits(self, scores: Tensor) -> Tensor:
        """As ``Relaxation``; the mean concentration of the choices that are allowed is 1."""
        allowed = scores.isfinite().sum(dim=-1, keepdim=True)
        scores = scores - scores.logsumexp(dim=-1, keepdim=True) + allowed.log()
        return torch.where(scores > 0, scores.clamp(min=0).expm1(), scores)

    def mixing_probs(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        concentrations = logits.double().exp()
        with torch.random.fork_rng(devices=[]):  # torch's distributions take no generator
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            draws = torch.distributions.Gamma(concentrations.clamp(min=LEAST), 1.0).rsample()
        draws = draws.masked_fill(logits.isneginf(), 0.0)
        return (draws / draws.sum(dim=-1, keepdim=True)).to(logits.dtype)


LEAST = 1e-9
