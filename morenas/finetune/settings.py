"""How to fine-tune, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from morenas.base.errors import InputError
from morenas.base.settings import check_names, one_of

SCHEDULERS = ("cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt")


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides a fine-tune but its data and model.

    Attributes:
        learning_rate: Peak, of AdamW.
        epochs: Passes over the training examples; a fraction is fine.
        max_steps: Optimizer steps; ``None`` for as many as ``epochs`` give.
        batch_size: Examples per micro-batch.
        eval_batch_size: Examples per batch without gradients.
        gradient_accumulation: Micro-batches per optimizer step.
        shares: Parts that each micro-batch is cut into, so that as many processes can share it. A run of several
            processes sets what it needs.
        weight_decay: Of weights; biases and norms have none.
        warmup_ratio: Fraction of the optimizer steps over which the learning rate rises from 0.
        scheduler: How the learning rate falls after its rise.
        max_grad_norm: Gradients are scaled down to this norm; 0 for no clipping.
        evals: Evaluations on the ``select`` split over the run, evenly spread, the last at its end.
        checkpoint_every: Optimizer steps between checkpoints, beside those of the evaluations.
        bf16: Autocast to bfloat16.
        seed: Of batches and dropout.
        device: "cpu", "cuda", "cuda:N" or "mps".
    """

    learning_rate: float = 1e-3
    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 16
    eval_batch_size: int = 64
    gradient_accumulation: int = 1
    shares: int = 1
    weight_decay: float = 1e-3
    warmup_ratio: float = 0.06
    scheduler: str = one_of(SCHEDULERS, "cosine")
    max_grad_norm: float = 1.0
    evals: int = 3
    checkpoint_every: int = 200
    bf16: bool = False
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_names(self, "training")
        for name in (
            "learning_rate",
            "epochs",
            "batch_size",
            "eval_batch_size",
            "gradient_accumulation",
            "shares",
            "evals",
            "checkpoint_every",
        ):
            _require(name, getattr(self, name), 0 < getattr(self, name) < math.inf, "more than 0, and finite")
        for name in ("weight_decay", "max_grad_norm"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) < math.inf, "at least 0, and finite")
        _require("warmup_ratio", self.warmup_ratio, 0 <= self.warmup_ratio < 1, "in [0, 1)")
        _require("max_steps", self.max_steps, self.max_steps is None or self.max_steps > 0, "more than 0, or null")

    @property
    def micro_batches(self) -> int:
        """Of an optimizer step, shares of the same counted one by one."""
        return self.gradient_accumulation * self.shares

    def total_steps(self, examples: int) -> int:
        """Optimizer steps of a run over ``examples`` training examples."""
        if self.max_steps is not None:
            return self.max_steps
        micro_batches = self.epochs * math.ceil(examples / self.batch_size)
        return max(1, math.ceil(micro_batches / self.gradient_accumulation))

    def eval_steps(self, total_steps: int) -> tuple[int, ...]:
        """Optimizer steps after which ``select`` is evaluated, in order; the last is ``total_steps``."""
        return tuple(sorted({max(1, round(total_steps * k / self.evals)) for k in range(1, self.evals + 1)}))


def _require(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise InputError(f"training.{name}={value} must be {rule}.")
