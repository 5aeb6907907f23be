"""Pictures of architectures and searches, for dashboards and the report."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image


def architecture_figure(shapes: Mapping[str, tuple[int, int]]) -> Figure:
    """A heat map: one row per depth, one column per kind of layer; colour is the rank, the number is N.

    Args:
        shapes: Module name to ``(nblocks, blk_r)``; modules without an adapter are blank.
    """
    depths, kinds, cells = _grid(shapes)
    figure = Figure(figsize=(2.2 + 1.0 * max(1, len(kinds)), 1.6 + 0.32 * max(1, len(depths))), layout="constrained")
    axes = figure.add_subplot()
    ranks = np.full((len(depths), len(kinds)), np.nan)
    for (row, column), (_, blk_r) in cells.items():
        ranks[row, column] = blk_r
    most = max([blk_r for _, blk_r in shapes.values()], default=1)
    picture = axes.imshow(ranks, cmap="YlGnBu", vmin=0, vmax=most, aspect="auto")
    for (row, column), (nblocks, blk_r) in cells.items():
        axes.text(
            column,
            row,
            f"N {nblocks}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if blk_r > most / 2 else "black",
        )
    axes.set_xticks(range(len(kinds)), [kind or "-" for kind in kinds], rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(depths)), depths, fontsize=8)
    axes.set_ylabel("depth")
    axes.set_title("Found adapters: block rank r (colour) and block count N", fontsize=10)
    figure.colorbar(picture, ax=axes, label="r", ticks=sorted({blk_r for _, blk_r in shapes.values()}))
    return figure


def _grid(shapes: Mapping[str, tuple[int, int]]) -> tuple[list[str], list[str], dict[tuple[int, int], tuple[int, int]]]:
    """Place modules by depth (the first number in the name) and kind (what follows it)."""
    places = {}
    for name in shapes:
        before, depth, after = _parts(name)
        places[name] = (depth, after if depth != "-" else before)
    depths = sorted({depth for depth, _ in places.values()}, key=lambda d: (d == "-", int(d) if d != "-" else 0))
    kinds = list(dict.fromkeys(kind for _, kind in places.values()))
    cells = {(depths.index(depth), kinds.index(kind)): shapes[name] for name, (depth, kind) in places.items()}
    return depths, kinds, cells


def _parts(name: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"(?P<before>.*?)\.?(?<![^.])(?P<depth>\d+)\.(?P<after>.*)", name)
    return (match["before"], match["depth"], match["after"]) if match else (name, "-", "")


def probabilities_figure(probs: NDArray[Any], groups: Sequence[str], choices: Sequence[str]) -> Figure:
    """Mixing probabilities ``(groups, choices)`` as a heat map."""
    figure = Figure(figsize=(1.8 + 0.3 * len(choices), 1.4 + 0.2 * len(groups)), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(probs, cmap="Blues", vmin=0, vmax=max(0.05, float(probs.max())), aspect="auto")
    axes.set_xticks(range(len(choices)), choices, rotation=90, fontsize=7)
    axes.set_yticks(range(len(groups)), groups, fontsize=6)
    axes.set_title("Final mixing probabilities", fontsize=10)
    figure.colorbar(picture, ax=axes)
    return figure


def curves_figure(
    lines: Sequence[Mapping[str, float]], panels: Mapping[str, Sequence[str]], marks: Mapping[str, float]
) -> Figure:
    """Metrics over steps.

    Args:
        lines: One mapping per step, with ``step``.
        panels: Title to the metrics drawn under it.
        marks: Title to a height marked by a dashed line.
    """
    figure = Figure(figsize=(3.2 * len(panels), 2.6), layout="constrained")
    for axes, (title, keys) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        for key in keys:
            points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), linewidth=1, label=key.split("/")[-1])
        if title in marks:
            axes.axhline(marks[title], linestyle="--", color="gray", linewidth=1, label="budget")
            axes.set_ylim(0, 1.2 * marks[title])  # else rounding errors fill the panel
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    return figure


def picture(figure: Figure) -> Image.Image:
    """A figure as a picture, drawn without pyplot's global state."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return Image.open(buffer)
