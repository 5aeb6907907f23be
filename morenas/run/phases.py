"""Seconds, steps and peak memory of each phase of a run."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from morenas.base.errors import InputError
from morenas.base.files import Kinds, check_fields, read_json, write_json

SAVE_EVERY = 5.0  # seconds
KINDS: dict[str, Kinds] = {
    "name": str,
    "seconds": (int, float),
    "steps": int,
    "peak_memory_bytes": (int, type(None)),
    "memory_over_model_bytes": (int, type(None)),
}
"""Types of what a phase measured, in its file."""


@dataclass
class Phase:
    """What a phase took so far, interruptions added up.

    Memory in bytes, of the GPU in use, else of the process: its peak, and that less what was in use when the phase
    began, the frozen model among it.
    """

    name: str
    seconds: float = 0.0
    steps: int = 0
    peak_memory_bytes: int | None = None
    memory_over_model_bytes: int | None = None


def read_phases(path: Path) -> list[Phase]:
    """Read what was measured before.

    Raises:
        InputError: If the file is not what a run wrote.
    """
    saved = read_json(path, "phase measurements")
    names = {one.name for one in fields(Phase)}
    if not isinstance(saved, list) or not all(isinstance(row, dict) and set(row) <= names for row in saved):
        raise InputError(f"{path}: holds no phase measurements; restore it, or begin a new run.")
    for row in saved:
        check_fields({**asdict(Phase("")), **row, "name": row.get("name")}, KINDS, f"{path}: the phase measurements")
    return [Phase(**row) for row in saved]


class Meter:
    """Measures phases; kept in a file, so that a resumed run adds to what was measured before it stopped."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.path, self.device = path, device
        self._measure: Callable[[], None] | None = None
        self._saved_at = 0.0
        self.phases = {phase.name: phase for phase in read_phases(path)} if path.exists() else {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """Measure what is done inside as (more of) phase ``name``.

        Trainers and searches are reference cycles: what the phase before left of them is freed first, or its memory
        would be this one's.
        """
        gc.collect()
        phase = self.phases.setdefault(name, Phase(name))
        before, began = phase.seconds, time.perf_counter()
        reset_peak_memory(self.device)
        held = memory_in_use(self.device)

        def measure() -> None:
            phase.seconds = before + time.perf_counter() - began
            peak = peak_memory(self.device)
            phase.peak_memory_bytes = max(phase.peak_memory_bytes or 0, peak)
            phase.memory_over_model_bytes = max(phase.memory_over_model_bytes or 0, peak - held)
            self.save()

        self._measure = measure
        try:
            yield phase
        except BaseException:
            with contextlib.suppress(OSError):  # what went wrong first is what is told
                measure()
            raise
        finally:
            self._measure = None
        measure()

    def beat(self) -> None:
        """Write what the phase has taken so far, at most every ``SAVE_EVERY`` seconds: a kill must not lose it."""
        if self._measure is not None and time.perf_counter() - self._saved_at >= SAVE_EVERY:
            self._measure()

    def save(self) -> None:
        """Write what was measured."""
        write_json(self.path, self.rows())
        self._saved_at = time.perf_counter()

    def rows(self) -> list[dict[str, Any]]:
        """One object per phase, in the order they began."""
        return [asdict(phase) for phase in self.phases.values()]


def reset_peak_memory(device: str) -> None:
    """Begin a new measurement of peak memory, where the platform allows it."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        # Linux: writing 5 resets the process's high-water mark; elsewhere the mark is that of the whole process.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: str) -> int:
    """Peak memory since the last reset, in bytes."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return _of_process("VmHWM")


def memory_in_use(device: str) -> int:
    """Memory in use now, in bytes."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.memory_allocated(device))
    return _of_process("VmRSS")


def _of_process(line: str) -> int:
    """A line of Linux' report on the process; elsewhere its high-water mark, whatever was asked for."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(one for one in lines if one.startswith(line)).split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
