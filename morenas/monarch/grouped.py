"""Two products with block-diagonal matrices around a link between their blocks: a Monarch product, or a sum of many.

No zero is multiplied; the output features are passed over once more to deal them out in turn.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from morenas.monarch.blocks import deinterleave, gather, outer, scatter, scatter_interleaved
from morenas.monarch.link import Link, link_permutation


def grouped_product(
    x: Tensor, first: Tensor, second: Tensor, link: Link, out_features: int, plus: Tensor | None = None
) -> Tensor:
    """``multiply`` by two block-diagonal products."""
    nblocks, blk_r, _ = first.shape
    return linked_product(x, first, link_permutation(link, nblocks, blk_r, x.device), second, out_features, plus)


def linked_product(
    x: Tensor, first: Tensor, link: Tensor, second: Tensor, out_features: int, plus: Tensor | None = None
) -> Tensor:
    """Multiply by blocks, link what they give, multiply by blocks again and deal the outputs out in turn.

    Args:
        x: Shape ``(..., n)``; padded with zeros at the tail to ``K * p`` features.
        first: Input-side blocks, shape ``(K, r, p)``; or one block ``(1, K * r, n)`` that holds them with zeros.
        link: A permutation of ``N * r`` values, as ``link_permutation`` makes them; or, for each of the r values of a
            block, how much of it goes from input block k to output block l, shape ``(r, N, K)``.
        second: Output-side blocks, shape ``(N, s, r)``.
        out_features: ``m``; output feature ``o = i * N + l`` comes from row i of block l.
        plus: Added to the product, shape ``(..., m)``.
    Returns:
        Shape ``(..., m)``.
    """
    flat = None if plus is None else plus.reshape(-1, out_features)
    padded = _padded(x.reshape(-1, x.shape[-1]), first.shape[0] * first.shape[2])
    out: Tensor = _Linked.apply(padded, first, link, second, flat, out_features)
    return out.view(*x.shape[:-1], out_features)


class _Linked(torch.autograd.Function):
    """Keeps of the forward pass no more than ``x`` ``(tokens, K * p)``.

    Invariant: the backward pass consists of differentiable operations, so that it can be differentiated again.
    """

    @staticmethod
    def forward(
        x: Tensor, first: Tensor, link: Tensor, second: Tensor, plus: Tensor | None, out_features: int
    ) -> Tensor:
        slots = _forth(gather(x, first), link)
        out = scatter_interleaved(slots, second.transpose(1, 2))[:, :out_features]
        return out.contiguous() if plus is None else plus + out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, first, link, second = ctx.saved_tensors
        need_x, need_first, need_link, need_second, need_plus, _ = ctx.needs_input_grad
        # What the search freezes needs no gradient: each product below is made only for those that ask for it.
        by_block = deinterleave(_padded(grad, second.shape[0] * second.shape[1]), len(second))
        slots_grad = gather(by_block, second.transpose(1, 2))
        x_grad = first_grad = link_grad = second_grad = None
        if need_second or need_link:
            hidden = gather(x, first)  # made again: keeping it would cost N * r numbers a token in every layer
            second_grad = outer(_forth(hidden, link), by_block, len(second)).transpose(1, 2) if need_second else None
            link_grad = _link_grad(hidden, slots_grad, link) if need_link else None
        del by_block  # as large as the output; what comes next is as large as the input
        if need_x or need_first:
            hidden_grad = _back(slots_grad, link)
            first_grad = outer(hidden_grad, x, len(first)) if need_first else None
            x_grad = scatter(hidden_grad, first) if need_x else None
        return x_grad, first_grad, link_grad, second_grad, grad if need_plus else None, None


def _forth(hidden: Tensor, link: Tensor) -> Tensor:
    """From values ``(K * r, tokens)`` to slots ``(N * r, tokens)``."""
    return hidden.index_select(0, link) if link.ndim == 1 else _mixed(link, hidden)


def _back(slots: Tensor, link: Tensor) -> Tensor:
    """The adjoint of ``_forth``."""
    # The adjoint of a permutation is its inverse, and argsort gives that.
    return slots.index_select(0, link.argsort()) if link.ndim == 1 else _mixed(link.transpose(1, 2), slots)


def _mixed(link: Tensor, hidden: Tensor) -> Tensor:
    return torch.bmm(link, _by_value(hidden, link.shape[2])).transpose(0, 1).flatten(0, 1)


def _link_grad(hidden: Tensor, slots_grad: Tensor, link: Tensor) -> Tensor:
    _, nblocks, cells = link.shape
    return torch.bmm(_by_value(slots_grad, nblocks), _by_value(hidden, cells).transpose(1, 2))


def _by_value(hidden: Tensor, nblocks: int) -> Tensor:
    """``(N * r, tokens)`` as ``(r, N, tokens)``."""
    rank, tokens = hidden.shape
    return hidden.view(nblocks, rank // nblocks, tokens).transpose(0, 1)


def _padded(x: Tensor, features: int) -> Tensor:
    """Zeros at the tail of every token; ``F.pad`` would copy even where there is nothing to pad."""
    return x if x.shape[1] == features else F.pad(x, (0, features - x.shape[1]))
