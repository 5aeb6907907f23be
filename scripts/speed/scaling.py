"""How cost grows along one axis at a time: beside the axis's smallest case, and beside LoRA at the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch

from morenas.finetune.methods import Lora
from speed.adapters import more, targets_of
from speed.contestants import Layer, adapted, frozen, tensors
from speed.rows import BOTH, STEP, Case, Row, row
from speed.settings import Bench
from speed.subjects import Subject, bert, training_step
from speed.supernets import Grid, SupernetSteps
from speed.timing import alternate

SECTION = "scaling"
SMALLEST, LORA = "smallest", "lora"
"""The references: a contestant's own first value on the axis, and LoRA at the same place."""

Place = int | str
Calls = Mapping[str, Callable[[], object]]
"""Who is timed at one place of an axis."""

START = Layer(1024, 1024, 2048, 4, 4)
AXES: dict[str, list[Layer]] = {
    "tokens": [replace(START, tokens=tokens) for tokens in (256, 512, 1024, 2048, 4096, 8192)],
    "width": [replace(START, n=width, m=width) for width in (128, 256, 512, 1024, 2048, 4096)],
    "N": [replace(START, nblocks=nblocks) for nblocks in (1, 2, 4, 8, 16, 32, 64)],
    "r": [replace(START, blk_r=blk_r) for blk_r in (1, 2, 4, 8, 16)],
}
QUICK_AXES: dict[str, list[Layer]] = {"tokens": [Layer(32, 32, 64), Layer(32, 32, 128)]}
GRIDS: dict[str, Grid] = {
    "2x2": ([1, 24], [0, 8]),
    "4x4": ([1, 4, 12, 24], [0, 2, 4, 8]),
    "6x6": ([1, 2, 4, 8, 12, 24], [0, 1, 2, 4, 6, 8]),
    "8x9": ([1, 2, 3, 4, 6, 8, 12, 24], range(9)),
}
"""Ever more candidates of one largest N and r."""
LAYERS = (1, 2, 4, 8)


def run(bench: Bench) -> Iterator[Row]:
    """Axes of a single layer, then of a supernet in a small BERT."""
    for axis, layers in (QUICK_AXES if bench.quick else AXES).items():
        key = "n" if axis == "width" else axis
        places: dict[Place, Calls] = {layer.case()[key]: layer_calls(bench, layer) for layer in layers}
        yield from along(bench, axis, BOTH, places)
    grids, depths = (list(GRIDS)[:2], LAYERS[:2]) if bench.quick else (list(GRIDS), LAYERS)
    model = small(bench, 2)
    yield from along(bench, "candidates", STEP, {name: search_calls(bench, model, GRIDS[name]) for name in grids})
    models = [small(bench, depth) for depth in depths]
    searches: dict[Place, Calls] = {len(model.targets()): search_calls(bench, model, GRIDS["8x9"]) for model in models}
    yield from along(bench, "modules", STEP, searches)


def along(bench: Bench, axis: str, measure: str, places: Mapping[Place, Calls]) -> list[Row]:
    """Time everybody at every place of an axis in alternation."""
    calls = {(name, place): call for place, calls in places.items() for name, call in calls.items()}
    labels = {f"{name} at {place}": (name, place) for name, place in calls}
    measured = alternate({label: calls[key] for label, key in labels.items()}, bench.pairs, bench.seed, bench.device)
    times = {key: measured[label] for label, key in labels.items()}
    first, rows = next(iter(places)), []
    for name, place in times:
        case: Case = {"axis": axis, "value": place}
        for reference, beside in ((SMALLEST, (name, first)), (LORA, (LORA, place))):
            rows.append(row(SECTION, case, measure, (name, reference), times[name, place], times[beside]))
    return rows


def layer_calls(bench: Bench, layer: Layer) -> Calls:
    """Our layer and LoRA's."""
    base, inputs = frozen(bench, layer), tensors(bench, layer)
    methods = {"more": more(targets_of(base), layer.nblocks, layer.blk_r), LORA: Lora(rank=layer.blk_r)}
    return {name: partial(adapted(bench, base, method).both, *inputs) for name, method in methods.items()}


def search_calls(bench: Bench, model: Subject, grid: Grid) -> Calls:
    """Both steps of a supernet, and a training step of LoRA."""
    batch = model.batch(8, 64, bench)
    steps = SupernetSteps(model, grid, "full", batch, bench)
    lora = training_step(model.adapted(Lora(rank=8), bench.seed), batch, bench)
    return {"lower": steps.lower, "upper": steps.upper, LORA: lora}


def small(bench: Bench, layers: int) -> Subject:
    """A BERT of width 128, random weights."""
    torch.manual_seed(bench.seed)
    return bert(layers, width=128, heads=4).on(bench.device)
