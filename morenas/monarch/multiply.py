"""The Monarch product, computed in one of two ways."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from morenas.monarch.convert import to_lora
from morenas.monarch.link import Link, link_permutation
from morenas.monarch.shapes import check_blocks

# Up to this rank N * r one dense low-rank product is quicker than two batched ones, whose small blocks and transposes
# cost more than the zeros they spare; `python scripts/bench_product.py` shows where the two cross.
LOW_RANK_LIMIT = 32


def multiply(x: Tensor, first: Tensor, second: Tensor, link: Link, out_features: int) -> Tensor:
    """Multiply ``x`` by a Monarch matrix, the way that is quicker at its shape.

    Args:
        x: Shape ``(..., n)``; padded with zeros at the tail to ``N * ceil(n / N)`` features.
        first: Input-side blocks, shape ``(N, r, ceil(n / N))``.
        second: Output-side blocks, shape ``(N, ceil(m / N), r)``.
        link: Which value goes to which slot.
        out_features: ``m``; output feature ``o = s * N + l`` comes from row s of block l.
    Returns:
        Shape ``(..., m)``.
    Raises:
        ValueError: If the blocks do not chain or do not fit ``x``.

    Source: Dao et al. 2022, section 3.1; the interleaved output follows the implementation of arXiv 2408.17383.
    """
    check_blocks(first, second)
    nblocks, blk_r, width = first.shape
    if not 0 <= nblocks * width - x.shape[-1] < nblocks:
        raise ValueError(f"{nblocks} blocks of width {width} do not fit {x.shape[-1]} features.")
    product = low_rank_product if nblocks * blk_r <= LOW_RANK_LIMIT else grouped_product
    return product(x, first, second, link, out_features)


def low_rank_product(x: Tensor, first: Tensor, second: Tensor, link: Link, out_features: int) -> Tensor:
    """``multiply`` as one dense product of rank ``N * r``."""
    a, b = to_lora(first, second, link, x.shape[-1], out_features)
    return F.linear(F.linear(x, a), b)


def grouped_product(x: Tensor, first: Tensor, second: Tensor, link: Link, out_features: int) -> Tensor:
    """``multiply`` as two batched products, one matrix per block, around a permutation."""
    nblocks, blk_r, width = first.shape
    flat = x.reshape(-1, x.shape[-1])
    blocks = F.pad(flat, (0, nblocks * width - x.shape[-1])).unflatten(1, (nblocks, width)).transpose(0, 1)
    hidden = torch.bmm(blocks, first.transpose(1, 2)).transpose(0, 1).flatten(1)  # (tokens, N * r)
    slots = hidden[:, link_permutation(link, nblocks, blk_r, x.device)].unflatten(1, (nblocks, blk_r))
    out = torch.bmm(slots.transpose(0, 1), second.transpose(1, 2))  # (N, tokens, s)
    return out.permute(1, 2, 0).flatten(1)[:, :out_features].reshape(*x.shape[:-1], out_features)
