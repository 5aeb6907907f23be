"""What a bench run measured: one row per case, measure, contestant and reference."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from speed.settings import Bench
from speed.timing import alternate

Case = dict[str, int | str]
Values = Mapping[str, Sequence[float]]
"""What was measured of each contestant, round by round."""

FORWARD = "forward"
BOTH = "forward+backward"
STEP = "training step"
MEMORY = "peak memory"


@dataclass(frozen=True)
class Row:
    """A contestant beside a reference.

    Attributes:
        ratio: Median over rounds of the contestant's value over the reference's of the same round.
        ratio_q1: First quartile of those ratios.
        ratio_q3: Third quartile.
        median_ms: Median milliseconds of the contestant; None where memory was measured.
        peak_bytes: Median peak memory of the contestant; None where time was measured.
    """

    section: str
    case: Case
    contestant: str
    measure: str
    reference: str
    ratio: float
    ratio_q1: float
    ratio_q3: float
    median_ms: float | None = None
    peak_bytes: int | None = None

    def document(self) -> dict[str, Any]:
        """As JSON has it; what was not measured is absent."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def row(
    section: str, case: Case, measure: str, names: tuple[str, str], values: Sequence[float], reference: Sequence[float]
) -> Row:
    """The row of a contestant's values beside those of a reference in the same rounds.

    Args:
        names: Of the contestant, and of the reference.
        values: Milliseconds, or bytes where the measure is ``MEMORY``.
    """
    ratios = [value / other for value, other in zip(values, reference, strict=True)]
    low, middle, high = (round(float(ratio), 4) for ratio in np.percentile(ratios, [25, 50, 75]))
    median = statistics.median(values)
    measured: dict[str, Any] = {"peak_bytes": int(median)} if measure == MEMORY else {"median_ms": round(median, 4)}
    return Row(section, case, names[0], measure, names[1], middle, low, high, **measured)


def compared(section: str, case: Case, measure: str, values: Values, references: Sequence[str]) -> list[Row]:
    """Every contestant beside every reference that took part."""
    return [
        row(section, case, measure, (name, reference), values[name], values[reference])
        for reference in references
        if reference in values
        for name in values
    ]


def timed(
    section: str,
    case: Case,
    measure: str,
    contestants: Mapping[str, Callable[[], object]],
    references: Sequence[str],
    bench: Bench,
) -> list[Row]:
    """Time contestants in alternation and compare them."""
    times = alternate(contestants, bench.pairs, bench.seed, bench.device)
    return compared(section, case, measure, times, references)
