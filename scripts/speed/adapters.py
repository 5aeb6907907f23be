"""The contestants: adapters of equal parameters, put around a layer or a model as the project's fine-tunes do."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from morenas.finetune.attach import attach
from morenas.finetune.methods import Boft, GraLora, Lora, Method, More, Targets
from morenas.monarch import Link

# The package's attribute of this name is the function.
_MULTIPLY: Any = importlib.import_module("morenas.monarch.multiply")
GRALORA_BLOCKS = 2  # as PEFT advises up to rank 32
BOFT_WIDEST = 1536
"""Widest input that BOFT is timed with: PEFT multiplies every weight by a dense rotation in every pass, and one step of
a model of RoBERTa's size then takes most of a minute."""


@dataclass(frozen=True)
class Uniform:
    """An architecture that gives every target the same shape."""

    targets: Targets
    nblocks: int
    blk_r: int
    link: str = Link.CYCLIC.value

    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Module name to ``(nblocks, blk_r)``."""
        return dict.fromkeys(self.targets, (self.nblocks, self.blk_r))


def more(targets: Targets, nblocks: int, blk_r: int) -> Method:
    """Our adapter; ``r (n + m)`` parameters a layer, whatever N."""
    return More().with_architecture(Uniform(targets, nblocks, blk_r))


def baselines(targets: Targets, blk_r: int) -> dict[str, Method]:
    """PEFT's: LoRA and GraLoRA of as many parameters; BOFT, which has no rank, with blocks of 4 and one butterfly."""
    methods: dict[str, Method] = {"lora": Lora(rank=blk_r)}
    if blk_r % GRALORA_BLOCKS == 0:
        methods["gralora"] = GraLora(rank=blk_r, blocks=GRALORA_BLOCKS)
    if max(n for n, _ in targets.values()) <= BOFT_WIDEST:
        methods["boft"] = Boft(block_size=4)
    return methods


def adapted_layer(base: nn.Linear, method: Method, seed: int) -> nn.Module:
    """PEFT's layer around a copy of ``base`` that shares its weight; every trained number is random."""
    holder = nn.ModuleDict({"layer": nn.Linear(base.in_features, base.out_features, device="meta")})
    linear = cast(nn.Linear, holder["layer"])
    linear.weight, linear.bias = base.weight, base.bias
    attach(cast(Any, holder), method, targets_of(base), (), seed, 1)
    layer = holder["layer"].to(base.weight.device, base.weight.dtype)
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.02)
    return layer


def targets_of(base: nn.Linear) -> Targets:
    """The one target of ``adapted_layer``."""
    return {"layer": (base.in_features, base.out_features)}


def forced(way: str, layer: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A layer of ours that computes its product in the named way, whatever its shape."""

    def fixed(*shape: int) -> str:
        return way

    def call(x: Tensor) -> Tensor:  # nothing here but two assignments is timed with the layer
        rule, _MULTIPLY.quickest_way = _MULTIPLY.quickest_way, fixed
        try:
            return layer(x)
        finally:
            _MULTIPLY.quickest_way = rule

    return call
