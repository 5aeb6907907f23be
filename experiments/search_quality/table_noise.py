"""What the noise of the tabular bench leaves to any method: ``python experiments/search_quality/table_noise.py``.

An oracle trains every architecture within the budget alone with all seeds of the table but one, and takes the best; its
regret is read with the seed left out, mean over which that is. Beside it the places, among all of them, of what our
search found (`rows/`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from morenas.benchmark.measures import normalized_regret
from morenas.benchmark.reference import random_architectures
from morenas.benchmark.run import BUDGETS, read_rows
from morenas.benchmark.table import ArchitectureTable
from morenas.benchmark.tabular import TabularTask
from morenas.benchmark.tasks import TASKS

Losses = NDArray[np.float64]
ROWS = Path(__file__).parent / "rows"


def regret_of_oracle(losses: Losses, random: float) -> float:
    """Of losses ``(architectures, seeds)``."""
    seeds = range(losses.shape[1])
    found = [losses[np.delete(losses, seed, axis=1).mean(axis=1).argmin(), seed] for seed in seeds]
    return normalized_regret(float(np.mean(found)), float(losses.mean(axis=1).min()), random)


def standard_error(losses: Losses, random: float) -> float:
    """Of the mean over an architecture's seeds, in units of regret."""
    error = np.sqrt(losses.var(axis=1, ddof=1).mean() / losses.shape[1])
    return float(error / (random - losses.mean(axis=1).min()))


def places(losses: Losses, file: str) -> str:
    """Of the architectures that were found, best first."""
    found = [row.loss for row in read_rows(ROWS / file) if row.method == "morenas"]
    return ", ".join(map(str, sorted(1 + int((losses.mean(axis=1) < loss - 1e-9).sum()) for loss in found)))


def main() -> None:
    table, regrets = ArchitectureTable(), []
    print("| task | budget | architectures | standard error of the truth | regret of the oracle | places found |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for name in TASKS:
        for number, budget in enumerate(BUDGETS):
            task = TabularTask(name, budget)
            losses = np.array([table.losses(name, picks) for picks in table.architectures(task.budget)])
            drawn = [table.losses(name, task.picks(shapes)) for shapes in random_architectures(task)]
            random = float(np.mean(drawn))
            regrets.append(regret_of_oracle(losses, random))
            error, found = standard_error(losses, random), places(losses, f"tabular-{name}-{number}.json")
            print(f"| {name} | {budget:.0%} | {len(losses)} | {error:.2f} | {regrets[-1]:.3f} | {found} |")
    print(f"\nMean regret of the oracle: {np.mean(regrets):.3f}")


if __name__ == "__main__":
    main()
