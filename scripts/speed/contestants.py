"""Everybody who takes part in the comparison of single layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morenas.finetune.methods import Method
from morenas.monarch import Link, block_sizes, multiply
from morenas.monarch.multiply import WAYS
from speed.adapters import adapted_layer, baselines, forced, more, targets_of
from speed.published import load_published
from speed.rows import Case
from speed.settings import Bench


@dataclass(frozen=True)
class Layer:
    """A linear layer ``n -> m``, how many tokens go through it, and a Monarch shape of as many parameters as LoRA's."""

    n: int
    m: int
    tokens: int
    nblocks: int = 4
    blk_r: int = 4

    def case(self) -> Case:
        """The layer as rows have it."""
        return {"n": self.n, "m": self.m, "tokens": self.tokens, "N": self.nblocks, "r": self.blk_r}


@dataclass(frozen=True)
class Applied:
    """A map to measure, and the tensors of it that are trained."""

    call: Callable[[Tensor], Tensor]
    trained: list[Tensor]

    def forward(self, x: Tensor) -> None:
        """As in inference."""
        with torch.no_grad():
            self.call(x)

    def both(self, x: Tensor, upstream: Tensor) -> None:
        """The map, and its gradients in ``x`` and in what is trained."""
        torch.autograd.grad(self.call(x), [x, *self.trained], upstream)


def tensors(bench: Bench, layer: Layer) -> tuple[Tensor, Tensor]:
    """An input that needs its gradient, and the gradient that comes in from above."""
    generator = torch.Generator().manual_seed(bench.seed)
    x = torch.randn(layer.tokens, layer.n, generator=generator).to(bench.device, bench.dtype)
    upstream = torch.randn(layer.tokens, layer.m, generator=generator).to(bench.device, bench.dtype)
    return x.requires_grad_(), upstream


def frozen(bench: Bench, layer: Layer) -> nn.Linear:
    """The layer that adapters go to."""
    return nn.Linear(layer.n, layer.m, device=bench.device, dtype=bench.dtype).requires_grad_(False)


def adapted(bench: Bench, base: nn.Linear, method: Method) -> Applied:
    """PEFT's layer around the frozen one."""
    layer = adapted_layer(base, method, bench.seed)
    return Applied(layer, [parameter for parameter in layer.parameters() if parameter.requires_grad])


def as_used(bench: Bench, layer: Layer) -> dict[str, Applied]:
    """The frozen layer with every adapter around it, our own also with each way of its product forced."""
    base = frozen(bench, layer)
    methods = baselines(targets_of(base), layer.blk_r)
    if layer.nblocks != 4:  # LoRA, the yardstick, is timed with every N; the others know no N
        methods = {"lora": methods["lora"]}
    if bench.dtype != torch.float32:
        methods.pop("boft", None)  # it solves linear systems, for which torch has no half precision
    ours = adapted(bench, base, more(targets_of(base), layer.nblocks, layer.blk_r))
    everyone = {
        "base": Applied(base, []),
        **{name: adapted(bench, base, method) for name, method in methods.items()},
        "more": ours,
        **{f"more/{way}": Applied(forced(way, ours.call), ours.trained) for way in WAYS},
    }
    if bench.reference is not None:
        published = alone_published(bench, layer, bench.reference)
        everyone["published"] = Applied(lambda x: base(x) + published.call(x), published.trained)
    return everyone


def alone(bench: Bench, layer: Layer) -> dict[str, Applied]:
    """The products, without a frozen layer beside."""
    a, b = random_factors(bench, (layer.blk_r, layer.n), (layer.m, layer.blk_r))
    first, second = monarch_factors(bench, layer)
    ours = {"more": multiply, **WAYS}
    everyone = {"alone/lora": Applied(lambda x: F.linear(F.linear(x, a), b), [a, b])}
    for name, product in ours.items():
        call = partial(product, first=first, second=second, link=Link.CYCLIC, out_features=layer.m)
        everyone[f"alone/{name}"] = Applied(call, [first, second])
    if bench.reference is not None:
        everyone["alone/published"] = alone_published(bench, layer, bench.reference)
    return everyone


def alone_published(bench: Bench, layer: Layer, checkout: Path) -> Applied:
    """The published product."""
    product = load_published(checkout)
    first, second = monarch_factors(bench, layer)
    return Applied(lambda x: product(x, first, second), [first, second])


def monarch_factors(bench: Bench, layer: Layer) -> list[Tensor]:
    """Blocks ``(N, r, n / N)`` and ``(N, m / N, r)``, to train."""
    width, height = block_sizes(layer.n, layer.m, layer.nblocks)
    return random_factors(bench, (layer.nblocks, layer.blk_r, width), (layer.nblocks, height, layer.blk_r))


def random_factors(bench: Bench, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Random tensors to train."""
    drawn = (torch.randn(shape) * 0.02 for shape in shapes)
    return [tensor.to(bench.device, bench.dtype).requires_grad_() for tensor in drawn]
