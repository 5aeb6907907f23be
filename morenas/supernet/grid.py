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

import torch
import torch.nn.functional as F
from torch import Tensor

from morenas.space.choices import Choice

SHARINGS = ("full", "per_nblocks")


@dataclass(frozen=True)
class Grid:
    """Cells of the input and classes of the output.

    Attributes:
        in_features: Width of the input, ``n``.
        out_features: Width of the output, ``m``.
        starts: First input feature of each cell; cells are contiguous and cover the input.
        classes: Number of residue classes of the output, ``L``.
    """

    in_features: int
    out_features: int
    starts: tuple[int, ...]
    classes: int

    @classmethod
    def build(cls, in_features: int, out_features: int, nblocks: Sequence[int]) -> Grid:
        """Build the coarsest grid that refines the blocks of every count in ``nblocks``."""
        edges = {k * math.ceil(in_features / n) for n in nblocks for k in range(n)}
        return cls(in_features, out_features, tuple(sorted(e for e in edges if e < in_features)), math.lcm(*nblocks))

    @property
    def width(self) -> int:
        """Features of the widest cell."""
        ends = (*self.starts[1:], self.in_features)
        return max(end - start for start, end in zip(self.starts, ends, strict=True))

    @property
    def regular(self) -> bool:
        """Whether all cells are equally wide, so that cutting the input is a view."""
        return self.width * len(self.starts) == self.in_features

    def cell_index(self) -> Tensor:
        """Feature index of each cell slot, shape ``(cells, width)``; ``in_features`` where a cell is narrower."""
        starts = torch.tensor(self.starts).unsqueeze(1)
        ends = torch.tensor((*self.starts[1:], self.in_features)).unsqueeze(1)
        index = starts + torch.arange(self.width)
        return torch.where(index < ends, index, self.in_features)

    def cut(self, x: Tensor, index: Tensor) -> Tensor:
        """Cut the last dimension ``n`` into ``(cells, width)``, narrower cells filled up with zeros."""
        if self.regular:
            return x.unflatten(-1, (len(self.starts), self.width))
        return F.pad(x, (0, 1))[..., index]

    def deal(self, factor: Tensor) -> Tensor:
        """Deal the last dimension ``m`` out to the classes: ``(slots, m)`` to ``(classes, slots, ceil(m / L))``."""
        per_class = math.ceil(self.out_features / self.classes)
        padded = F.pad(factor, (0, per_class * self.classes - self.out_features))
        return padded.unflatten(-1, (per_class, self.classes)).permute(2, 0, 1)


def block_counts(choices: Sequence[Choice]) -> list[int]:
    """Distinct block counts of the candidates that hold an adapter, ascending."""
    return sorted({choice.nblocks for choice in choices if choice.blk_r})


def rank_gates(choices: Sequence[Choice]) -> Tensor:
    """0/1 matrix from choices to the slots they use, shape ``(choices, counts * max_rank)``.

    Rank is nested: slot j of a block count is used by every choice of that count with ``blk_r > j``.
    """
    counts, max_rank = block_counts(choices), max(choice.blk_r for choice in choices)
    gates = torch.zeros(len(choices), len(counts), max_rank)
    for row, choice in enumerate(choices):
        if choice.blk_r:
            gates[row, counts.index(choice.nblocks), : choice.blk_r] = 1
    return gates.flatten(1)


def link_masks(grid: Grid, choices: Sequence[Choice]) -> Tensor:
    """Which cells slot j of each block count links to which classes, shape ``(counts, max_rank, classes, cells)``.

    ``masks[i, j, l, c]`` is 1 where ``(block of cell c + j) mod N == l mod N`` for the i-th count N: the cyclic link.
    """
    counts, max_rank = block_counts(choices), max(choice.blk_r for choice in choices)
    starts = torch.tensor(grid.starts)
    slot = torch.arange(max_rank).view(-1, 1, 1)
    out_class = torch.arange(grid.classes).view(1, -1, 1)
    masks = [
        (starts.div(math.ceil(grid.in_features / n), rounding_mode="floor") + slot) % n == out_class % n for n in counts
    ]
    return torch.stack(masks).float()
