"""Peak memory of the search's steps beside that of a LoRA r = 8 step, in BERTs of several widths.

    python experiments/memory/by_width.py

Every peak is taken in a process of its own, above what stood before the first step: the frozen model is not counted.
Two layers, batches of 32 x 64 tokens, the default search space. A minute or two of one core.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import torch
from speed.memory import peak_of
from speed.settings import Bench
from speed.subjects import bert, loss_of, training_step
from speed.supernets import SupernetSteps

from morenas.finetune.methods import Lora
from morenas.search.requests import SpaceSettings
from morenas.search.start import SPECTRUM_BATCHES
from morenas.supernet.spectrum import sample_layers, spectrum

WIDTHS = (64, 128, 256, 384, 768)
STEPS = ("lora r=8", "open", "start", "architecture", "drawn")
SPACE = SpaceSettings()


def build(bench: Bench, width: int, name: str) -> Callable[[], None]:
    """A step: LoRA's, the open supernet's, a spectral start, the gradient of a mixture, or that of one architecture."""
    torch.manual_seed(bench.seed)
    model = bert(2, width, width // 32)
    batch = model.batch(32, 64, bench)
    if name == "lora r=8":
        return training_step(model.adapted(Lora(rank=8), bench.seed), batch, bench)
    steps = SupernetSteps(model, (SPACE.nblocks, SPACE.ranks), "per_nblocks", batch, bench)
    if name == "architecture":
        return steps.upper
    if name == "start":
        losses = [partial(loss_of, steps.model, batch, bench)] * SPECTRUM_BATCHES
        steps.supernet.open()
        steps.model.eval()
        return lambda: spectrum(steps.supernet, sample_layers(steps.supernet.layers, losses)) and None
    rank = max(rank for rank in SPACE.ranks if rank <= 4)
    drawn = {module: (1, rank) for module in model.targets()}

    def step() -> None:
        if name == "open":
            steps.supernet.open()
        else:
            steps.supernet.draw(drawn)
        steps.model.train()
        loss_of(steps.model, batch, bench).backward()
        steps.optimizer.step()
        steps.optimizer.zero_grad()

    return step


def main() -> None:
    """Print a table."""
    bench = Bench(threads=1)
    print("| width | " + " | ".join(STEPS) + " |\n|---:|" + "---:|" * len(STEPS))
    for width in WIDTHS:
        peaks = {name: peak_of(build, bench, width, name) for name in STEPS}
        ratios = [f"{peaks[name] / peaks[STEPS[0]]:.2f}" for name in STEPS[1:]]
        print(f"| {width} | {peaks[STEPS[0]] / 2**20:.0f} MiB | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
