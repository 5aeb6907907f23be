"""The fine grid of which the blocks of every candidate are unions.

A candidate with N blocks cuts the input into contiguous slices and deals the output features out in turn. Cells of
the input are the intersections of all candidates' slices; classes of the output are the residues modulo the least
common multiple L of all N. In terms of cells and classes every candidate is a 0/1 matrix, so one product with a
probability-weighted sum of those matrices (the link tensor) serves the whole search space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from morenas.monarch import constant
from morenas.space.candidates import Choice


@dataclass(frozen=True)
class Grid:
    """Cells of the input and classes of the output.

    Attributes:
        in_features: Width of the input, ``n``.
        out_features: Width of the output, ``m``.
        starts: First input feature of each cell; cells are contiguous and cover the input.
        classes: Number of residue classes of the output, ``L``; ``m``, every feature its own, where L is larger.
    """

    in_features: int
    out_features: int
    starts: tuple[int, ...]
    classes: int

    @classmethod
    def build(cls, in_features: int, out_features: int, nblocks: Sequence[int]) -> Grid:
        """Build a grid that refines the blocks of every count in ``nblocks``: L equal cells, if L divides the input."""
        common = math.lcm(*nblocks)
        finest = [common] if in_features % common == 0 else nblocks
        edges = {k * math.ceil(in_features / n) for n in finest for k in range(n)}
        starts = tuple(sorted(e for e in edges if e < in_features))
        return cls(in_features, out_features, starts, min(common, out_features))

    @cached_property
    def regular(self) -> bool:
        """Whether all cells are equally wide, so that cutting the input is a view."""
        return all(start * len(self.starts) == k * self.in_features for k, start in enumerate(self.starts))

    def cut(self, first: Tensor) -> Tensor:
        """Input factors ``(slots, n)`` by cell, ``(cells, slots, n / cells)``; where cells are not equally wide, as one
        block with zeros, ``(1, cells * slots, n)``."""
        cells = len(self.starts)
        if self.regular:
            return first.unflatten(1, (cells, -1)).transpose(0, 1)
        return (
            self.spread(torch.eye(cells, device=first.device, dtype=first.dtype).unsqueeze(1), first)
            .flatten(0, 1)
            .unsqueeze(0)
        )

    def spread(self, cells: Tensor, features: Tensor) -> Tensor:
        """Multiply every input feature by the value of its cell: ``(..., cells)`` and ``(..., n)`` to ``(..., n)``."""
        if self.regular:
            return (features.unflatten(-1, (len(self.starts), -1)) * cells.unsqueeze(-1)).flatten(-2)
        return features * (cells @ _membership(self, cells.dtype, cells.device))

    def gather(self, features: Tensor) -> Tensor:
        """Sum over the input features of each cell, the adjoint of ``spread``: ``(..., n)`` to ``(..., cells)``."""
        if self.regular:
            return features.unflatten(-1, (len(self.starts), -1)).sum(dim=-1)
        return features @ _membership(self, features.dtype, features.device).T

    def deal(self, factor: Tensor) -> Tensor:
        """Deal the last dimension ``m`` out to the classes: ``(..., m)`` to ``(..., ceil(m / L), L)``."""
        short = -self.out_features % self.classes
        return (F.pad(factor, (0, short)) if short else factor).unflatten(-1, (-1, self.classes))

    def deal_rows(self, matrix: Tensor) -> Tensor:
        """Deal rows out to the classes: ``(m, ...)`` to ``(L, ceil(m / L), ...)``."""
        short = -self.out_features % self.classes
        padded = F.pad(matrix, (0, 0, 0, short)) if short else matrix
        return padded.unflatten(0, (-1, self.classes)).transpose(0, 1)


@constant
def _membership(grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 where an input feature lies in a cell, shape ``(cells, n)``."""
    features, starts = torch.arange(grid.in_features, device=device), torch.tensor(grid.starts, device=device)
    cell_of = torch.bucketize(features, starts, right=True) - 1
    return F.one_hot(cell_of, len(grid.starts)).T.to(dtype)


def block_counts(choices: Sequence[Choice]) -> list[int]:
    """Distinct block counts of the candidates that hold an adapter, ascending."""
    return sorted({choice.nblocks for choice in choices if choice.blk_r})


def rank_gates(choices: Sequence[Choice]) -> Tensor:
    """0/1 matrix from choices to the slots they take, shape ``(choices, counts * max_rank)``."""
    counts, max_rank = block_counts(choices), max(choice.blk_r for choice in choices)
    gates = torch.zeros(len(choices), len(counts) * max_rank)
    for row, choice in enumerate(choices):
        gates[row, list(choice.slots(counts, max_rank))] = 1
    return gates


@constant
def link_masks(grid: Grid, choices: tuple[Choice, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Which cells slot j of each block count links to which classes, shape ``(counts, max_rank, classes, cells)``.

    ``masks[i, j, l, c]`` is 1 where ``(block of cell c + j) mod N == l mod N`` for the i-th count N: the cyclic link.
    Layers of one shape share theirs.
    """
    counts, max_rank = block_counts(choices), max(choice.blk_r for choice in choices)
    starts = torch.tensor(grid.starts, device=device)
    slot = torch.arange(max_rank, device=device).view(-1, 1, 1)
    out_class = torch.arange(grid.classes, device=device).view(1, -1, 1)
    blocks = [starts.div(math.ceil(grid.in_features / n), rounding_mode="floor") for n in counts]
    masks = [(block + slot) % n == out_class % n for block, n in zip(blocks, counts, strict=True)]
    return torch.stack(masks).to(dtype)
