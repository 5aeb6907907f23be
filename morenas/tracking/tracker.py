"""The interface of a tracker: it takes the metrics of a run as they come, and its results at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker follows.

    Attributes:
        directory: Run directory; a tracker keeps files of its own in a folder there that has the tracker's name.
        name: Short name for dashboards: task, model, budget and seed.
        config: The resolved configuration, as plain nested values.
        command: "search" or "finetune".
    """

    directory: Path
    name: str
    config: Mapping[str, Any]
    command: str


class Tracker:
    """Takes what a run measures. The methods here do nothing; a tracker overrides those it needs.

    A tracker is a dataclass whose fields are its own settings; it gets the run by ``open``. None can stop a run: one
    that fails is left out from then on.
    """

    def open(self, run: TrackedRun) -> None:
        """The run begins, or goes on."""

    def start(self, phase: str, done: int) -> None:
        """A phase begins, or goes on after ``done`` steps."""

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of a step; their names begin with the phase, whose own steps are counted."""

    def architecture(self, architecture: Any) -> None:
        """What was found, a ``morenas.space.Architecture``."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Scalars that runs are compared by."""

    def artifact(self, path: Path, kind: str) -> None:
        """A file or folder to store with the run."""

    def close(self, failed: bool) -> None:
        """The run is over."""


METHODS = ("open", "start", "log", "architecture", "summary", "artifact", "close")


@dataclass
class Local(Tracker):
    """No dashboard: only the JSON lines and the report that every run writes."""
