"""A tracker that writes a line for everything it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morenas.tracking.tracker import TrackedRun, Tracker


@dataclass
class Lines(Tracker):
    """Lines of text.

    Attributes:
        file: Name of the file in the tracker's folder.
    """

    file: str = "lines.txt"

    def open(self, run: TrackedRun) -> None:
        folder = run.directory / "lines"
        folder.mkdir(exist_ok=True)
        self.path = folder / self.file
        self.write(f"open {run.name}")

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        self.write(f"{phase} {step} {' '.join(metrics)}")

    def summary(self, values: Mapping[str, Any]) -> None:
        self.write(f"metric {values['metric']}")

    def artifact(self, path: Path, kind: str) -> None:
        self.write(f"{kind} {path.name}")

    def close(self, failed: bool) -> None:
        self.write("failed" if failed else "done")

    def write(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(line + "\n")
