"""The Monarch product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from morenas.monarch.link import Link, link_permutation


def multiply(x: Tensor, first: Tensor, second: Tensor, link: Link, out_features: int) -> Tensor:
    """Multiply ``x`` by a Monarch matrix: two grouped products around a permutation.

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
    nblocks, blk_r, width = first.shape
    check_blocks(first, second)
    if not 0 <= nblocks * width - x.shape[-1] < nblocks:
        raise ValueError(f"{nblocks} blocks of width {width} do not fit {x.shape[-1]} features.")
    flat = x.reshape(-1, x.shape[-1])
    blocks = F.pad(flat, (0, nblocks * width - x.shape[-1])).unflatten(1, (nblocks, width)).transpose(0, 1)
    hidden = torch.bmm(blocks, first.transpose(1, 2)).transpose(0, 1).flatten(1)  # (tokens, N * r)
    slots = hidden[:, link_permutation(link, nblocks, blk_r, x.device)].unflatten(1, (nblocks, blk_r))
    out = torch.bmm(slots.transpose(0, 1), second.transpose(1, 2))  # (N, tokens, s)
    return out.permute(1, 2, 0).flatten(1)[:, :out_features].reshape(*x.shape[:-1], out_features)


def check_blocks(first: Tensor, second: Tensor) -> None:
    """Refuse factors that do not chain.

    Raises:
        ValueError: If block counts or ranks differ.
    """
    if first.ndim != 3 or second.ndim != 3 or first.shape[:2] != (second.shape[0], second.shape[2]):
        raise ValueError(
            f"Blocks do not chain: first has shape {tuple(first.shape)}, which should be (N, r, p); "
            f"second has {tuple(second.shape)}, which should be (N, s, r)."
        )
