"""Metrics as JSON lines: the source of truth beside which every dashboard is a copy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from morenas.base.files import write_text


class JsonLines:
    """Writes ``<run dir>/<phase>/metrics.jsonl``, one object a step, flushed line by line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, TextIO] = {}

    def start(self, phase: str, done: int) -> None:
        """Begin a phase, or go on after ``done`` steps: later lines, of a run that was stopped, are dropped."""
        path = self.directory / phase / "metrics.jsonl"
        if path.exists():
            write_text(path, "".join(line for line in _whole_lines(path) if json.loads(line)["step"] <= done))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._close(phase)
        self._files[phase] = path.open("a", encoding="utf-8")

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line."""
        file = self._files[phase]
        file.write(json.dumps({"step": step, **metrics}) + "\n")
        file.flush()

    def architecture(self, architecture: Any) -> None:
        """The architecture has a file of its own."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Results have a file of their own."""

    def artifact(self, path: Path, kind: str) -> None:
        """Files stay where they are."""

    def close(self, failed: bool) -> None:
        """Close all files."""
        for phase in list(self._files):
            self._close(phase)

    def _close(self, phase: str) -> None:
        if phase in self._files:
            self._files.pop(phase).close()


def _whole_lines(path: Path) -> list[str]:
    """Lines that were written to their end."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        with contextlib.suppress(ValueError):
            json.loads(line)
            lines.append(line)
    return lines
