"""Steps of the supernet, beside a training step of LoRA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import nn

from morenas.finetune.methods import Lora
from morenas.space import build_space
from morenas.supernet import SHARINGS, Supernet, layer
from speed.memory import remembered
from speed.models import Workload
from speed.rows import STEP, Case, Row, timed
from speed.settings import Bench
from speed.subjects import RATE, Batch, Subject, loss_of, subject, training_step

SECTION = "supernet"
LORA = "lora r=8"
FEW = "5x5"
LOWER, UPPER = "lower step", "upper step"
WAYS = {"merged": True, "beside": False}
"""Lower steps with either way of computing a layer forced, which the rule chooses from."""

Grid = tuple[Sequence[int], Sequence[int]]
"""Block counts and ranks."""

GRIDS: dict[str, Grid] = {
    FEW: ([1, 2, 4, 8, 16], [0, 1, 2, 4, 8]),
    "8x9": ([1, 2, 3, 4, 6, 8, 12, 24], range(9)),
    "8x9, 48 cells": ([1, 2, 3, 4, 6, 8, 12, 16], range(9)),
    "8x9, N to 128": ([1, 2, 4, 8, 16, 32, 64, 128], range(9)),
}
"""Candidates, of one largest rank. The link tensor grows with the square of the least common multiple of all N: it is
16 for the first; 24, 48 and 128 are three ways to have eight N."""


class SupernetSteps:
    """Of the two kinds of steps of a search what its layers cost: passes of the model, and the weights' AdamW.

    What else a search does between its steps is in the section of whole runs.
    """

    def __init__(self, subject: Subject, grid: Grid, sharing: str, batch: Batch, bench: Bench) -> None:
        """Put a supernet into a copy of the subject, of which the head alone is trained beside it."""
        self.model: nn.Module = subject.copy().model.requires_grad_(False)
        self.batch, self.bench = batch, bench
        space = build_space(subject.targets(), *grid)
        heads = [self.model.get_submodule(name).requires_grad_(True) for name in subject.head]
        self.supernet = Supernet(self.model, space, sharing, bench.seed)
        self.weights = [*self.supernet.weights().values(), *(p for head in heads for p in head.parameters())]
        generator = torch.Generator().manual_seed(bench.seed)
        self.logits = torch.randn(len(space.groups), len(space.choices), generator=generator).mul_(0.1).requires_grad_()
        self.optimizer = torch.optim.AdamW(self.weights, lr=RATE)

    def lower(self) -> None:
        """A weight step."""
        self._mix(self.logits.detach())
        self.model.train()
        loss_of(self.model, self.batch, self.bench).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def upper(self) -> None:
        """The gradient of the logits alone, without dropout."""
        self._mix(self.logits)
        self.model.eval()
        for weight in self.weights:
            weight.requires_grad_(False)
        torch.autograd.grad(loss_of(self.model, self.batch, self.bench), self.logits)
        for weight in self.weights:
            weight.requires_grad_(True)

    def _mix(self, logits: torch.Tensor) -> None:
        self.supernet.mix(torch.softmax(logits, dim=-1))


def run(bench: Bench) -> Iterator[Row]:
    """Steps of either sharing, their memory, then more candidates."""
    work = Workload("tiny", 4, 16) if bench.quick else Workload("MiniLM", 32, 64)
    case: Case = {"model": work.name, "batch": f"{work.size}x{work.length}", "candidates": FEW}
    model = subject(work.name, bench)
    batch = model.batch(work.size, work.length, bench)
    calls = {LORA: training_step(model.adapted(Lora(rank=8), bench.seed), batch, bench)}
    for sharing in SHARINGS:
        steps = SupernetSteps(model, GRIDS[FEW], sharing, batch, bench)
        calls |= {f"lower/{sharing}": steps.lower, f"upper/{sharing}": steps.upper}
        calls |= {f"{way}/{sharing}": partial(forced, merged, steps.lower) for way, merged in WAYS.items()}
    yield from timed(SECTION, case, STEP, calls, [LORA], bench)
    own = [name for name in calls if name.partition("/")[0] not in WAYS]
    yield from remembered(SECTION, case, own, [LORA], build, bench, work)
    for sharing in SHARINGS:
        yield from candidates(bench, work, model, sharing)


def forced(merged: bool, step: Callable[[], None]) -> None:
    """A step of which every layer is computed in one way, whatever the rule says."""
    rule, layer.merging_is_cheaper = layer.merging_is_cheaper, lambda *shape: merged
    try:
        step()
    finally:
        layer.merging_is_cheaper = rule


def build(bench: Bench, work: Workload, name: str) -> Callable[[], object]:
    """The step of one contestant."""
    model = subject(work.name, bench)
    batch = model.batch(work.size, work.length, bench)
    if name == LORA:
        return training_step(model.adapted(Lora(rank=8), bench.seed), batch, bench)
    level, _, sharing = name.partition("/")
    steps = SupernetSteps(model, GRIDS[FEW], sharing, batch, bench)
    return steps.lower if level == "lower" else steps.upper


def candidates(bench: Bench, work: Workload, model: Subject, sharing: str) -> Iterator[Row]:
    """Steps over more candidates beside steps over few."""
    batch = model.batch(work.size, work.length, bench)
    steps = {name: SupernetSteps(model, grid, sharing, batch, bench) for name, grid in GRIDS.items()}
    case: Case = {"model": work.name, "batch": f"{work.size}x{work.length}", "sharing": sharing}
    lower, upper = ({name: getattr(one, level) for name, one in steps.items()} for level in ("lower", "upper"))
    yield from timed(SECTION, case, LOWER, lower, [FEW], bench)
    yield from timed(SECTION, case, UPPER, upper, [FEW], bench)
