"""Products with block-diagonal matrices, tokens first and last, without a transposed copy in between."""

from __future__ import annotations

import torch
from torch import Tensor

NARROW = 16
"""Blocks of fewer columns are merged: matrix products waste most of a vector register on them."""


def block_product(x: Tensor, blocks: Tensor) -> Tensor:
    """Multiply the k-th slice of every token by the k-th block.

    Args:
        x: Shape ``(tokens, N * p)``.
        blocks: Shape ``(N, p, q)``.
    Returns:
        Shape ``(tokens, N * q)``, contiguous.
    """
    blocks = _merge_narrow(blocks)
    nblocks, width, height = blocks.shape
    slices = x.unflatten(1, (nblocks, width)).transpose(0, 1)
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.bmm(slices, blocks).transpose(0, 1).flatten(1)
    # A batched product into a strided view: the copy that gathers the blocks of a token costs more than the product.
    # Autograd does not take ``out=``, and torch.compile takes it for contiguous tensors alone.
    out = x.new_empty(x.shape[0], nblocks, height)
    torch.bmm(slices, blocks, out=out.transpose(0, 1))
    return out.flatten(1)


def _merge_narrow(blocks: Tensor) -> Tensor:
    """The same block-diagonal matrix as ``(N / c, c * p, c * q)`` blocks, ``c * q`` at least ``NARROW`` if N allows."""
    nblocks, _, height = blocks.shape
    merged = next((c for c in range(1, nblocks) if nblocks % c == 0 and c * height >= NARROW), nblocks)
    if merged == 1:
        return blocks
    grouped = blocks.unflatten(0, (-1, merged)).permute(0, 2, 3, 1)  # (N / c, p, q, c)
    return torch.diag_embed(grouped, dim1=1, dim2=3).flatten(1, 2).flatten(2)


def block_outer(left: Tensor, right: Tensor, nblocks: int) -> Tensor:
    """Sum over tokens of the outer products of like slices: the gradient of ``block_product`` in its blocks.

    Args:
        left: Shape ``(tokens, N * q)``.
        right: Shape ``(tokens, N * p)``.
    Returns:
        Shape ``(N, q, p)``.
    """
    return torch.bmm(
        left.unflatten(1, (nblocks, -1)).permute(1, 2, 0), right.unflatten(1, (nblocks, -1)).transpose(0, 1)
    )
