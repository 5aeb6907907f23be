"""The picture of a bench run: one panel per kind of comparison that it holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from speed import scaling
from speed.rows import BOTH, STEP, Row

Panel = tuple[str, Callable[[Axes, Sequence[Row]], None], list[Row]]
"""Title, how to draw it, and the rows it shows."""


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Write a PNG of every panel that has rows."""
    panels = [panel for panel in _panels(rows) if panel[2]]
    lines = max(1, math.ceil(len(panels) / 2))
    figure = Figure(figsize=(12, 3.4 * lines), layout="constrained")
    axes = figure.subplots(lines, 2, squeeze=False).flatten()
    for axis, (title, paint, shown) in zip(axes, panels, strict=False):
        paint(axis, shown)
        axis.set_title(title, fontsize=10)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _panels(rows: Sequence[Row]) -> list[Panel]:
    both = [row for row in rows if row.section in ("layers", "large") and row.measure == BOTH and _typical(row)]
    steps = [row for row in rows if row.measure == STEP and row.section in ("models", "supernet")]
    grown = [row for row in rows if row.section == scaling.SECTION and row.reference == scaling.SMALLEST]
    axes = dict.fromkeys(str(row.case["axis"]) for row in grown)
    return [
        ("layer, forward+backward / lora", _by_width, [row for row in both if row.reference == "lora"]),
        ("product alone, forward+backward / lora", _by_width, [row for row in both if row.reference == "alone/lora"]),
        ("training step / lora r=4", _bars, [row for row in steps if row.section == "models"]),
        ("supernet step / lora r=8", _bars, [row for row in steps if row.section == "supernet"]),
        *((f"cost along {axis}", _growth, [row for row in grown if row.case["axis"] == axis]) for axis in axes),
    ]


def _typical(row: Row) -> bool:
    """Square, and N = r = 4."""
    return row.case["n"] == row.case["m"] and row.case["N"] == row.case["r"] == 4


def _by_width(axis: Axes, rows: Sequence[Row]) -> None:
    """A line per contestant at the middle number of tokens."""
    tokens = sorted({int(row.case["tokens"]) for row in rows})
    shown = [row for row in rows if row.case["tokens"] == tokens[min(1, len(tokens) - 1)]]
    for name in dict.fromkeys(row.contestant for row in shown):
        line = [row for row in shown if row.contestant == name]
        axis.plot([int(row.case["n"]) for row in line], [row.ratio for row in line], marker="o", label=name)
    axis.set_xscale("log", base=2)
    axis.set_xlabel(f"width, {shown[0].case['tokens']} tokens")
    _ratio(axis)


def _bars(axis: Axes, rows: Sequence[Row]) -> None:
    """A group of bars per contestant, one a case."""
    names = list(dict.fromkeys(row.contestant for row in rows))
    cases = list(dict.fromkeys(tuple(row.case.values())[:2] for row in rows))
    for number, case in enumerate(cases):
        shown = [row for row in rows if tuple(row.case.values())[:2] == case]
        places = [names.index(row.contestant) + 0.8 * number / len(cases) for row in shown]
        errors = [[row.ratio - row.ratio_q1 for row in shown], [row.ratio_q3 - row.ratio for row in shown]]
        label = " ".join(map(str, case))
        axis.bar(places, [row.ratio for row in shown], 0.8 / len(cases), yerr=errors, label=label)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=7)
    _ratio(axis)


def _growth(axis: Axes, rows: Sequence[Row]) -> None:
    """Times the smallest case of each contestant."""
    for name in dict.fromkeys(row.contestant for row in rows):
        line = [row for row in rows if row.contestant == name]
        axis.plot([str(row.case["value"]) for row in line], [row.ratio for row in line], marker="o", label=name)
    axis.set_yscale("log", base=2)
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.5), max(high, 2.0))  # what does not grow must look as if it did not
    axis.yaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
    _ratio(axis)


def _ratio(axis: Axes) -> None:
    axis.axhline(1, color="grey", linewidth=0.8)
    axis.set_ylabel("ratio", fontsize=8)
    axis.legend(fontsize=6, ncols=2)
