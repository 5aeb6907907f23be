"""Training steps of whole models with adapters on all linear layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from morenas.finetune.methods import Method, Targets
from speed.adapters import baselines, more
from speed.memory import remembered
from speed.rows import STEP, Case, Row, timed
from speed.settings import Bench
from speed.subjects import Subject, subject, training_step

SECTION = "models"
REFERENCE = "lora"
BLK_R = 4


@dataclass(frozen=True)
class Workload:
    """A model, and a batch of ``size`` texts of ``length`` tokens."""

    name: str
    size: int
    length: int

    def case(self) -> Case:
        """The workload as rows have it."""
        return {"model": self.name, "batch": f"{self.size}x{self.length}", "r": BLK_R}


FULL = [
    Workload("MiniLM", 32, 64),
    Workload("MiniLM", 32, 128),
    Workload("RoBERTa-base", 8, 128),
    Workload("Llama-160M", 8, 128),
]
QUICK = [Workload("tiny", 4, 16)]


def run(bench: Bench) -> Iterator[Row]:
    """Time every workload, then measure its memory."""
    for work in QUICK if bench.quick else FULL:
        model = subject(work.name, bench)
        yield from times(bench, work, model)
        names = list(methods(model.targets()))
        yield from remembered(SECTION, work.case(), names, [REFERENCE], build, bench, work)


def methods(targets: Targets) -> dict[str, Method]:
    """Everybody who takes part."""
    return baselines(targets, BLK_R) | {ours(nblocks): more(targets, nblocks, BLK_R) for nblocks in (1, 2, 4, 8, 16)}


def ours(nblocks: int) -> str:
    """The name of our adapter with N blocks."""
    return f"more N={nblocks}"


def times(bench: Bench, work: Workload, model: Subject) -> list[Row]:
    """Training steps in alternation; all contestants share the frozen weights."""
    batch = model.batch(work.size, work.length, bench)
    steps = {
        name: training_step(model.adapted(method, bench.seed), batch, bench)
        for name, method in methods(model.targets()).items()
    }
    return timed(SECTION, work.case(), STEP, steps, [REFERENCE], bench)


def build(bench: Bench, work: Workload, name: str) -> Callable[[], object]:
    """The training step of one contestant."""
    model = subject(work.name, bench)
    adapted = model.adapted(methods(model.targets())[name], bench.seed)
    return training_step(adapted, model.batch(work.size, work.length, bench), bench)
