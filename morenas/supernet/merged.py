"""A relaxed adapter merged into the frozen weight: one linear layer whose weight is computed in every pass.

Per token it costs what the frozen layer costs and a dense weight gradient, whatever the candidates are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from morenas.supernet.grid import Grid


def merged_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, first: Tensor, second: Tensor, link: Tensor, grid: Grid
) -> Tensor:
    """``linear(x, weight + D, bias)`` with the relaxed adapter D, shape ``(..., n)`` to ``(..., m)``.

    ``D[o, i] = sum over slots j of second[j, o] link[j, o mod L, cell(i)] first[j, i]``. Of the forward
    pass only ``x`` is kept; the merged weight ``(m, n)`` is made again in the backward pass.
    """
    out: Tensor = _MergedLinear.apply(x.reshape(-1, x.shape[-1]), weight, bias, first, second, link, grid)
    return out.view(*x.shape[:-1], -1)


def written_out(first: Tensor, second: Tensor, link: Tensor, grid: Grid) -> Tensor:
    """The relaxed adapter as a dense matrix, shape ``(m, n)``."""
    return _delta(_linked(first, link, grid), second, grid)


def merging_is_cheaper(grid: Grid, slots: int, tokens: int) -> bool:
    """Whether merging takes less time than the adapter beside the frozen layer, by the rule measured in
    ``experiments/speed``.

    Both are counted in multiplications of a large dense product: merging takes a dense weight gradient, and builds
    the weight; beside the layer narrow products run at half the speed, and the output is passed over three times.
    """
    n, m, cells = grid.in_features, grid.out_features, len(grid.starts)
    merging = n * m * (tokens + 20 * slots)
    narrow = 4 * slots * n * (1 if grid.regular else cells) + 3 * slots * m + 3.5 * slots * cells * grid.classes
    return merging < tokens * (2 * narrow + 40 * m)


def _linked(first: Tensor, link: Tensor, grid: Grid) -> Tensor:
    """What each class takes of the input, shape ``(slots, L, n)``."""
    return grid.spread(link, first.unsqueeze(1))


def _delta(linked: Tensor, second: Tensor, grid: Grid) -> Tensor:
    dealt = grid.deal(second).permute(2, 1, 0)  # (L, ceil(m / L), slots)
    return torch.bmm(dealt, linked.transpose(0, 1)).transpose(0, 1).flatten(0, 1)[: grid.out_features]


class _MergedLinear(torch.autograd.Function):
    """Invariant: the backward pass consists of differentiable operations, so that it can be differentiated again."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, first: Tensor, second: Tensor, link: Tensor, grid: Grid
    ) -> Tensor:
        return F.linear(x, weight + _delta(_linked(first, link, grid), second, grid), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, first, second, link, ctx.grid = inputs
        ctx.save_for_backward(x, weight, first, second, link)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, first, second, link = ctx.saved_tensors
        need_x, need_weight, need_bias, *need_factors, _ = ctx.needs_input_grad
        linked = _linked(first, link, ctx.grid)
        x_grad = grad @ (weight + _delta(linked, second, ctx.grid)) if need_x else None
        bias_grad = grad.sum(dim=0) if need_bias else None
        if not need_weight and not any(need_factors):
            return x_grad, None, bias_grad, None, None, None, None
        merged_grad = grad.T @ x
        factor_grads = _factor_grads(merged_grad, linked, first, second, link, ctx.grid, need_factors)
        return x_grad, merged_grad if need_weight else None, bias_grad, *factor_grads, None


def _factor_grads(
    merged_grad: Tensor,
    linked: Tensor,
    first: Tensor,
    second: Tensor,
    link: Tensor,
    grid: Grid,
    needed: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of D in ``first``, ``second`` and ``link``, from that in the weight ``(m, n)``."""
    need_first, need_second, need_link = needed
    by_class = grid.deal_rows(merged_grad)  # (L, ceil(m / L), n)
    first_grad = second_grad = link_grad = None
    if need_second:
        dealt_grad = torch.bmm(linked.transpose(0, 1), by_class.transpose(1, 2))  # (L, slots, ceil(m / L))
        second_grad = dealt_grad.permute(1, 2, 0).flatten(1)[:, : grid.out_features]
    if need_first or need_link:
        linked_grad = torch.bmm(grid.deal(second).permute(2, 0, 1), by_class).transpose(0, 1)  # (slots, L, n)
        first_grad = grid.spread(link, linked_grad).sum(dim=1) if need_first else None
        link_grad = grid.gather(linked_grad * first.unsqueeze(1)) if need_link else None
    return first_grad, second_grad, link_grad
