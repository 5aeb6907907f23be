"""How to search, as plain values, each checked."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from morenas.base.errors import InputError
from morenas.bilevel import HYPERGRADIENTS
from morenas.selection import MEASURED, SELECTIONS
from morenas.supernet import RELAXATIONS, SHARINGS

STARTS = ("spectral", "level")

NAMES: dict[str, Collection[str]] = {
    "start": STARTS,
    "relaxation": RELAXATIONS,
    "sharing": SHARINGS,
    "hypergradient": HYPERGRADIENTS,
    "selection": (*SELECTIONS, *MEASURED),
    "stop": ("none", "entropy", "curvature"),
}
"""What each setting that is a name may be."""


@dataclass(frozen=True)
class SearchSettings:
    """How to search. Steps are weight steps; learning rates are those of AdamW (weights) and Adam (logits).

    Attributes:
        warmup: Steps before the first architecture step. A spectral start trains the open supernet in them, every
            candidate with weight 1, and they may be all; a level start trains the level mixture of the candidates.
        start: Where the logits start. "spectral": at closed-form scores of what each candidate keeps of the warm-up's
            change of the weights, and each block count at its own projection of it. "level": at zero.
        measurements: Architectures whose loss a selection measures, at most; None for a share of the steps.
        playoff: Architectures that selection=playoff trains alone, at most.
        playoff_steps: Steps of each; None for a share of the steps.
        stop: What ends the architecture steps early: "entropy" below ``stop_entropy``, in nats a group; "curvature",
            looked at every ``stop_every`` architecture steps, above ``stop_curvature`` times what it was.

    Raises:
        InputError: If a value is out of range, or a name is unknown.
    """

    steps: int
    warmup: int
    every: int = 2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    max_grad_norm: float = 1.0
    ramp: float = 0.06
    arch_learning_rate: float = 0.1
    gradient_accumulation: int = 1
    relaxation: str = "softmax"
    start: str = "spectral"
    sharing: str = "per_nblocks"
    temperature_start: float = 1.0
    temperature_end: float = 0.2
    hypergradient: str = "first_order"
    selection: str = "surrogate"
    measurements: int | None = None
    playoff: int = 4
    playoff_steps: int | None = None
    stop: str = "none"
    stop_entropy: float = 0.05
    stop_curvature: float = 1.3
    stop_every: int = 5
    checkpoint_every: int = 50
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "every", "gradient_accumulation", "checkpoint_every", "playoff", "stop_every"):
            if getattr(self, name) < 1:
                raise InputError(f"search.{name}={getattr(self, name)}: must be at least 1.")
        for name in ("measurements", "playoff_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"search.{name}={getattr(self, name)}: must be at least 1, or null.")
        for name in ("learning_rate", "arch_learning_rate", "temperature_start", "temperature_end"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"search: {name}={getattr(self, name)} must be above 0, and finite.")
        if not 0 <= self.stop_entropy < math.inf:
            raise InputError(f"search.stop_entropy={self.stop_entropy}: nats a group, at least 0 and finite.")
        if not 1 <= self.stop_curvature < math.inf:
            raise InputError(f"search.stop_curvature={self.stop_curvature}: a ratio, at least 1 and finite.")
        if not 0 <= self.max_grad_norm < math.inf:
            raise InputError(f"search: max_grad_norm={self.max_grad_norm} must be finite, and at least 0: no clipping.")
        for name, known in NAMES.items():
            if getattr(self, name) not in known:
                raise InputError(f"search: {name}={getattr(self, name)!r} is none of {', '.join(known)}.")
        if self.start == "spectral":
            self._check_spectral()
        elif not 0 <= self.warmup < self.steps:
            raise InputError(
                f"search: warmup={self.warmup} must be at least 0 and below steps={self.steps}; else no architecture "
                "step would be taken."
            )

    def _check_spectral(self) -> None:
        if not 1 <= self.warmup <= self.steps:
            raise InputError(
                f"search: warmup={self.warmup} must be at least 1 and at most steps={self.steps}: a spectral start "
                "takes the architecture from what the warm-up learns. search.start=level needs no warm-up."
            )
        idle = {"relaxation": "softmax", "hypergradient": "first_order", "stop": "none"}
        unused = [f"{name}={getattr(self, name)}" for name, usual in idle.items() if getattr(self, name) != usual]
        if self.warmup == self.steps and unused:
            raise InputError(
                f"search: {', '.join(unused)} would do nothing: with start=spectral the warm-up is the whole search, "
                "and no architecture step is taken. Set search.warmup=0.7 to take some after it, or search.start=level."
            )
        if self.sharing != "per_nblocks":
            raise InputError(
                f"search.start=spectral with sharing={self.sharing}: every block count takes its own factors from what "
                "the warm-up learns; use sharing=per_nblocks, or search.start=level."
            )
