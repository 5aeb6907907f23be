"""A Monarch matrix written out entry by entry from its definition, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from morenas.monarch import Link

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}
"""Relative error that a dtype excuses."""


def dense(first: Tensor, second: Tensor, link: Link, in_features: int, out_features: int) -> Tensor:
    """The matrix ``(m, n)``; differentiable in both factors."""
    nblocks, blk_r, width = first.shape
    matrix = first.new_zeros(nblocks * second.shape[1], nblocks * width)
    for k in range(nblocks):
        for j in range(blk_r):
            value = k * blk_r + j
            l, a = (value % nblocks, value // nblocks) if link is Link.MONARCH else ((k + j) % nblocks, j)  # noqa: E741
            rows = torch.zeros_like(matrix)
            rows[l::nblocks, k * width : (k + 1) * width] = torch.outer(second[l, :, a], first[k, j])
            matrix = matrix + rows
    return matrix[:out_features, :in_features]


def factors(
    nblocks: int, blk_r: int, in_features: int, out_features: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random factors that need gradients, padded where N does not divide."""
    generator = torch.Generator().manual_seed(seed)
    width, height = -(-in_features // nblocks), -(-out_features // nblocks)
    first = torch.randn(nblocks, blk_r, width, generator=generator, dtype=torch.float64)
    second = torch.randn(nblocks, height, blk_r, generator=generator, dtype=torch.float64)
    return first.to(dtype).requires_grad_(), second.to(dtype).requires_grad_()


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Of a whole tensor, in the Frobenius norm."""
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm().clamp(min=1e-30))
