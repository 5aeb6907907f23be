"""A Monarch product as a block-diagonal matrix and one dense matrix of rank ``N * r``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from morenas.monarch.blocks import gather, outer, scatter
from morenas.monarch.convert import dense_first, dense_second
from morenas.monarch.link import Link


def low_rank_product(
    x: Tensor, first: Tensor, second: Tensor, link: Link, out_features: int, plus: Tensor | None = None
) -> Tensor:
    """``multiply`` with the output side written out as ``dense_second``; zeros are multiplied, nothing is permuted."""
    if first.shape[0] * first.shape[2] != x.shape[-1]:
        # A dense input side of the same rank costs less than a padded copy of every token.
        first = dense_first(first, x.shape[-1]).unsqueeze(0)
    flat = None if plus is None else plus.reshape(-1, out_features)
    out: Tensor = _BlockPair.apply(x.reshape(-1, x.shape[-1]), first, dense_second(second, link, out_features), flat)
    return out.view(*x.shape[:-1], out_features)


class _BlockPair(torch.autograd.Function):
    """``plus + block_diagonal(x) @ rows``, keeping of the forward pass no more than ``x``.

    Shapes: ``x`` ``(tokens, N * p)``, ``blocks`` ``(N, q, p)``, ``rows`` ``(N * q, m)``, ``plus`` ``(tokens, m)``.

    Invariant: the backward pass consists of differentiable operations, so that it can be differentiated again.
    """

    @staticmethod
    def forward(x: Tensor, blocks: Tensor, rows: Tensor, plus: Tensor | None) -> Tensor:
        hidden = gather(x, blocks).T  # not kept for the backward pass, which makes it again
        return hidden @ rows if plus is None else torch.addmm(plus, hidden, rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, blocks, rows = ctx.saved_tensors
        need_x, need_blocks, need_rows, need_plus = ctx.needs_input_grad
        x_grad = blocks_grad = rows_grad = None
        if need_rows:
            rows_grad = _rows_grad(gather(x, blocks), grad)
        if need_x or need_blocks:
            hidden_grad = (grad @ rows.T).T
            blocks_grad = outer(hidden_grad, x, len(blocks)) if need_blocks else None
            x_grad = scatter(hidden_grad, blocks) if need_x else None
        return x_grad, blocks_grad, rows_grad, grad if need_plus else None


def _rows_grad(hidden: Tensor, grad: Tensor) -> Tensor:
    """``hidden @ grad``, ``(rank, tokens)`` times ``(tokens, m)``: columns in parts, which run in parallel."""
    parts = next(parts for parts in (4, 2, 1) if grad.shape[1] % parts == 0)
    columns = grad.unflatten(1, (parts, -1)).transpose(0, 1)
    return torch.bmm(hidden.expand(parts, -1, -1), columns).transpose(0, 1).flatten(1)
