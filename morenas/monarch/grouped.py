"""A Monarch product as two products with block-diagonal matrices around a permutation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from morenas.monarch.blocks import block_outer, block_product
from morenas.monarch.link import Link, link_permutation


def grouped_product(
    x: Tensor, first: Tensor, second: Tensor, link: Link, out_features: int, plus: Tensor | None = None
) -> Tensor:
    """``multiply`` without a zero multiplied: ``r (n + m)`` multiplications a token, and permuted copies."""
    nblocks, blk_r, width = first.shape
    permutation = link_permutation(link, nblocks, blk_r, x.device)
    flat = _padded(x, nblocks * width)
    onto = None if plus is None else _padded(plus, nblocks * second.shape[1])
    out: Tensor = _Grouped.apply(flat, first, second, permutation, onto)
    return out[:, :out_features].reshape(*x.shape[:-1], out_features)


def _padded(x: Tensor, features: int) -> Tensor:
    """``(tokens, features)``, zeros at the tail; ``F.pad`` would copy even where there is nothing to pad."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.shape[1] == features else F.pad(flat, (0, features - flat.shape[1]))


class _Grouped(torch.autograd.Function):
    """Keeps of the forward pass no more than ``x`` ``(tokens, N * p)``; see ``_BlockPair`` for the invariant."""

    @staticmethod
    def forward(x: Tensor, first: Tensor, second: Tensor, permutation: Tensor, plus: Tensor | None) -> Tensor:
        slots = _slots(x, first, permutation)
        out = block_product(slots, second.transpose(1, 2)).unflatten(1, (second.shape[0], -1)).transpose(1, 2)
        return out.flatten(1) if plus is None else (out + plus.view(out.shape)).flatten(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, first, second, permutation = ctx.saved_tensors
        need_x, need_first, need_second, _, need_plus = ctx.needs_input_grad
        nblocks = first.shape[0]
        by_block = grad.unflatten(1, (-1, nblocks)).transpose(1, 2).flatten(1)  # from o = s * N + l to l * height + s
        x_grad = first_grad = second_grad = None
        if need_x or need_first:
            hidden_grad = block_product(by_block, second).index_select(1, permutation.argsort())
            x_grad = block_product(hidden_grad, first) if need_x else None
            first_grad = block_outer(hidden_grad, x, nblocks) if need_first else None
        if need_second:
            second_grad = block_outer(by_block, _slots(x, first, permutation), nblocks)
        return x_grad, first_grad, second_grad, None, grad if need_plus else None


def _slots(x: Tensor, first: Tensor, permutation: Tensor) -> Tensor:
    """What arrives at the output blocks: shape ``(tokens, N * r)``, column ``l * r + a`` for slot ``(l, a)``."""
    return block_product(x, first.transpose(1, 2)).index_select(1, permutation)
