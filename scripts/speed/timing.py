"""Time callables in alternation, so that what slows the machine down for a while slows all of them alike."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping

import torch

WARM_UPS = 2


def alternate(
    contestants: Mapping[str, Callable[[], object]], pairs: int, seed: int = 0, device: str = "cpu"
) -> dict[str, list[float]]:
    """Milliseconds of every contestant in every round.

    Each is called ``WARM_UPS`` times unmeasured; then in every one of ``pairs`` rounds each is called once, in an
    order shuffled anew. Times of one round belong together.
    """
    order, shuffle = list(contestants), random.Random(seed).shuffle
    times: dict[str, list[float]] = {name: [] for name in contestants}
    with _uncollected():
        for name in order:
            for _ in range(WARM_UPS):
                milliseconds(contestants[name], device)
        for _ in range(pairs):
            shuffle(order)
            for name in order:
                times[name].append(milliseconds(contestants[name], device))
    return times


def milliseconds(call: Callable[[], object], device: str = "cpu") -> float:
    """How long a call takes, the device's work included."""
    _finish(device)
    began = time.perf_counter()
    call()
    _finish(device)
    return (time.perf_counter() - began) * 1e3


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection inside: it would fall on whichever contestant runs just then."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
