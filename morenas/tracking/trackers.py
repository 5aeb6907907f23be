"""Where metrics go: every tracker behind one protocol, none of which can stop a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from morenas.tracking.jsonl import JsonLines
from morenas.tracking.observer import Observer


class Tracker(Protocol):
    """Takes what a run tells."""

    def start(self, phase: str, done: int) -> None:
        """A phase begins, or goes on after ``done`` steps."""

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of a step; their names begin with the phase."""

    def architecture(self, architecture: Any) -> None:
        """What was found, a ``morenas.space.Architecture``."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Scalars that runs are compared by."""

    def artifact(self, path: Path, kind: str) -> None:
        """A file or folder worth keeping."""

    def close(self, failed: bool) -> None:
        """The run is over."""


class Trackers:
    """Several trackers as one.

    The first is the run's own record and may fail the run; any of the others that fails says so once and is left out
    from then on.
    """

    def __init__(self, record: Tracker, others: Sequence[Tracker], tell: Callable[[str], None] = print) -> None:
        self.record, self.others, self.tell = record, list(others), tell

    def start(self, phase: str, done: int) -> None:
        self._each(lambda tracker: tracker.start(phase, done))

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.log(phase, step, metrics))

    def architecture(self, architecture: Any) -> None:
        self._each(lambda tracker: tracker.architecture(architecture))

    def summary(self, values: Mapping[str, Any]) -> None:
        self._each(lambda tracker: tracker.summary(values))

    def artifact(self, path: Path, kind: str) -> None:
        self._each(lambda tracker: tracker.artifact(path, kind))

    def close(self, failed: bool) -> None:
        self._each(lambda tracker: tracker.close(failed))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        call(self.record)
        for tracker in list(self.others):
            try:
                call(tracker)
            except Exception as error:
                self.others.remove(tracker)
                reason = (str(error).splitlines() or [""])[0]
                self.tell(
                    f"{type(tracker).__name__} failed ({type(error).__name__}: {reason}); the run goes on without it."
                )


class TrackedObserver:
    """An observer that also hands metrics to the trackers, and calls ``beat`` at every step."""

    def __init__(self, shown: Observer, trackers: Trackers, beat: Callable[[], None] = lambda: None) -> None:
        self.shown, self.trackers, self.beat = shown, trackers, beat
        trackers.tell = shown.message

    def start(self, phase: str, total_steps: int, done: int = 0) -> None:
        self.trackers.start(phase, done)
        self.shown.start(phase, total_steps, done)

    def step(self, phase: str, step: int, metrics: Mapping[str, float] | None = None) -> None:
        if metrics:
            self.trackers.log(phase, step, metrics)
        self.beat()
        self.shown.step(phase, step, metrics)

    def message(self, text: str) -> None:
        self.shown.message(text)

    def finish(self, phase: str) -> None:
        self.shown.finish(phase)


def build_trackers(directory: Path, mode: str, **run: Any) -> Trackers:
    """JSON lines, and W&B unless ``mode`` is "disabled".

    Args:
        directory: Run directory.
        mode: As for ``WandbTracker``, or "disabled".
        run: Its other arguments.
    """
    record = JsonLines(directory)
    if mode == "disabled":
        return Trackers(record, [])
    from morenas.tracking.wandb import WandbTracker

    try:
        return Trackers(record, [WandbTracker(mode, directory, **run)])
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        print(f"W&B cannot be used ({type(error).__name__}: {reason}); the run goes on without it.")
        return Trackers(record, [])
