"""The losses of both levels: what the supernet computes in a pass, its randomness, its mode and its precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from morenas.base import processes
from morenas.base.seeds import derive, seed_pass
from morenas.bilevel import Level, Schedule
from morenas.search.data import SearchData
from morenas.search.settings import SearchSettings
from morenas.supernet.prepare import evaluation_mode
from morenas.tasks.batches import Batch, Batches
from morenas.tasks.parts import Parts, size

Loss = Callable[[nn.Module, Batch], Tensor]
"""Scalar loss of a model on a batch."""

FORWARD = 1 / 3
"""Of a forward and backward pass: what a pass without gradients costs."""

Arrange = Callable[[int, torch.Generator], None]
"""Tells the supernet what to compute in a pass, from the number of a weight step and the pass's own generator."""


def model_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The loss that a model of transformers returns for a batch with labels."""
    loss: Tensor = model(**batch).loss
    return loss


class Objective:
    """Losses by micro-batch number, each a pure function of it and of the parameters.

    The randomness of a pass (dropout, Gumbel draws) is seeded by its level and number, so that a resumed search needs
    no generator state, and the two passes of a finite difference draw the same.

    Several processes share the passes; each counts its own.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: SearchData,
        schedule: Schedule,
        settings: SearchSettings,
        device: torch.device,
    ) -> None:
        """Arguments as of ``search_architecture``; ``device`` is where batches go."""
        self._model, self._loss, self._data, self._device = model, loss, data, device
        self._schedule, self._settings = schedule, settings
        self._arrange: Arrange | None = None
        self._work = 0

    @property
    def by_labels(self) -> bool:
        """Whether the loss is that of a model of transformers, of which it is known what a constant answer is worth."""
        return self._loss is model_loss

    @property
    def work(self) -> int:
        """What all processes have computed so far, in thirds of a pass of a share; all must ask at once."""
        return sum(processes.exchange(self._work))

    @work.setter
    def work(self, done: int) -> None:
        self._work = done if processes.number() == 0 else 0

    @property
    def passes(self) -> float:
        """The same in forward and backward passes of the batches of a step; one without gradients is a third."""
        return self.work * FORWARD / self._settings.micro_batches

    def enter(self, arrange: Arrange) -> None:
        """Begin a phase of the search: ``arrange`` is called before every pass of either level."""
        self._arrange = arrange

    def lower(self, begin: int = 0) -> Level:
        """The weights' loss on the train batches; its step 0 is weight step ``begin`` of the search."""
        return self._level("lower", self._data.train, begin, lambda step: step)

    def upper(self) -> Level:
        """The architecture's loss on the val batches."""
        return self._level("upper", self._data.val, 0, self._schedule.upper_at)

    def evaluate(self, batch: Batch) -> Tensor:
        """The loss on a batch, of the supernet as it is arranged, without dropout."""
        evaluation_mode(self._model)
        return self._compute(batch, self._settings.bf16, self._settings.shares)

    def _level(self, name: str, batches: Batches, begin: int, weight_step: Callable[[int], int]) -> Level:
        micro, parts = self._settings.micro_batches, Parts(batches, self._settings.shares)

        def loss(number: int, bf16: bool = self._settings.bf16) -> Tensor:
            number += begin * micro
            batch = parts[number]
            if not size(batch):
                return torch.zeros((), device=self._device)
            loss = self._pass(name, number, weight_step(number // micro), batch, bf16)
            return loss if self._settings.shares == 1 else loss * parts.weight(number)

        return Level(name, loss, micro, lambda number: loss(number, bf16=False))

    def _pass(self, level: str, number: int, step: int, batch: Batch, bf16: bool) -> Tensor:
        seed = derive(self._settings.seed, "search", level, number)
        seed_pass(seed, self._device)
        if self._arrange is None:
            raise RuntimeError("Objective.enter() says what the supernet computes; call it before any loss.")
        self._arrange(step, torch.Generator().manual_seed(seed))
        # Dropout is for the weights; the architecture is judged as it would be used.
        if level == "lower":
            self._model.train()
        else:
            evaluation_mode(self._model)
        return self._compute(batch, bf16)

    def _compute(self, batch: Batch, bf16: bool, shares: int = 1) -> Tensor:
        self._work += shares * (3 if torch.is_grad_enabled() else 1)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
            moved = {key: value.to(self._device, non_blocking=True) for key, value in batch.items()}
            return self._loss(self._model, moved)
