"""The trackers of a run, called together; an error of a dashboard does not stop the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from morenas.base.errors import InputError, one_line
from morenas.base.registry import registry
from morenas.tracking.jsonl import JsonLines
from morenas.tracking.observer import Observer
from morenas.tracking.tracker import METHODS, Local, TrackedRun, Tracker


class Trackers:
    """The run's own record and other trackers, called together.

    They are opened when there is something to tell them: a run that is refused before it begins to train leaves nothing
    on a dashboard. An error of the record ends the run. A tracker that fails is reported once and not called again.

    Attributes:
        run: What they follow.
        record: The JSON lines.
        others: Trackers that have not failed.
        notify: Shows a message to the user.
    """

    def __init__(
        self, run: TrackedRun, record: Tracker, others: Sequence[Tracker], notify: Callable[[str], None] = print
    ) -> None:
        self.run, self.record, self.others, self.notify = run, record, list(others), notify
        self._opened = False

    def open(self) -> None:
        """Open them, unless they are open."""
        if not self._opened:
            self._opened = True
            self._each(lambda tracker: tracker.open(self.run))

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
        if self._opened:
            self._each(lambda tracker: tracker.close(failed))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        self.open()
        call(self.record)
        for tracker in list(self.others):
            try:
                call(tracker)
            except Exception as error:
                self.others.remove(tracker)
                self.notify(f"{type(tracker).__name__} failed ({one_line(error)}); the run goes on without it.")


class TrackedObserver:
    """An observer that also hands metrics to the trackers, and calls ``beat`` at every step."""

    def __init__(self, shown: Observer, trackers: Trackers, beat: Callable[[], None] = lambda: None) -> None:
        self.shown, self.trackers, self.beat = shown, trackers, beat
        trackers.notify = shown.message

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


def build_trackers(run: TrackedRun, tracker: Any = "local", **settings: Any) -> Trackers:
    """The run's own record, JSON lines, and the tracker that is chosen.

    Args:
        run: What the trackers follow.
        tracker: Name of a registered tracker, ``"package.module:Name"`` of another, or a tracker itself.
        settings: The tracker's own, where it is named.
    Raises:
        InputError: If there is no such tracker, it has no such setting, it needs a package that is not installed, or
            it is no tracker.
    """
    built = registry("tracker").build(tracker, **settings)
    if lacking := [name for name in METHODS if not callable(getattr(built, name, None))]:
        raise InputError(
            f"tracking={tracker}: has no {', '.join(lacking)}; a tracker is a subclass of morenas.tracking.Tracker, or "
            f"has its methods: {', '.join(METHODS)}."
        )
    return Trackers(run, JsonLines(run.directory), [] if isinstance(built, Local) else [built])
