"""The truth about architectures: their test losses when trained alone, each trained once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from morenas.base.errors import InputError
from morenas.benchmark.alone import train_alone
from morenas.benchmark.problem import Problem, Shapes
from morenas.benchmark.table import ArchitectureTable
from morenas.benchmark.tabular import TabularTask

ArchitectureKey = frozenset[tuple[str, tuple[int, int]]]
REPEATED = 2  # trainings of an architecture where seeds are compared


class Judge:
    """Test losses by architecture, kept; a tabular problem's are looked up where the table holds them."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.table = ArchitectureTable() if isinstance(problem, TabularTask) else None
        self.seeds = 1 if self.table is None else len(self.table.seeds)
        self._known: dict[ArchitectureKey, NDArray[np.float64]] = {}
        self._repeated: dict[frozenset[ArchitectureKey], NDArray[np.float64]] = {}

    def loss(self, shapes: Shapes) -> float:
        """Mean over seeds."""
        return float(self.losses([shapes]).mean())

    def losses(self, architectures: Sequence[Shapes]) -> NDArray[np.float64]:
        """Loss of every seed and architecture, shape ``(seeds, architectures)``."""
        missing = {key(shapes): shapes for shapes in architectures if key(shapes) not in self._known}
        unknown = {name: shapes for name, shapes in missing.items() if not self._look_up(shapes)}
        if unknown:
            for name, values in zip(unknown, self._train(list(unknown.values()), range(self.seeds)).T, strict=True):
                self._known[name] = values
        return np.stack([self._known[key(shapes)] for shapes in architectures], axis=1)

    def repeated(self, architectures: Sequence[Shapes]) -> NDArray[np.float64]:
        """As ``losses``, of at least ``REPEATED`` seeds."""
        known = self.losses(architectures)
        if self.seeds >= REPEATED:
            return known
        name = frozenset(map(key, architectures))
        if name not in self._repeated:
            self._repeated[name] = self._train(architectures, range(self.seeds, REPEATED))
        return np.concatenate([known, self._repeated[name]])

    def _train(self, architectures: Sequence[Shapes], seeds: Sequence[int]) -> NDArray[np.float64]:
        return np.array([[one.test for one in train_alone(self.problem, architectures, seed)] for seed in seeds])

    def least(self) -> tuple[float, ArchitectureKey]:
        """The lowest mean loss of all that were judged, and whose it is."""
        best = min(self._known, key=lambda name: float(self._known[name].mean()))
        return float(self._known[best].mean()), best

    def _look_up(self, shapes: Shapes) -> bool:
        if self.table is None or not isinstance(self.problem, TabularTask):
            return False
        try:
            picks = self.problem.picks(shapes)
        except InputError:
            return False
        self._known[key(shapes)] = self.table.losses(self.problem.family, picks)
        return True


def key(shapes: Shapes) -> ArchitectureKey:
    """What equal architectures share."""
    return frozenset((name, (int(choice[0]), int(choice[1]))) for name, choice in shapes.items() if choice[1])
