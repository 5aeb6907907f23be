"""Time the two ways to compute the Monarch product against a LoRA of equal parameters, in alternation.

    python scripts/bench_product.py

Prints, per layer and shape, the median over pairs of the time of forward and backward, divided by the LoRA's.
``LOW_RANK_LIMIT`` in ``morenas/monarch/multiply.py`` was read off it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from morenas.monarch import Link, block_sizes
from morenas.monarch.multiply import grouped_product, low_rank_product

LAYERS = [(384, 384), (384, 1536), (1536, 384), (768, 768)]
SHAPES = [(1, 2), (4, 1), (4, 4), (8, 2), (16, 1), (16, 2), (16, 4), (16, 8)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--pairs", type=int, default=15, help="measurements of each")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'n -> m':>14} {'N':>3} {'r':>3} {'grouped':>8} {'low-rank':>8}   (LoRA of equal parameters = 1)")
    for layer in LAYERS:
        for shape in SHAPES:
            grouped, low_rank = ratios(layer, shape, arguments.tokens, arguments.pairs)
            print(
                f"{layer[0]:>6} -> {layer[1]:<4} {shape[0]:>3} {shape[1]:>3} {grouped:8.2f} {low_rank:8.2f}", flush=True
            )


def ratios(layer: tuple[int, int], shape: tuple[int, int], tokens: int, pairs: int) -> tuple[float, float]:
    """Medians of grouped over LoRA and of low-rank over LoRA."""
    (in_features, out_features), (nblocks, blk_r) = layer, shape
    width, height = block_sizes(in_features, out_features, nblocks)
    x = torch.randn(tokens, in_features, requires_grad=True)
    first = torch.randn(nblocks, blk_r, width, requires_grad=True)
    second = torch.randn(nblocks, height, blk_r, requires_grad=True)
    a = torch.randn(blk_r, in_features, requires_grad=True)
    b = torch.randn(out_features, blk_r, requires_grad=True)
    ways: list[Callable[[], Tensor]] = [
        lambda: x @ a.T @ b.T,
        lambda: grouped_product(x, first, second, Link.CYCLIC, out_features),
        lambda: low_rank_product(x, first, second, Link.CYCLIC, out_features),
    ]
    times = [[seconds(way) for way in ways] for _ in range(pairs + 2)][2:]
    lora_grouped = [grouped / lora for lora, grouped, _ in times]
    lora_low_rank = [low_rank / lora for lora, _, low_rank in times]
    return statistics.median(lora_grouped), statistics.median(lora_low_rank)


def seconds(way: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    way().sum().backward()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
