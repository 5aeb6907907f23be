"""The one-pass supernet layer: the probability-weighted sum of every candidate adapter, as one product."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from morenas.base.kinds import SHARINGS
from morenas.monarch import Link, add_to, block_sizes, cast_for_autocast, linked_product, multiply
from morenas.space.candidates import Choice
from morenas.supernet.grid import Grid, block_counts, link_masks, rank_gates
from morenas.supernet.merged import merged_linear, merging_is_cheaper, written_out


class WrappedLinear(nn.Module):
    """A layer in the place of a linear one, its ``base``."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    @property
    def weight(self) -> Tensor:
        """Of the wrapped layer: some models look at it (T5 at its dtype) before they call the layer."""
        return cast(Tensor, self.base.weight)

    @property
    def bias(self) -> Tensor | None:
        """Of the wrapped layer."""
        return cast(Tensor | None, self.base.bias)


def adapter_dtype(weight: Tensor) -> torch.dtype:
    """Adapters stay in float32 beside a base of half precision or of whole numbers, as PEFT keeps them."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


class SupernetLinear(WrappedLinear):
    """A frozen linear layer plus ``sum over choices c of p[c] * (Monarch adapter of shape c)``.

    Invariant: with a one-hot ``p`` on choice c it computes exactly the discrete adapter whose blocks ``factors(c)``
    returns; with any ``p`` it computes the weighted sum over the discrete adapters of all choices.

    Shapes: ``first`` ``(slots, n)``, ``second`` ``(slots, m)``. A slot is one rank of every block count
    (``sharing="full"``, ``slots = max_rank``) or of one (``"per_nblocks"``, ``slots = counts * max_rank``).

    A pass computes the sum in the way that is cheapest: a single candidate as the discrete adapter that it is, all of
    them merged into the frozen weight, or all of them beside the frozen layer.
    """

    gates: Tensor

    def __init__(
        self,
        base: nn.Module,
        features: tuple[int, int],
        choices: Sequence[Choice],
        sharing: str = "full",
        generator: torch.Generator | None = None,
    ) -> None:
        """Wrap ``base``, a linear map of ``features`` ``(n, m)``; adapters start as zero.

        Raises:
            ValueError: If ``sharing`` is unknown.
        """
        super().__init__(base)
        if sharing not in SHARINGS:
            raise ValueError(f"sharing={sharing!r}: choose from {', '.join(SHARINGS)}")
        self.sharing = sharing
        self.choices = tuple(choices)
        self.counts = block_counts(choices)
        self.max_rank = max(choice.blk_r for choice in choices)
        self.grid = Grid.build(*features, self.counts)
        weight = next(base.parameters())
        dtype, device = adapter_dtype(weight), weight.device
        self.register_buffer("gates", rank_gates(choices).to(device, dtype), persistent=False)
        widths = _slot_widths(features[0], self.counts, sharing)
        self.first = nn.Parameter(_initial_first(features[0], widths, self.max_rank, generator).to(device, dtype))
        self.second = nn.Parameter(torch.zeros(self.first.shape[0], self.grid.out_features, device=device, dtype=dtype))
        self._link: Tensor | None = None
        self._drawn: Choice | None = None

    def mix(self, probs: Tensor) -> None:
        """Set the mixing probabilities ``(choices,)`` of the passes to come."""
        self._link, self._drawn = self.link_tensor(probs.to(self.gates)), None

    def draw(self, choice: Choice) -> None:
        """Take one candidate with probability 1 in the passes to come; only its slots are computed."""
        self._link, self._drawn = None, choice

    def open(self, weight: float = 1.0) -> None:
        """Let every slot of every block count take part with the same weight in the passes to come."""
        self._link, self._drawn = self._linked(torch.full_like(self.gates[0], weight)), None

    @torch.no_grad()
    def change(self) -> Tensor:
        """What the layer adds to the frozen weight, written out: shape ``(m, n)``.

        Raises:
            RuntimeError: Where the last of ``mix``, ``open`` and ``draw`` was ``draw``, or none was called.
        """
        if self._link is None:
            raise RuntimeError("SupernetLinear.change() writes out a mixture: call mix() or open() first, not draw()")
        return written_out(self.first, self.second, self._link, self.grid)

    def link_tensor(self, probs: Tensor) -> Tensor:
        """``T[slot, l, c]``: how much of slot's value in input cell c reaches output class l."""
        return self._linked(probs @ self.gates)

    def _linked(self, usage: Tensor) -> Tensor:
        """The link tensor where slot j of count i has the weight ``usage[i * max_rank + j]``."""
        usage = usage.view(len(self.counts), self.max_rank)
        masks = link_masks(self.grid, self.choices, self.gates.dtype, self.gates.device)
        if self.sharing == "full":
            return torch.einsum("ij,ijlc->jlc", usage, masks)
        return (usage[:, :, None, None] * masks).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., n)`` to ``(..., m)``."""
        if self._drawn is not None:
            return self._discrete(x, self._drawn)
        if self._link is None:
            raise RuntimeError("SupernetLinear was called before mix(), open() or draw()")
        if self._can_merge(x) and merging_is_cheaper(self.grid, len(self.first), x[..., 0].numel()):
            weight = self.weight.T if isinstance(self.base, Conv1D) else self.weight
            return merged_linear(x, weight, self.bias, self.first, self.second, self._link, self.grid)
        return self.adapter(x, self._link, self.base(x))

    def _discrete(self, x: Tensor, choice: Choice) -> Tensor:
        result: Tensor = self.base(x)
        if not choice.blk_r:
            return result
        inputs = x.to(self.first.dtype)
        return multiply(inputs, *self._blocks(choice), Link.CYCLIC, self.grid.out_features, plus=result)

    def _can_merge(self, x: Tensor) -> bool:
        """Whether the base is no more than its weight and bias, and this pass computes in the adapter's precision.

        A half-precision sum of weight and adapter would round the adapter away.
        """
        base = self.base
        plain = type(base) in (nn.Linear, Conv1D) and type(base.weight) is nn.Parameter and "forward" not in vars(base)
        hooked = any(getattr(base, f"_{kind}_hooks") for kind in ("forward", "forward_pre", "backward", "backward_pre"))
        precise = self.weight.dtype == self.first.dtype == x.dtype and not torch.is_autocast_enabled(x.device.type)
        return plain and precise and not hooked

    def adapter(self, x: Tensor, link: Tensor, plus: Tensor | None = None) -> Tensor:
        """The relaxed adapter, ``(..., n)`` to ``(..., m)``, alone or added to ``plus``."""
        x, first, second, link = cast_for_autocast(x.to(self.first.dtype), self.first, self.second, link)
        blocks, dealt = self.grid.cut(first), self.grid.deal(second).permute(2, 1, 0)
        width = self.grid.out_features
        return add_to(plus, x.dtype, lambda onto: linked_product(x, blocks, link, dealt, width, onto))

    @torch.no_grad()
    def load(self, blocks: Mapping[int, tuple[Tensor, Tensor]]) -> None:
        """Take over blocks of the largest rank for every block count: what ``factors`` of that choice then returns.

        Args:
            blocks: Block count to ``first`` ``(N, max_rank, ceil(n / N))`` and ``second``
                ``(N, ceil(m / N), max_rank)`` under the cyclic link; padding is dropped.
        Raises:
            ValueError: If block counts share their slots, or blocks are missing or of another shape.
        """
        if self.sharing != "per_nblocks":
            raise ValueError(f"sharing={self.sharing!r}: block counts that share slots cannot each take their own.")
        _check_blocks(blocks, self.counts, self.max_rank, self.grid)
        for index, count in enumerate(self.counts):
            slots = slice(index * self.max_rank, (index + 1) * self.max_rank)
            first, second = blocks[count]
            self.first[slots] = first.transpose(0, 1).flatten(1)[:, : self.grid.in_features].to(self.first)
            self.second[slots] = second.permute(2, 1, 0).flatten(1)[:, : self.grid.out_features].to(self.second)

    @torch.no_grad()
    def factors(self, choice: Choice) -> tuple[Tensor, Tensor]:
        """The blocks of one candidate under the cyclic link: ``(N, r, ceil(n / N))`` and ``(N, ceil(m / N), r)``."""
        first, second = self._blocks(choice)
        return first.contiguous(), second.contiguous()

    def _blocks(self, choice: Choice) -> tuple[Tensor, Tensor]:
        count, rank = choice
        start = 0 if self.sharing == "full" else self.counts.index(count) * self.max_rank
        first, second = self.first[start : start + rank], self.second[start : start + rank]
        first = F.pad(first, (0, -first.shape[1] % count)).unflatten(-1, (count, -1))  # (r, N, p)
        second = F.pad(second, (0, -second.shape[1] % count)).unflatten(-1, (-1, count))  # (r, s, N)
        return first.transpose(0, 1), second.permute(2, 1, 0)


def _check_blocks(
    blocks: Mapping[int, tuple[Tensor, Tensor]], counts: Sequence[int], max_rank: int, grid: Grid
) -> None:
    for count in counts:
        width, height = block_sizes(grid.in_features, grid.out_features, count)
        needed = [(count, max_rank, width), (count, height, max_rank)]
        came = [tuple(factor.shape) for factor in blocks.get(count, ())]
        if came != needed:
            raise ValueError(f"Blocks of nblocks={count} have the shapes {came}; the layer takes {needed}.")


def _slot_widths(in_features: int, counts: Sequence[int], sharing: str) -> list[float]:
    """Input features that the slots of each block count see; shared slots take the geometric middle of the counts."""
    widths = [in_features / count for count in counts]
    return [math.exp(sum(map(math.log, widths)) / len(widths))] if sharing == "full" else widths


def _initial_first(
    in_features: int, widths: Sequence[float], max_rank: int, generator: torch.Generator | None
) -> Tensor:
    """Kaiming uniform at the width of each slot, ``(slots, n)``."""
    blocks = [torch.empty(max_rank, in_features) for _ in widths]
    for block, width in zip(blocks, widths, strict=True):
        block.uniform_(-(width**-0.5), width**-0.5, generator=generator)
    return torch.cat(blocks)
