"""Whether the block count matters in the planted transformers: architectures trained alone, no search.

    python experiments/block_counts/alone.py --numbers 0 1 --seeds 2

A row is one problem and training seed: test losses of the frozen net, of the planted architecture, and of its ranks
with N = 1 and with N = 4 everywhere (as many parameters, module by module). With --modules a last column says for how
many modules the planted side of N is better, that module alone turned to the other.
"""

from __future__ import annotations

import argparse

import torch

from morenas.benchmark.alone import mean_loss, train_alone
from morenas.benchmark.planted_transformer import SIDES, PlantedTransformer
from morenas.benchmark.problem import Shapes
from morenas.space import Choice

LARGEST = 4  # block count of the other side


def turned(shapes: Shapes, name: str) -> Shapes:
    """The same with one module on the other side of N, at its rank."""
    count, rank = shapes[name]
    return {**shapes, name: Choice(LARGEST if count == 1 else 1, rank)}


def row(problem: PlantedTransformer, seed: int, modules: bool) -> str:
    """A line of the table."""
    planted = problem.planted
    sides = [{name: Choice(n, choice.blk_r) for name, choice in planted.items()} for n in (1, LARGEST)]
    architectures = [planted, *sides, *(turned(planted, name) for name in planted if modules)]
    whole, one, four, *others = (trained.test for trained in train_alone(problem, architectures, seed))
    better = f"{sum(other > whole for other in others)} of {len(others)}" if others else "-"
    losses = " | ".join(f"{loss:.4f}" for loss in (mean_loss(problem, "test"), whole, one, four))
    return f"| {problem.family} | {problem.number} | {seed} | {losses} | {better} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Whether the block count matters in the planted transformers.")
    parser.add_argument("--numbers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--modules", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| family | problem | seed | no adapter | planted | N = 1 | N = 4 | modules better on their side |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for family in SIDES:
        for number in given.numbers:
            problem = PlantedTransformer(family, number)
            for seed in range(given.seeds):
                print(row(problem, seed, given.modules), flush=True)


if __name__ == "__main__":
    main()
