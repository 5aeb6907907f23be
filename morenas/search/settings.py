"""How to search, as plain values, each checked. Free of torch, so that a command line can list them quickly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from morenas.base.errors import InputError
from morenas.base.kinds import SHARINGS
from morenas.base.settings import check_names, door, one_of
from morenas.search.acting import check_acting


@dataclass(frozen=True)
class SearchSettings:
    """How to search. Steps are weight steps; learning rates are those of AdamW (weights) and Adam (logits).

    A field that takes a name takes an object too, such as ``relaxation=Gumbel()``; ``docs/extending.md`` shows how to
    bring in one of your own.

    Attributes:
        steps: Weight steps in all, those of a play-off not counted.
        warmup: Weight steps before the first architecture step. A spectral start trains the open supernet in them,
            every candidate with the same weight, and they may be all; a level start trains the level mixture of the
            candidates.
        every: Weight steps between architecture steps.
        learning_rate: Of the weights: the peak of a linear ramp and a cosine down to zero.
        weight_decay: Of the weights, decoupled, per unit of the learning rate.
        max_grad_norm: Gradients of the weights are scaled down to this norm; 0 leaves them as they are.
        ramp: Fraction of the weight steps over which the learning rate rises.
        decay: Let the learning rate fall to zero by a cosine, as in a training of its own; else it stays at its peak,
            for what is found is trained on.
        arch_steps: Architecture steps on weights that stand still, after a warm-up that is all of the weight steps;
            None for 0.01 of the weight steps, in a short search for more, up to 8; 0 leaves all to the start.
        arch_learning_rate: Of the logits, constant, in architecture steps between weight steps.
        gradient_accumulation: Micro-batches a step, on either level.
        shares: Parts that each micro-batch is cut into, so that as many processes can share it. A run of several
            processes sets what it needs.
        relaxation: How logits become the probabilities that mix the candidates; None for midpoint where the weights
            stand still while the architecture moves, and for softmax where both move in turn.
        start: Where the logits start. "spectral": at closed-form scores of what each candidate keeps of the warm-up's
            change of the weights, and each block count at its own projection of it. "level": at zero.
        open_rank: A step of the open supernet moves a layer as far as one of an adapter of this rank would, at most;
            its slots have a common weight for it. Lower it where the warm-up does not bear a rate that an adapter does.
        sharing: Whether block counts share their factors ("full", with a level start alone), or each has its own
            ("per_nblocks").
        temperature_start: Temperature of the relaxation at the first architecture step; it falls exponentially.
        temperature_end: Temperature of the relaxation at the last step.
        hypergradient: How the architecture's loss is differentiated through the weights.
        selection: How one architecture within the budget is chosen in the end.
        measurements: Architectures whose loss a selection measures, at most; None for 0.15 of the steps, in a short
            search for more, up to 12; selection=race takes an eighth of that, up to 8.
        playoff: Architectures that selection=playoff trains alone, at most.
        playoff_steps: Weight steps of each of them; None for 0.05 of the search's.
        stop: What ends the architecture steps early: "entropy" below ``stop_entropy``; "curvature", looked at every
            ``stop_every`` architecture steps, above ``stop_curvature`` times what it was.
        stop_entropy: Floor of stop=entropy: nats, mean over the groups.
        stop_curvature: Ceiling of stop=curvature: ratio of a moving average to its earlier value.
        stop_every: Architecture steps between looks at the curvature, of six gradients each.
        checkpoint_every: Weight steps between checkpoints.
        bf16: Compute losses under bfloat16 autocast.
        seed: Of every random draw.

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
    decay: bool = False
    arch_steps: int | None = None
    arch_learning_rate: float = 0.1
    gradient_accumulation: int = 1
    shares: int = 1
    relaxation: Any = door("relaxation", None)
    start: Any = door("start", "spectral")
    open_rank: float = 16.0
    sharing: str = one_of(SHARINGS, "per_nblocks")
    temperature_start: float = 1.0
    temperature_end: float = 0.2
    hypergradient: Any = door("hypergradient", "first_order")
    selection: Any = door("selection", "race")
    measurements: int | None = None
    playoff: int = 4
    playoff_steps: int | None = None
    stop: Any = door("guard", "none")
    stop_entropy: float = 0.05
    stop_curvature: float = 1.3
    stop_every: int = 5
    checkpoint_every: int = 50
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_names(self, "search")
        for name in ("steps", "every", "gradient_accumulation", "shares", "checkpoint_every", "playoff", "stop_every"):
            if getattr(self, name) < 1:
                raise InputError(f"search.{name}={getattr(self, name)}: must be at least 1.")
        if self.arch_steps is not None and self.arch_steps < 0:
            raise InputError(f"search.arch_steps={self.arch_steps}: must be at least 0, or null.")
        for name in ("measurements", "playoff_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"search.{name}={getattr(self, name)}: must be at least 1, or null.")
        for name in ("learning_rate", "arch_learning_rate", "open_rank", "temperature_start", "temperature_end"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"search: {name}={getattr(self, name)} must be above 0, and finite.")
        if not 0 <= self.stop_entropy < math.inf:
            raise InputError(f"search.stop_entropy={self.stop_entropy}: nats a group, at least 0 and finite.")
        if not 1 <= self.stop_curvature < math.inf:
            raise InputError(f"search.stop_curvature={self.stop_curvature}: a ratio, at least 1 and finite.")
        if not 0 <= self.max_grad_norm < math.inf:
            raise InputError(f"search: max_grad_norm={self.max_grad_norm} must be finite, and at least 0: no clipping.")
        check_acting(self)

    @property
    def micro_batches(self) -> int:
        """Of a step, shares of the same counted one by one."""
        return self.gradient_accumulation * self.shares

    @property
    def acting_relaxation(self) -> Any:
        """The relaxation that acts, by name or as an object."""
        usual = "midpoint" if self.stands else "softmax"
        return usual if self.relaxation is None else self.relaxation

    @property
    def stands(self) -> bool:
        """Whether all weight steps are warm-up, so that the weights stand still while the architecture moves."""
        return self.warmup == self.steps
