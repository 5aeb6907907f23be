"""The bars that the project set itself, and what a bench run has seen of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from speed import runs, supernets
from speed.models import ours
from speed.rows import BOTH, MEMORY, STEP, Row
from speed.settings import Bench

WIDTHS = (768, 1024, 2048, 4096)


@dataclass(frozen=True)
class Bar:
    """A limit on the worst median ratio of the rows it is about."""

    measure: str
    limit: float
    about: Callable[[Row], bool]


@dataclass(frozen=True)
class Verdict:
    """A bar beside the worst ratio seen; ``None`` where nothing was measured."""

    measure: str
    bar: float
    seen: float | None = None
    where: str | None = None
    holds: bool | None = None

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def _model(blocks: tuple[int, ...]) -> Callable[[Row], bool]:
    names = [ours(nblocks) for nblocks in blocks]
    return lambda row: (
        (row.section, row.measure, row.case.get("model")) == ("models", STEP, "MiniLM") and row.contestant in names
    )


def _alone(width: int) -> Callable[[Row], bool]:
    compared = ("alone/more", "alone/published", BOTH)
    return lambda row: (
        (row.contestant, row.reference, row.measure) == compared
        and min(int(row.case["n"]), int(row.case["m"])) == width
        and (row.case["N"], row.case["r"]) in ((4, 4), (4, 8))
    )


def _supernet(sharing: str) -> Callable[[Row], bool]:
    wanted = ("supernet", STEP, f"lower/{sharing}")
    return lambda row: (row.section, row.measure, row.contestant) == wanted


def _memory(row: Row) -> bool:
    """Of whole runs, the model's own memory included, and of single weight steps above what stood before."""
    steps = row.section == supernets.SECTION and row.contestant.startswith("lower/")
    return row.measure == MEMORY and (steps or (row.section == runs.SECTION and row.contestant != runs.LORA))


def _run(measure: str) -> Callable[[Row], bool]:
    return lambda row: (row.section, row.measure) == ("runs", measure) and row.contestant != runs.LORA


def _candidates(row: Row) -> bool:
    of_steps = row.measure in (supernets.LOWER, supernets.UPPER)
    return of_steps and row.contestant == "8x9" and row.case["sharing"] == "full"


BARS = [
    Bar("MiniLM training step, more r=4 / lora r=4, N = 1, 2, 4", 1.05, _model((1, 2, 4))),
    Bar("MiniLM training step, more r=4 / lora r=4, N = 8, 16", 1.10, _model((8, 16))),
    *(Bar(f"adapter alone, forward+backward, ours / published, width {w}, N=4", 0.5, _alone(w)) for w in WIDTHS),
    Bar("supernet weight step / lora r=8 step, sharing full", 1.25, _supernet("full")),
    Bar("supernet weight step / lora r=8 step, sharing per_nblocks", 1.5, _supernet("per_nblocks")),
    Bar("whole search / whole lora r=8 fine-tune of as many weight steps", 1.6, _run(runs.AS_MANY)),
    Bar("search and final fine-tune / lora r=8 fine-tune of the final length", 2.0, _run(runs.DEFAULTS)),
    Bar("peak memory of a search / of a lora r=8 fine-tune", 1.15, _memory),
    Bar("supernet steps, 8x9 candidates (N the divisors of 24) / 5x5, sharing full", 1.05, _candidates),
]


def verdicts(rows: Sequence[Row], bench: Bench) -> list[Verdict]:
    """Hold every bar against the worst of its rows, as far as they were measured as the bars ask for."""
    fitting = [row for row in rows if _as_asked(row, bench)]
    return [_verdict(bar, [row for row in fitting if bar.about(row)]) for bar in BARS]


def _as_asked(row: Row, bench: Bench) -> bool:
    """The bars are about float32 on two CPU threads, at least ten pairs, and MiniLM's own weights."""
    pairs = bench.run_pairs if row.section == runs.SECTION else bench.pairs
    machine = (bench.device, bench.dtype, bench.threads) == ("cpu", torch.float32, 2)
    weights = row.section in ("layers", "large") or bench.minilm is not None
    return machine and weights and pairs >= 10 and not bench.quick


def _verdict(bar: Bar, rows: Sequence[Row]) -> Verdict:
    if not rows:
        return Verdict(bar.measure, bar.limit)
    worst = max(rows, key=lambda row: row.ratio)
    case = ", ".join(f"{key}={value}" for key, value in worst.case.items())
    where = f"{worst.contestant}, {worst.measure}, {case}"
    return Verdict(bar.measure, bar.limit, worst.ratio, where, worst.ratio <= bar.limit)
