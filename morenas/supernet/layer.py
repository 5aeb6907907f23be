"""The one-pass supernet layer: the probability-weighted sum of every candidate adapter, as one product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morenas.space.choices import Choice
from morenas.supernet.grid import SHARINGS, Grid, block_counts, link_masks, rank_gates


class SupernetLinear(nn.Module):
    """A frozen linear layer plus ``sum over choices c of p[c] * (Monarch adapter of shape c)``.

    Invariant: with a one-hot ``p`` on choice c it computes exactly the discrete adapter whose blocks ``factors(c)``
    returns; with any ``p`` it computes the weighted sum over the discrete adapters of all choices.

    Shapes: ``first`` ``(slots, n)``, ``second`` ``(slots, m)``. A slot is one rank of every block count
    (``sharing="full"``, ``slots = max_rank``) or of one (``"per_nblocks"``, ``slots = counts * max_rank``).
    """

    cells: Tensor
    gates: Tensor
    masks: Tensor

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
        super().__init__()
        if sharing not in SHARINGS:
            raise ValueError(f"sharing={sharing!r}: choose from {', '.join(SHARINGS)}")
        self.base = base
        self.sharing = sharing
        self.choices = tuple(choices)
        self.counts = block_counts(choices)
        self.max_rank = max(choice.blk_r for choice in choices)
        self.grid = Grid.build(*features, self.counts)
        weight = next(base.parameters())
        # Adapters stay in float32 beside a half-precision base, as PEFT keeps them.
        dtype = torch.float32 if weight.dtype in (torch.float16, torch.bfloat16) else weight.dtype
        device = weight.device
        self.register_buffer("cells", self.grid.cell_index().to(device), persistent=False)
        self.register_buffer("gates", rank_gates(choices).to(device, dtype), persistent=False)
        self.register_buffer("masks", link_masks(self.grid, choices).to(device, dtype), persistent=False)
        self.first = nn.Parameter(self._initial_first(generator).to(device, dtype))
        self.second = nn.Parameter(torch.zeros(self.first.shape[0], self.grid.out_features, device=device, dtype=dtype))
        self._link: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """Of the wrapped layer: some models look at it (T5 at its dtype) before they call the layer."""
        return cast(Tensor, self.base.weight)

    @property
    def bias(self) -> Tensor | None:
        """Of the wrapped layer."""
        return cast(Tensor | None, self.base.bias)

    def _initial_first(self, generator: torch.Generator | None) -> Tensor:
        """Kaiming uniform at the block width of each slot; shared slots take the geometric middle of the counts."""
        widths = [self.grid.in_features / count for count in self.counts]
        if self.sharing == "full":
            widths = [math.exp(sum(map(math.log, widths)) / len(widths))]
        blocks = [torch.empty(self.max_rank, self.grid.in_features) for _ in widths]
        for block, width in zip(blocks, widths, strict=True):
            block.uniform_(-(width**-0.5), width**-0.5, generator=generator)
        return torch.cat(blocks)

    def mix(self, probs: Tensor) -> None:
        """Set the mixing probabilities ``(choices,)`` of the passes to come."""
        self._link = self.link_tensor(probs.to(self.gates))

    def link_tensor(self, probs: Tensor) -> Tensor:
        """``T[slot, l, c]``: how much of slot's value in input cell c reaches output class l."""
        usage = (probs @ self.gates).view(len(self.counts), self.max_rank, 1, 1)
        weighted = usage * self.masks
        return weighted.sum(dim=0) if self.sharing == "full" else weighted.flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., n)`` to ``(..., m)``."""
        if self._link is None:
            raise RuntimeError("SupernetLinear was called before mix() set its mixing probabilities")
        result: Tensor = self.base(x)
        return result + self.adapter(x, self._link).to(result.dtype)

    def adapter(self, x: Tensor, link: Tensor) -> Tensor:
        """The relaxed adapter alone, ``(..., n)`` to ``(..., m)``: two grouped products around the link tensor."""
        flat = x.reshape(-1, self.grid.in_features).to(self.first.dtype)
        blocks = self.grid.cut(flat, self.cells).transpose(0, 1)  # (cells, tokens, width)
        first = self.grid.cut(self.first, self.cells).permute(1, 2, 0)  # (cells, width, slots)
        hidden = torch.bmm(blocks, first)  # (cells, tokens, slots)
        linked = torch.bmm(hidden.permute(2, 1, 0), link.transpose(1, 2))  # (slots, tokens, classes)
        out = torch.bmm(linked.permute(2, 1, 0), self.grid.deal(self.second))  # (classes, tokens, m / classes)
        return out.permute(1, 2, 0).flatten(1)[:, : self.grid.out_features].reshape(*x.shape[:-1], -1)

    @torch.no_grad()
    def factors(self, choice: Choice) -> tuple[Tensor, Tensor]:
        """The blocks of one candidate under the cyclic link: ``(N, r, ceil(n / N))`` and ``(N, ceil(m / N), r)``."""
        count, rank = choice
        start = 0 if self.sharing == "full" else self.counts.index(count) * self.max_rank
        first, second = self.first[start : start + rank], self.second[start : start + rank]
        first = F.pad(first, (0, -first.shape[1] % count)).unflatten(-1, (count, -1))  # (r, N, p)
        second = F.pad(second, (0, -second.shape[1] % count)).unflatten(-1, (-1, count))  # (r, s, N)
        return first.transpose(0, 1).contiguous(), second.permute(2, 1, 0).contiguous()
