"""The Monarch product, computed in whichever way is quickest at its shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from morenas.monarch.grouped import grouped_product
from morenas.monarch.link import Link
from morenas.monarch.low_rank import low_rank_product
from morenas.monarch.shapes import check_blocks

WAYS: dict[str, Callable[..., Tensor]] = {"low_rank": low_rank_product, "grouped": grouped_product}
"""Every way to compute the same product, by name."""

LOW_RANK = 16
"""Largest rank ``N * r`` at which multiplying the zeros of a dense output side costs less than dealing outputs out."""
LARGE, LOW_RANK_LARGE = 32 * 2**20, 64
"""Bytes of output from which on the limit is a higher one: dealing out takes two tensors more of that size, and from
here on the C library takes each from the system and gives it back, page by page, in every pass."""


def multiply(
    x: Tensor, first: Tensor, second: Tensor, link: Link, out_features: int, plus: Tensor | None = None
) -> Tensor:
    """Multiply ``x`` by a Monarch matrix, in the way that is quickest at its shape.

    Every way keeps of the forward pass no more than ``x`` and recomputes the values between the factors, ``N * r`` a
    token, in the backward pass. Under autocast all factors are cast as for a linear layer. It can be differentiated
    backward any number of times; not forward (``torch.func.jvp``), nor under ``torch.func.vmap``.

    Args:
        x: Shape ``(..., n)``; padded with zeros at the tail to ``N * ceil(n / N)`` features.
        first: Input-side blocks, shape ``(N, r, ceil(n / N))``.
        second: Output-side blocks, shape ``(N, ceil(m / N), r)``.
        link: Which value goes to which slot.
        out_features: ``m``; output feature ``o = s * N + l`` comes from row s of block l.
        plus: Added to the product, shape ``(..., m)``, which decides the dtype of the sum.
    Returns:
        Shape ``(..., m)``.
    Raises:
        ValueError: If the blocks do not chain, or do not fit ``x`` or ``out_features``.

    Source: Dao et al. 2022, section 3.1; the interleaved output follows the implementation of arXiv 2408.17383.
    """
    check_blocks(first, second)
    nblocks, blk_r, width = first.shape
    if not 0 <= nblocks * width - x.shape[-1] < nblocks:
        raise ValueError(f"{nblocks} blocks of width {width} do not fit {x.shape[-1]} features.")
    if not 0 <= nblocks * second.shape[1] - out_features < nblocks:
        raise ValueError(f"{nblocks} blocks of height {second.shape[1]} do not fit {out_features} output features.")
    # The products are autograd functions of our own, which autocast does not see through.
    x, first, second = cast_for_autocast(x, first, second)
    way = WAYS[quickest_way(nblocks, blk_r, x.numel() // x.shape[-1] * out_features * x.element_size())]
    return add_to(plus, x.dtype, lambda onto: way(x, first, second, link, out_features, onto))


def quickest_way(nblocks: int, blk_r: int, output_bytes: int) -> str:
    """The name of the way that is quickest for N blocks of rank r, by the rule measured in ``experiments/speed``."""
    limit = LOW_RANK if output_bytes < LARGE else LOW_RANK_LARGE
    return "low_rank" if nblocks == 1 or nblocks * blk_r <= limit else "grouped"


def add_to(plus: Tensor | None, dtype: torch.dtype, product: Callable[[Tensor | None], Tensor]) -> Tensor:
    """``product(plus)``, which adds its result to ``plus``; outside of it where ``plus`` is not of the product's dtype.

    The sum has the dtype of ``plus``.
    """
    if plus is None or plus.dtype == dtype:
        return product(plus)
    return plus + product(None).to(plus.dtype)


def cast_for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast to autocast's dtype where autocast is on, float64 excepted, as torch does for a linear layer."""
    device = tensors[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors)
