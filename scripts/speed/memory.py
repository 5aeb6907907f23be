"""Peak memory of a step, in a process of its own: what ran before must not lend it freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from morenas.run.phases import peak_memory, reset_peak_memory
from speed.rows import MEMORY, Case, Row, compared
from speed.settings import Bench

STEPS = 2  # the second one has the optimizer's state to stand beside
PRELOADED = ["peft", "transformers", "morenas.finetune", "morenas.supernet", "matplotlib.figure", "rich.console"]


def peak_of(build: Callable[..., Callable[[], object]], bench: Bench, *arguments: Any) -> int:
    """Bytes by which memory rose above what stood before the first step.

    On a CPU some 15 MiB of it are the libraries' own, loaded in a first step whatever it computes.

    Args:
        build: Of a module, so that another process finds it; ``build(bench, *arguments)`` returns the step.
    """
    # Children of a server that has imported the libraries and computed nothing start in a fraction of a second.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, build, bench, *arguments).result()


def remembered(
    section: str,
    case: Case,
    names: Sequence[str],
    references: Sequence[str],
    build: Callable[..., Callable[[], object]],
    bench: Bench,
    *arguments: Any,
) -> list[Row]:
    """Compare the peaks of contestants: ``build(bench, *arguments, name)`` returns the step of one."""
    taking_part = names[:2] if bench.quick else names
    peaks = {name: [float(peak_of(build, bench, *arguments, name))] for name in taking_part}
    return compared(section, case, MEMORY, peaks, references)


def _measure(build: Callable[..., Callable[[], object]], bench: Bench, *arguments: Any) -> int:
    torch.set_num_threads(bench.threads)
    step = build(bench, *arguments)
    _give_back()
    reset_peak_memory(bench.device)
    before = peak_memory(bench.device)
    for _ in range(STEPS):
        step()
    return max(1, peak_memory(bench.device) - before)


def _give_back() -> None:
    """Give freed memory back to the system, or the step would be served from it unseen."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
