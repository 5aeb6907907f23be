"""Loops over the weights and the logits, as the settings say."""

from __future__ import annotations

import math
from copy import deepcopy

import torch

from morenas.base.registry import registry
from morenas.bilevel import BilevelLoop, BilevelProblem, Guard, Schedule
from morenas.search.acting import guard_settings
from morenas.search.settings import SearchSettings

READ_EVERY = 10  # weight steps between readings of the weights' losses from an accelerator, at most


def new_schedule(settings: SearchSettings, open_warmup: bool) -> Schedule:
    """When weights and logits move. An open warm-up is a training of its own, with a ramp of its own."""
    given = settings.steps, settings.warmup, settings.every, settings.ramp, settings.max_grad_norm
    return Schedule(*given, restart=open_warmup, decay=settings.decay)


def new_loop(
    problem: BilevelProblem, schedule: Schedule, settings: SearchSettings, guard: Guard | None = None
) -> BilevelLoop:
    """A loop with new optimizers: AdamW for the weights, Adam for the logits."""
    return BilevelLoop(
        problem,
        registry("hypergradient").build(settings.hypergradient),
        torch.optim.AdamW(problem.weights, lr=settings.learning_rate, weight_decay=settings.weight_decay),
        # DARTS takes a first moment of 0.5: gradients of the logits change with every draw and batch.
        torch.optim.Adam(problem.arch, lr=settings.arch_learning_rate, betas=(0.5, 0.999)),
        schedule,
        read_every(problem.weights[0].device, settings.checkpoint_every),
        guard,
    )


def new_guard(settings: SearchSettings) -> Guard:
    """The guard of the settings. By name it takes those of its settings that ``stop_<setting>`` gives.

    It is made as new: one that was given as an object may have looked after another search.
    """
    guards, stop = registry("guard"), settings.stop
    given = {key: getattr(settings, f"stop_{key}") for key in guard_settings(stop) if hasattr(settings, f"stop_{key}")}
    guard: Guard = deepcopy(guards.build(stop, **given))
    return guard


def read_every(device: torch.device, checkpoint_every: int) -> int:
    """Weight steps between readings of the losses: elsewhere than on a CPU every reading waits for the device.

    All are read where a checkpoint is due: it must hold no step that was not looked at.
    """
    return 1 if device.type == "cpu" else math.gcd(READ_EVERY, checkpoint_every)
