"""The picture of a bench's table: regret of every method, and what its search had found after so much."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from morenas.base.files import write_bytes
from morenas.benchmark.report import ALL, HARD

MARKERS = "osD^vP*X"
OURS = "#c0392b"
SMALL = 0.01
"""Regrets below are drawn on a linear scale, those above on a logarithmic one."""
TICKS = (-1, -0.1, -0.01, 0, 0.01, 0.05, 0.2, 0.5, 1, 2, 5, 10, 100)
SPENT = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def draw(path: str | Path, document: dict[str, Any], table: str) -> None:
    """Write a PNG of one table of ``report.summarize``'s document; the same bytes for the same document."""
    found, ours = document["tables"][table], document["ours"]
    methods = list(found["groups"][ALL]["methods"])
    figure = Figure(figsize=(11, 1.6 + 0.34 * max(8, len(methods))), layout="constrained")
    if found["curves"]:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _anytime(right, found["curves"], ours, methods)
    else:
        left = figure.subplots()
    _dots(left, found["groups"], methods, ours)
    figure.suptitle(f"{table}: normalized regret, mean and 95 % interval", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png", metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _dots(axis: Axes, groups: dict[str, Any], methods: list[str], ours: str) -> None:
    """A line per method, best on top; in it a dot per family."""
    families = [name for name in groups if name not in (ALL, HARD)]
    if ours in methods:
        axis.axhspan(methods.index(ours) - 0.5, methods.index(ours) + 0.5, color=OURS, alpha=0.12, linewidth=0)
    for number, family in enumerate(families):
        shown = [name for name in methods if name in groups[family]["methods"]]
        figures = [groups[family]["methods"][name]["regret"] for name in shown]
        offset = 0.7 * ((number + 0.5) / len(families) - 0.5)
        means = [figure["mean"] for figure in figures]
        axis.errorbar(
            means,
            [methods.index(name) + offset for name in shown],
            xerr=[_lengths(figures, "low"), _lengths(figures, "high")],
            fmt=MARKERS[number % len(MARKERS)],
            color=_color(number),
            markersize=4,
            elinewidth=1,
            label=family,
        )
    axis.set_yticks(range(len(methods)), methods, fontsize=9)
    for label, name in zip(axis.get_yticklabels(), methods, strict=True):
        label.set_fontweight("bold" if name == ours else "normal")
    axis.set_ylim(len(methods) - 0.5, -0.5)
    _regrets(axis, "x")
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=5, frameon=False)


def _lengths(figures: list[dict[str, float]], end: str) -> list[float]:
    """Of one side of the intervals; never negative, whatever rounding did."""
    return [max(0.0, abs(figure[end] - figure["mean"])) for figure in figures]


def _anytime(axis: Axes, curves: dict[str, Any], ours: str, methods: list[str]) -> None:
    """A step line with a band per method, in the order of the dots; ours on top of the others."""
    for number, name in enumerate(name for name in methods if name in curves):
        curve, mine = curves[name], name == ours
        color = OURS if mine else _color(number)
        axis.step(
            curve["trainings"],
            curve["mean"],
            where="post",
            color=color,
            linewidth=2.2 if mine else 1.1,
            zorder=3 if mine else 2,
            marker="o" if len(curve["trainings"]) == 1 else None,
            label=name,
        )
        axis.fill_between(
            curve["trainings"], curve["low"], curve["high"], step="post", color=color, alpha=0.15, linewidth=0
        )
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    _ticks(axis.xaxis, SPENT, low, high)
    axis.set_xlabel("spent on the search, trainings alone", fontsize=9)
    _regrets(axis, "y")
    axis.legend(fontsize=7, ncols=2)


def _regrets(axis: Axes, along: str) -> None:
    """The scale of regrets, with lines at the best there is and at the mean random architecture."""
    line, scale = (axis.axvline, axis.set_xscale) if along == "x" else (axis.axhline, axis.set_yscale)
    scale("symlog", linthresh=SMALL)
    low, high = axis.dataLim.intervalx if along == "x" else axis.dataLim.intervaly
    low, high = min(1.2 * low, -SMALL / 5), max(1.2 * high, 1.2)
    (axis.set_xlim if along == "x" else axis.set_ylim)(low, high)
    _ticks(axis.xaxis if along == "x" else axis.yaxis, TICKS, low, high)
    for place in (0, 1):
        line(place, color="grey", linewidth=0.8, zorder=1)


def _ticks(axis: Axis, places: Sequence[float], low: float, high: float) -> None:
    shown = [place for place in places if low <= place <= high]
    axis.set_ticks(shown, [f"{place:g}" for place in shown], fontsize=8)
    axis.set_minor_locator(NullLocator())


def _color(number: int) -> str:
    """Of the usual colours, those that are not ours."""
    return f"C{(number + (number >= 3)) % 10}"
