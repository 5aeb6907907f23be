"""Other forms of a Monarch matrix: dense, and a LoRA pair."""

from __future__ import annotations

import torch
from torch import Tensor

from morenas.monarch.constant import constant
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
    return dense_first(first, in_features), dense_second(second, link, out_features).T


def dense_first(first: Tensor, in_features: int) -> Tensor:
    """The input side of the pair, shape ``(N * r, n)``: row ``k * r + j`` is value ``(k, j)``."""
    # Embedding a diagonal over the block dimension puts block k into rows and columns of its own, zeros elsewhere.
    diagonal = torch.diag_embed(first.permute(1, 2, 0), dim1=0, dim2=2)  # (N, r, N, p)
    return diagonal.flatten(2).flatten(0, 1)[:, :in_features]


def dense_second(second: Tensor, link: Link, out_features: int) -> Tensor:
    """The output side of the pair, transposed and linked: shape ``(N * r, m)``, row ``k * r + j`` for value ``(k, j)``.

    Rows are contiguous because products with a few long rows are several times as quick as with a few long columns.
    """
    nblocks, height, blk_r = second.shape
    places = _places(Link(link), nblocks, blk_r, height, str(second.device))
    flat = second.new_zeros(nblocks * blk_r * nblocks * height)
    return flat.scatter(0, places, second.flatten()).view(nblocks * blk_r, -1)[:, :out_features]


@constant
def _places(link: Link, nblocks: int, blk_r: int, height: int, device: str) -> Tensor:
    """Where each number of ``second`` lies in the flattened ``(N * r, N * height)`` matrix."""
    # Number (l, i, a) of ``second`` belongs to the value that slot (l, a) takes, and to output i * N + l: interleaved.
    row = link_permutation(link, nblocks, blk_r, device).view(nblocks, 1, blk_r)
    column = torch.arange(nblocks * height, device=device).view(height, nblocks).T.unsqueeze(2)
    return (row * (nblocks * height) + column).flatten()
