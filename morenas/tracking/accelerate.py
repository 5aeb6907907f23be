"""A dashboard through the tracker that accelerate has for it; ``services`` holds them.

All of accelerate's trackers take a configuration, metrics and an end. How one connects to a service, and how one shows
a picture there, is the service's own.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morenas.base.errors import InputError
from morenas.base.files import write_text
from morenas.base.settings import check_names
from morenas.tracking.tracker import TrackedRun, Tracker

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker
    from matplotlib.figure import Figure

ARCHITECTURE = "architecture"
"""What the heat map of the architecture is called."""


class AccelerateTracker(Tracker):
    """Makes a tracker of one of accelerate's.

    A subclass names the service, the package that pip installs and the module that Python imports; it imports the
    service when it connects.
    """

    name: str
    package: str
    module: str
    service: Any  # accelerate's tracker; a GeneralTracker

    def __post_init__(self) -> None:
        """Refuse a service that is not installed, before a run begins.

        Raises:
            InputError: Naming the package.
        """
        check_names(self, "tracking")
        if find_spec(self.module) is None:
            raise InputError(
                f"tracking={self.name}: needs the package {self.package}, which is not installed; pip install "
                f"{shlex.quote(self.package)}, or choose tracking=local."
            )

    def connect(self, run: TrackedRun, folder: Path, known: str | None) -> GeneralTracker:
        """Accelerate's tracker of the service, not yet started.

        Args:
            folder: For files of the service's own; absolute.
            known: What ``identity`` gave when the run that goes on began; None for a new run.
        """
        raise NotImplementedError

    def identity(self) -> str | None:
        """The service's own name for the run, by which a resumed run goes on in the same curves."""
        return None

    def show(self, figure: Figure) -> None:
        """Show the heat map of the architecture."""
        raise NotImplementedError

    def open(self, run: TrackedRun) -> None:
        from accelerate import PartialState

        PartialState()  # accelerate's trackers write their log through it
        folder = run.directory.resolve() / self.name
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / "run-id"
        self.service = self.connect(run, folder, known.read_text() if known.exists() else None)
        self.service.start()
        if (identity := self.identity()) is not None:
            write_text(known, identity)
        self.service.store_init_configuration(dict(flat(run.config)))

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        self.service.log({name: float(value) for name, value in metrics.items()}, step=step)

    def architecture(self, architecture: Any) -> None:
        from morenas.tracking.figures import architecture_figure

        self.show(architecture_figure(architecture.shapes()))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Log the figures that runs are compared by, each as a curve of one point."""
        numbers = {f"summary/{name}": float(value) for name, value in values.items() if isinstance(value, int | float)}
        self.service.log(numbers, step=0)

    def close(self, failed: bool) -> None:
        self.service.finish()


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested configuration as dotted keys; lists and null as JSON, for most services take scalars alone."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str | int | float) else json.dumps(value)
