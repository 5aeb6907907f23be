"""Planted transformers: problems in which the block count matters, and in which direction is known.

At equal parameters a change of N blocks has up to N times the rank of a LoRA, and reaches only what its blocks link.
Where the teacher's change is such a one, N = 1 holds a part of it; where it is a dense one of low rank, N > 1 does.
The frozen net is a small pre-norm transformer encoder, regression on every token. Numbers as in ``planted``.
"""

from __future__ import annotations

import random
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morenas.benchmark.planted import Family, PlantedProblem, frozen, plant
from morenas.benchmark.problem import Recipe, cost
from morenas.models import target_linears
from morenas.space import build_space

NBLOCKS, RANKS = (1, 2, 4), (0, 1, 2, 4)
HEADS = 4  # as many as the largest block count: a block of the output projection's inputs is a head
LAYERS, WIDTHS = (1, 2), (32, 48)
WIDER = 4  # the feed-forward part's inner width, in widths
TOKENS = 8
EXAMPLES = 2048

SIDES = {
    "blocks": Family(EXAMPLES, nblocks=(4,)),
    "low-rank": Family(EXAMPLES, nblocks=(1,)),
    "mixed": Family(EXAMPLES, nblocks=(1, 4)),
    "mixed-noisy": Family(nblocks=(1, 4), per_module=64, noise=0.5),
}
"""The families: N = 4 is right everywhere, N = 1 is, or each in some of the layers; the last of few, noisy examples."""


class TransformerLayer(nn.Module):
    """``x + s o(attention(q, k, v))``, then ``x + s down(gelu(up))``, each of the normed input; no trained norms."""

    def __init__(self, width: int, scale: float) -> None:
        """Build the layers without values, for ``frozen`` to fill."""
        super().__init__()
        self.scale = scale
        for name in ("q", "k", "v", "o"):
            self.add_module(name, nn.utils.skip_init(nn.Linear, width, width))
        self.up = cast(nn.Linear, nn.utils.skip_init(nn.Linear, width, WIDER * width))
        self.down = cast(nn.Linear, nn.utils.skip_init(nn.Linear, WIDER * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(examples, tokens, width)`` to the same shape."""
        normed = F.layer_norm(x, x.shape[-1:])
        q, k, v = (self._heads(self.get_submodule(name)(normed)) for name in ("q", "k", "v"))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.scale * self.get_submodule("o")(mixed)
        inner = F.gelu(self.up(F.layer_norm(x, x.shape[-1:])))
        out: Tensor = x + self.scale * self.down(inner)
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


class PlantedTransformer(PlantedProblem):
    """A problem of a family of ``SIDES``; see ``morenas.benchmark.problem.Problem``.

    Every linear layer of the transformer is searched. ``planted`` is the architecture that made the data, its
    parameters are the budget. Examples are ``(tokens, width)``.
    """

    table = "transformer"
    families = SIDES
    draws = "transformer/"
    recipe = Recipe(steps=250, learning_rate=1e-2, batch_size=32)
    tokens = (TOKENS,)

    def _plant(self, rng: random.Random, generator: torch.Generator) -> None:
        layers, width = rng.choice(LAYERS), rng.choice(WIDTHS)
        self.model = frozen(_encoder(layers, width), generator)
        self.space = build_space(target_linears(self.model), NBLOCKS, RANKS)
        self.planted = plant(self.space, rng, self.rules.nblocks, needed=self.rules.nblocks)
        self.budget = cost(self.space, self.planted)
        self._teach(_encoder(layers, width), width, generator)


def _encoder(layers: int, width: int) -> nn.Sequential:
    return nn.Sequential(*(TransformerLayer(width, (2 * layers) ** -0.5) for _ in range(layers)))
