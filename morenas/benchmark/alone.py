"""Architectures trained alone, by the problem's recipe, several side by side, and what each reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from morenas.base.seeds import derive
from morenas.benchmark.cohort import Cohort, adamw, train
from morenas.benchmark.problem import Problem, Shapes

COHORT = 16  # architectures side by side, at most
EVALUATED = 4096  # examples at once, of all members


@dataclass(frozen=True)
class Trained:
    """Losses of an architecture trained alone."""

    test: float
    select: float


class Training:
    """A cohort on its way through the recipe.

    Attributes:
        step: Steps taken.
    """

    def __init__(self, problem: Problem, cohort: Cohort, seed: int, total: int | None = None) -> None:
        """Begin at step 0 of ``total`` (default: the recipe's), which the learning rate's schedule counts on."""
        self.problem, self.cohort, self.step = problem, cohort, 0
        self.total = total or problem.recipe.steps
        self._batches = problem.batches("final", derive(seed, "alone"))
        self._optimizer = adamw(cohort, problem.recipe.weight_decay)

    def run(self, until: int) -> None:
        """Train up to step ``until``."""
        recipe = self.problem.recipe
        train(
            self.cohort,
            self.problem.losses,
            self._batches,
            until,
            recipe.learning_rate,
            max_grad_norm=recipe.max_grad_norm,
            start=self.step,
            total=self.total,
            optimizer=self._optimizer,
        )
        self.step = until


def train_alone(
    problem: Problem, architectures: Sequence[Shapes], seed: int = 0, steps: int | None = None
) -> list[Trained]:
    """Train each from its start on the "final" split for ``steps`` (default: the recipe's), and evaluate it."""
    found = []
    for start in range(0, len(architectures), COHORT):
        with cohort(problem, architectures[start : start + COHORT], seed) as members:
            training = Training(problem, members, seed, steps)
            training.run(training.total)
            tests, selects = (evaluate(problem, members, split) for split in ("test", "select"))
        found += [Trained(*pair) for pair in zip(tests, selects, strict=True)]
    return found


def cohort(problem: Problem, architectures: Sequence[Shapes], seed: int) -> Cohort:
    """Members that start as the seed says, whatever their number."""
    return Cohort(problem.model, problem.space.modules, architectures, problem.head, derive(seed, "alone"))


@torch.no_grad()
def evaluate(problem: Problem, members: Cohort, split: str) -> list[float]:
    """Mean loss of every member on a whole split."""
    problem.model.eval()
    examples = problem.examples(split)
    total = len(next(iter(examples.values())))
    size = max(1, EVALUATED // members.size)
    sums = torch.zeros(members.size, dtype=torch.float64)
    for start in range(0, total, size):
        part = {key: values[start : start + size] for key, values in examples.items()}
        losses = problem.losses(problem.model, members.repeat(part)).double()
        sums += losses.view(members.size, -1).sum(dim=1).cpu()
    return [float(value) for value in sums / total]


@torch.no_grad()
def mean_loss(problem: Problem, split: str) -> float:
    """Mean loss of the problem's model, as it is, on a whole split."""
    problem.model.eval()
    examples = problem.examples(split)
    total = len(next(iter(examples.values())))
    parts = [
        {key: values[start : start + EVALUATED] for key, values in examples.items()}
        for start in range(0, total, EVALUATED)
    ]
    return float(torch.stack([problem.losses(problem.model, part).sum() for part in parts]).sum() / total)
