"""Draw the picture of the method in the README, from the algebra itself.

python scripts/draw_method.py --output docs/method.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from morenas.monarch import Link, to_lora

NBLOCKS, BLK_R, IN_FEATURES, OUT_FEATURES = 4, 2, 24, 16
COLOURS = ["#ffffff", "#3b6ea5", "#d98032", "#4f9d69", "#a8577e"]
STEPS = [
    ("train", "every (N, r) of every\nlinear layer, in one pass"),
    ("score", "what each (N, r) keeps,\nin closed form"),
    ("descend", "gradients move the\nbudget between layers"),
    ("train on", "what was found,\na PEFT adapter"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="SVG file to write")
    # Ids from a fixed salt and no date: the same program gives the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "morenas", "font.family": "DejaVu Sans"})
    draw().savefig(parser.parse_args().output, format="svg", metadata={"Date": None}, bbox_inches="tight")


def draw() -> Figure:
    """Two rows: the adapter as matrices, the search as steps."""
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=[2.4, 1])
    draw_adapter(figure.add_subfigure(rows[0]).subplots(1, 4, width_ratios=[1.5, 0.7, 1.5, 1.5]))
    draw_steps(figure.add_subfigure(rows[1]).subplots())
    return figure


def draw_adapter(axes: list[Axes]) -> None:
    """The frozen weight, and the adapter's two factors written as a LoRA pair, coloured by block."""
    a, b = coloured_factors()
    weight, second, first, product = axes
    weight.imshow(torch.full((OUT_FEATURES, IN_FEATURES), 0.25), cmap="Greys", vmin=0, vmax=1)
    weight.set_title("W, frozen", fontsize=10)
    paint(second, b, f"second\n{NBLOCKS} blocks, interleaved")
    paint(first, a, f"first\n{NBLOCKS} blocks of rank {BLK_R}")
    paint(product, support(a, b), f"second · first: rank {NBLOCKS * BLK_R}\nof {BLK_R} (n + m) parameters")
    for axis, sign in zip(axes, ("+", "·", "", ""), strict=True):
        axis.set_xticks([])
        axis.set_yticks([])
        axis.text(1.06, 0.5, sign, transform=axis.transAxes, fontsize=18, va="center", ha="center")


def coloured_factors() -> tuple[Tensor, Tensor]:
    """The LoRA pair of a Monarch matrix whose entries are the number of the input block that they belong to."""
    number = torch.arange(1.0, NBLOCKS + 1)
    first = number[:, None, None].expand(NBLOCKS, BLK_R, IN_FEATURES // NBLOCKS)
    a, b = to_lora(first, torch.ones(NBLOCKS, OUT_FEATURES // NBLOCKS, BLK_R), Link.CYCLIC, IN_FEATURES, OUT_FEATURES)
    return a, b * a.amax(dim=1)


def support(a: Tensor, b: Tensor) -> Tensor:
    """Which input block reaches each entry of the product, 0 for none."""
    reached = (b > 0).float() @ (a > 0).float()
    return torch.where(reached > 0, a.amax(dim=0), torch.zeros(()))


def paint(axis: Axes, matrix: Tensor, title: str) -> None:
    axis.imshow(matrix, cmap=ListedColormap(COLOURS), vmin=0, vmax=NBLOCKS, interpolation="nearest")
    axis.set_title(title, fontsize=10)


def draw_steps(axis: Axes) -> None:
    """The four steps of a search, as boxes."""
    axis.set_axis_off()
    axis.set_xlim(0, len(STEPS))
    axis.set_ylim(0, 1)
    style = {"boxstyle": "round,pad=0.5", "facecolor": "#f4f6f8", "edgecolor": "#8899aa"}
    for index, (name, words) in enumerate(STEPS):
        axis.text(index + 0.45, 0.5, f"{name}\n{words}", ha="center", va="center", fontsize=9, bbox=style)
        if index:
            arrow = {"arrowstyle": "->", "color": "#556677"}
            axis.annotate("", (index + 0.04, 0.5), (index - 0.14, 0.5), arrowprops=arrow)


if __name__ == "__main__":
    main()
