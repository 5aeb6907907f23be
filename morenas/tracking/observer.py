"""What a person sees while a run goes on: the phase, how far it is, and the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY = 10.0  # seconds between progress lines where there is no terminal


class Observer(Protocol):
    """Is called at every phase and step of a run.

    One that has the method of ``MixtureObserver`` too can watch the architecture of a search as it forms.
    """

    def start(self, phase: str, total_steps: int, done: int = 0) -> None:
        """A phase begins, or goes on after ``done`` steps."""

    def step(self, phase: str, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """``step`` steps of the phase are done."""

    def message(self, text: str) -> None:
        """A message for the user."""

    def finish(self, phase: str) -> None:
        """The phase is over."""


@runtime_checkable
class MixtureObserver(Protocol):
    """An observer that asks for the probabilities of a search; for others they are not even put together."""

    def mixture(self, step: int, probs: Mapping[str, Mapping[str, float]]) -> None:
        """The candidates' probabilities after ``step`` steps, under the budget, and once more when the start of a
        search has set them: group to choice ("none", "N4r2") to probability."""


class NullObserver:
    """Shows nothing."""

    def start(self, phase: str, total_steps: int, done: int = 0) -> None: ...

    def step(self, phase: str, step: int, metrics: Mapping[str, float] | None = None) -> None: ...

    def message(self, text: str) -> None: ...

    def finish(self, phase: str) -> None: ...


class ConsoleObserver:
    """A progress bar with the time left on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._total = self._done_before = 0
        self._began = self._printed = 0.0

    def start(self, phase: str, total_steps: int, done: int = 0) -> None:
        self._total, self._done_before = total_steps, done
        self._began = self._printed = time.monotonic()
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description:<22}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}"),
                console=self.console,
            )
            self._task = self._bar.add_task(phase, total=total_steps, completed=done, shown="")
            self._bar.start()
        else:
            self.console.print(f"{phase}: {total_steps} steps" + (f", going on after {done}" if done else ""))

    def step(self, phase: str, step: int, metrics: Mapping[str, float] | None = None) -> None:
        shown = "  ".join(f"{key.split('/')[-1]} {value:.4g}" for key, value in list((metrics or {}).items())[:2])
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step)
            if shown:
                self._bar.update(self._task, shown=shown)
        elif (now := time.monotonic()) - self._printed >= LINE_EVERY:
            self._printed = now
            left = (now - self._began) / max(1, step - self._done_before) * (self._total - step)
            self.console.print(
                f"{phase}: {step}/{self._total} ({step / max(1, self._total):.0%}), {_clock(left)} left  "
                f"{shown}".rstrip()
            )

    def message(self, text: str) -> None:
        self.console.print(text, markup=False)

    def finish(self, phase: str) -> None:
        if self._bar is not None:
            self.close()
        else:
            self.console.print(f"{phase}: done in {_clock(time.monotonic() - self._began)}")

    def close(self) -> None:
        """Remove the progress bar of a phase that was interrupted."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
