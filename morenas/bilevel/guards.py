"""Guards: what stops a search before its architecture decays into whatever trains fastest.

A guard looks after every upper step and says whether the loop should end. It is a function of the loop's parameters, of
the step, and of what ``state_tensors`` carries: a resumed loop stops where one that never was interrupted does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from morenas.bilevel.problem import BilevelProblem
from morenas.bilevel.second_derivative import length

WINDOW = 3  # curvatures in a moving average
ITERATIONS = 3  # of the power method at each look; it goes on from the direction of the look before
RADIUS = 1e-2  # how far the architecture is moved for a finite difference, absolute: logits differ by units


class Guard(Protocol):
    """Says when to stop."""

    @property
    def reason(self) -> str:
        """What it saw last, in words."""
        ...

    def look(self, problem: BilevelProblem, upper: int, lower: int) -> bool:
        """Whether to stop after upper step ``upper``, which preceded lower step ``lower``."""
        ...

    def state_tensors(self) -> dict[str, Tensor]: ...

    def load_state_tensors(self, state: dict[str, Tensor]) -> None: ...


@dataclass
class NoGuard:
    """Never stops: the loop takes all of its steps."""

    reason: str = field(default="", init=False)

    def look(self, problem: BilevelProblem, upper: int, lower: int) -> bool:
        return False

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def load_state_tensors(self, state: dict[str, Tensor]) -> None: ...


@dataclass
class EntropyGuard:
    """Stops once the mean entropy of the problem's distribution is below a floor: nothing is undecided.

    Attributes:
        entropy: The floor, in nats a group.
        seen: The entropy at the last look, in nats a group.

    Raises:
        ValueError: If the problem has no distribution.
    """

    entropy: float = 0.05
    seen: float = field(default=math.inf, init=False)

    @property
    def reason(self) -> str:
        return f"the entropy is {self.seen:.3g} nats a group, below {self.entropy:g}"

    def look(self, problem: BilevelProblem, upper: int, lower: int) -> bool:
        if problem.distribution is None:
            raise ValueError("EntropyGuard looks at the distribution of the architecture: give the problem one.")
        self.seen = float(torch.special.entr(problem.distribution(lower)).sum(dim=-1).mean())
        return self.seen < self.entropy

    def state_tensors(self) -> dict[str, Tensor]:
        return {"entropy": torch.tensor(self.seen, dtype=torch.float64)}

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        self.seen = float(state["entropy"])


@dataclass
class CurvatureGuard:
    """Stops once the upper loss is bent more sharply in the architecture than it was.

    Every ``every`` upper steps it estimates the Hessian's eigenvalue of largest magnitude, by the power method on
    central differences of gradients, on the batches of that step and in full precision. Over the last looks it takes
    a moving average; once that exceeds ``curvature`` times the average of as many looks before, it stops. A look costs
    six upper gradients. Where an architecture is drawn one-hot, the differences see the softened draw alone.

    The architecture is left as it is; the source goes back to what it was before the rise.

    Attributes:
        every: Upper steps between looks.
        curvature: The ceiling, a ratio of moving averages.
        curvatures: Those of the last looks.
        direction: Where the power method stands.

    Source: Zela et al. 2020 (R-DARTS), section 4.3, which stops at a ratio of 1 / 0.75.
    """

    every: int = 5
    curvature: float = 1.3
    curvatures: list[float] = field(default_factory=list, init=False)
    direction: list[Tensor] = field(default_factory=list, init=False)

    @property
    def reason(self) -> str:
        before, now = self._averages()
        return f"the curvature rose from {before:.3g} to {now:.3g}, to more than {self.curvature:g} times as much"

    def look(self, problem: BilevelProblem, upper: int, lower: int) -> bool:
        if upper % self.every:
            return False
        self.direction = self.direction or _random_direction(problem.arch)
        for _ in range(ITERATIONS):
            self.direction, curvature = _power_iteration(problem, upper, self.direction)
        self.curvatures = [*self.curvatures, curvature][-2 * WINDOW :]
        before, now = self._averages()
        return len(self.curvatures) == 2 * WINDOW and now > self.curvature * before

    def _averages(self) -> tuple[float, float]:
        return sum(self.curvatures[:WINDOW]) / WINDOW, sum(self.curvatures[WINDOW:]) / WINDOW

    def state_tensors(self) -> dict[str, Tensor]:
        state = {f"direction.{index}": part for index, part in enumerate(self.direction)}
        return state | {"curvatures": torch.tensor(self.curvatures, dtype=torch.float64)}

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        self.curvatures = state["curvatures"].tolist()
        self.direction = [state[f"direction.{index}"] for index in range(len(state) - 1)]


def _random_direction(tensors: Sequence[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return _unit([torch.randn(tensor.shape, generator=generator).to(tensor) for tensor in tensors])[0]


def _unit(tensors: Sequence[Tensor]) -> tuple[list[Tensor], float]:
    """Tensors of length 1 together, and the length they had; zeros stay."""
    size = length(tensors)
    return [tensor / (size or 1.0) for tensor in tensors], size


def _power_iteration(problem: BilevelProblem, upper: int, direction: list[Tensor]) -> tuple[list[Tensor], float]:
    """``H d / |H d|`` and ``|H d|`` of a direction of length 1; the direction itself where that is zero."""
    ahead, behind = (_gradients_at(problem, upper, direction, reach) for reach in (RADIUS, -RADIUS))
    product, size = _unit([(one - other) / (2 * RADIUS) for one, other in zip(ahead, behind, strict=True)])
    return (product if size else direction), size


def _gradients_at(problem: BilevelProblem, upper: int, direction: list[Tensor], reach: float) -> list[Tensor]:
    """Upper gradients where the architecture is moved; then it is put back from a copy, bit for bit."""
    moved = [tensor.detach() + reach * part for tensor, part in zip(problem.arch, direction, strict=True)]
    with problem.arch_at(moved):
        losses, grads = problem.gradients(problem.upper, upper, problem.arch, full_precision=True)
    losses.read()
    return grads
