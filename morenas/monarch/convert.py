"""Other forms of a Monarch matrix: dense, and a LoRA pair."""

from __future__ import annotations

import torch
from torch import Tensor

from morenas.monarch.link import Link, link_permutation
from morenas.monarch.shapes import check_blocks


def to_dense(first: Tensor, second: Tensor, link: Link, in_features: int, out_features: int) -> Tensor:
    """Write a Monarch matrix out, shape ``(m, n)``."""
    a, b = to_lora(first, second, link, in_features, out_features)
    return b @ a


def to_lora(first: Tensor, second: Tensor, link: Link, in_features: int, out_features: int) -> tuple[Tensor, Tensor]:
    """Write a Monarch matrix as a LoRA pair of rank ``N * r``.

    Invariant: ``b @ a == to_dense(first, second, link, in_features, out_features)``, and ``x @ a.T @ b.T`` is
    ``multiply(x, ...)`` up to rounding.

    Args:
        first: Input-side blocks, shape ``(N, r, ceil(n / N))``.
        second: Output-side blocks, shape ``(N, ceil(m / N), r)``.
    Returns:
        ``a`` of shape ``(N * r, n)`` and ``b`` of shape ``(m, N * r)``, zeros where blocks do not meet.
    Raises:
        ValueError: If the blocks do not chain.
    """
    check_blocks(first, second)
    nblocks, blk_r, _ = first.shape
    a = torch.block_diag(*first)[:, :in_features]  # row k * r + j, column k * p + i
    wide = torch.block_diag(*second)  # row l * s + t, column l * r + a
    interleaved = wide.unflatten(0, (nblocks, -1)).transpose(0, 1).flatten(0, 1)[:out_features]
    permutation = link_permutation(link, nblocks, blk_r, first.device)
    return a, interleaved[:, permutation.argsort()]
