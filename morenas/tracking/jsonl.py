"""Metrics as JSON lines: the record of a run, of which dashboards show copies."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from morenas.base.files import finite, parse_json, write_text, writing
from morenas.tracking.tracker import Tracker


class JsonLines(Tracker):
    """Writes ``<run dir>/<phase>/metrics.jsonl``, one object a step, flushed line by line.

    Architecture, results and adapter have files of their own in the run directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, TextIO] = {}

    def start(self, phase: str, done: int) -> None:
        """Begin a phase, or go on after ``done`` steps: later lines, of a run that was stopped, are dropped."""
        path = self.directory / phase / "metrics.jsonl"
        if path.exists():
            write_text(path, "".join(line for line, step in _whole_lines(path) if step <= done))
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._close(phase)
            self._files[phase] = path.open("a", encoding="utf-8")

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line."""
        file = self._files[phase]
        with writing(Path(file.name)):
            file.write(json.dumps(finite({"step": step, **metrics}), allow_nan=False) + "\n")
            file.flush()

    def close(self, failed: bool) -> None:
        """Close all files."""
        for phase in list(self._files):
            with contextlib.suppress(OSError):  # the line that could not be written is tried once more, in vain
                self._close(phase)

    def _close(self, phase: str) -> None:
        if phase in self._files:
            self._files.pop(phase).close()


def _whole_lines(path: Path) -> Iterator[tuple[str, int]]:
    """Complete lines and their steps; a run that was killed may have left part of one."""
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with contextlib.suppress(ValueError):
            row = parse_json(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                yield f"{line}\n", row["step"]
