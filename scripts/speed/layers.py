"""Single layers: every adapter around a frozen linear layer, and the products alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from speed.contestants import Applied, Layer, alone, as_used, tensors
from speed.memory import remembered
from speed.rows import BOTH, FORWARD, Row, timed
from speed.settings import Bench

SECTION, LARGE_SECTION = "layers", "large"
LARGEST = 2048 * 4096
"""Numbers in the largest activation that is measured: 32 MiB in float32, of which some contestants keep several."""
KINDS = {"as used": ("lora", "published"), "alone": ("alone/lora", "alone/published")}
"""Layers with their frozen part, and products alone: what each kind is compared with."""
REMEMBERED = [Layer(768, 768, 2048), Layer(768, 3072, 2048), Layer(2048, 2048, 2048)]
"""Whose memory is measured."""
LARGE_WORK = 2048 * 4096 * 4096
"""Multiplications of the frozen layer in the largest case of the section of large layers."""
FEW = ("base", "lora", "more", "published")
"""Who takes part there; with N r above 16 also the ways of our product."""
QUICK = [Layer(64, 64, 128), Layer(64, 256, 128, 16, 4)]


def run(bench: Bench) -> Iterator[Row]:
    """Time every layer, then measure the memory of a few."""
    for layer in QUICK if bench.quick else grid():
        for kind in KINDS:
            yield from times(bench, layer, kind, SECTION, contestants(bench, layer, kind))
    for layer in QUICK[:1] if bench.quick else REMEMBERED:
        for kind in KINDS:
            yield from peaks(bench, layer, kind)


def run_large(bench: Bench) -> Iterator[Row]:
    """Time layers whose activations or widths are too large to time everybody on; no memory."""
    for layer in QUICK[1:] if bench.quick else large_grid():
        for kind in KINDS:
            everyone = contestants(bench, layer, kind)
            ways = len(everyone) if layer.nblocks > 4 else 0
            few = {name: one for name, one in everyone.items() if name.removeprefix("alone/") in FEW or ways}
            few = {name: one for name, one in few.items() if name not in ("gralora", "boft")}
            yield from times(bench, layer, kind, LARGE_SECTION, few)


def large_grid() -> list[Layer]:
    """What ``grid`` leaves out: wide layers and many tokens, as far as ``LARGE_WORK`` goes, and larger N among them."""
    widths, tokens = (768, 1024, 2048, 4096), (512, 2048, 8192)
    shapes = [(n, m) for w in widths for n, m in ((w, w), (w, 4 * w), (4 * w, w))]
    every = [Layer(*shape, count) for shape in shapes for count in tokens]
    left = [layer for layer in every if layer not in grid() and layer.n * layer.m * layer.tokens <= LARGE_WORK]
    return left + [Layer(1024, 1024, 8192, nblocks, 4) for nblocks in (8, 16)] + [Layer(1024, 1024, 8192, 16, 8)]


def grid() -> list[Layer]:
    """Every width at every number of tokens with N = 4, and N from 1 to 16 at some."""
    widths, tokens = (384, 768, 1024, 2048, 4096), (512, 2048, 8192)
    shapes = [(n, m) for w in widths for n, m in ((w, w), (w, 4 * w), (4 * w, w)) if max(n, m) <= 4096]
    some = ((384, 384), (768, 768), (768, 3072), (3072, 768), (2048, 2048))
    main = [Layer(*shape, count, 4, blk_r) for shape in shapes for count in tokens for blk_r in (4, 8)]
    other = [Layer(*shape, 2048, nblocks, 4) for shape in some for nblocks in (1, 2, 8, 16)]
    return [layer for layer in main + other if layer.tokens * max(layer.n, layer.m) <= LARGEST]


def times(bench: Bench, layer: Layer, kind: str, section: str, everyone: Mapping[str, Applied]) -> list[Row]:
    """Forward, and forward and backward."""
    x, upstream = tensors(bench, layer)
    forward = {name: partial(one.forward, x) for name, one in everyone.items()}
    both = {name: partial(one.both, x, upstream) for name, one in everyone.items()}
    return [
        *timed(section, layer.case(), FORWARD, forward, KINDS[kind], bench),
        *timed(section, layer.case(), BOTH, both, KINDS[kind], bench),
    ]


def peaks(bench: Bench, layer: Layer, kind: str) -> list[Row]:
    """Peak memory of forward and backward, each in a process of its own."""
    names = list(contestants(bench, layer, kind))
    return remembered(SECTION, layer.case(), names, KINDS[kind], build, bench, layer, kind)


def build(bench: Bench, layer: Layer, kind: str, name: str) -> Callable[[], object]:
    """Forward and backward of one contestant."""
    return partial(contestants(bench, layer, kind)[name].both, *tensors(bench, layer))


def contestants(bench: Bench, layer: Layer, kind: str) -> dict[str, Applied]:
    """Everybody of one kind."""
    return as_used(bench, layer) if kind == "as used" else alone(bench, layer)
