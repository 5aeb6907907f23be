"""The jobs of a sweep: what is complete is not run again, what is half done goes on, what is missing is run.

A job is known by its settings. Its folder has its number in its name, but numbers move when a sweep gets more values:
the folders beside its own are looked into too.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

from hydra.conf import HydraConf
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from morenas.base.errors import InputError, RunError, one_line
from morenas.run.directory import RunDirectory, differing_keys, plain
from morenas.run.ending import fail
from morenas.run.reading import RECORD, is_complete, read_record, typed
from morenas.run.results import read_results
from morenas.tracking.wandb import NAME_LENGTH

SUBMITIT = "{folder}/.submitit/%j"
"""Where submitit keeps its files by default."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that is at work.

    Attributes:
        folder: Of its jobs.
        logs: Where jobs leave what they print; None where that is on the screen.
    """

    folder: Path
    logs: Path | None = None

    @property
    def go_on(self) -> str:
        """What to type to go on with it."""
        return f"go on with the same line and {typed('hydra.sweep.dir', self.folder)}"


BEGUN: list[Sweep] = []
"""The sweep that this command makes; empty where it makes none."""


class Beginning(Callback):
    """Called by Hydra when a sweep begins: notes its folder, which Hydra alone knows."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        folder, logs, launcher = Path(config.hydra.sweep.dir), None, config.hydra.launcher
        if OmegaConf.select(launcher, "submitit_folder") == SUBMITIT.format(folder=folder):
            logs = _new_logs(folder)
            with read_write(launcher):
                launcher.submitit_folder = str(logs / "%j")
            print(f"What jobs print goes to {logs}/")
        BEGUN[:] = [Sweep(folder, logs)]


def _new_logs(folder: Path) -> Path:
    """A folder for submitit's files that nobody has put anything into: submitit unpickles what it finds there."""
    place = folder / ".submitit"
    place.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{datetime.now():%Y-%m-%d_%H-%M-%S}-", dir=place))


@contextlib.contextmanager
def summed_up(table: Callable[[Path], str]) -> Iterator[None]:
    """Print, after the sweep that is made inside, the table of its runs and where they lie.

    Args:
        table: Makes it of a folder.
    Raises:
        RunError: If the process of a job has died.
    """
    BEGUN.clear()
    try:
        yield
    except KeyboardInterrupt:  # where launchers wait for jobs
        if not BEGUN:
            raise
        fail(f"interrupted; {BEGUN[0].go_on}")
    except Exception as error:
        for sweep in BEGUN:
            if _print_table(sweep.folder, table) or sweep.logs:
                logs = f" (what they have printed is in {sweep.logs})" if sweep.logs else ""
                print(f"morenas: not all jobs are complete{logs}; {sweep.go_on}", file=sys.stderr)
        if type(error).__module__.partition(".")[0] in ("joblib", "submitit"):
            raise RunError(f"the process of a job has died ({one_line(error)})") from error
        raise
    for sweep in BEGUN:
        _print_table(sweep.folder, table)


def _print_table(folder: Path, table: Callable[[Path], str]) -> bool:
    """Whether it could be printed."""
    try:
        shown = table(folder)
    except InputError:  # no job is complete, or other things lie there
        return False
    print(f"\n{shown}\n\nThe runs are in {folder}; this table again: python -m morenas.compare {quote(str(folder))}")
    return True


def claimed(own: RunDirectory, command: str, config: Any, settings: HydraConf) -> RunDirectory:
    """The directory that a job works in: where its run was begun, or else its own, begun now.

    Args:
        own: The directory that Hydra made for the job.
        settings: What Hydra knows of the job.
    Raises:
        InputError: If its own directory holds the run of other settings, or cannot be written.
    """
    found = _begun_before(own.path, command, plain(config)) if config.sweep.again == "skip" else None
    wandb = config.tracking.wandb
    wandb.group = wandb.group or Path(settings.sweep.dir).name[:NAME_LENGTH]
    if found is None:
        own.begin(command, config, list(settings.overrides.task))
        return own
    if found != own.path:
        own.discard_if_idle(parent=False)
    directory = RunDirectory(found)
    directory.tidy()
    state = "is complete" if is_complete(found) else "goes on"
    print(f"Job {settings.job.num} {state}: {found}")
    return directory


def told(results: Path, objective: list[str]) -> float | list[float]:
    """What a sweeper is given of a complete run: a number, or as many as its objective has.

    Raises:
        InputError: If its results cannot be read.
    """
    document = read_results(results)
    known = {
        "value": document["value"],
        "adapter_params": document["methods"][0]["adapter_params"],
        "seconds": sum(phase["seconds"] for phase in document["phases"]),
    }
    numbers = [float(known[name]) for name in objective]
    return numbers[0] if len(numbers) == 1 else numbers


def _begun_before(own: Path, command: str, settings: dict[str, Any]) -> Path | None:
    """Where the run of these settings was begun; None if it was not.

    Raises:
        InputError: If a record cannot be read, or the job's own folder holds the run of other settings.
    """
    beside = sorted(path for path in own.parent.iterdir() if path != own)
    differing = []
    for folder in (own, *beside):
        if (folder / RECORD).exists():
            keys = _differing(folder, command, settings)
            if not keys:
                return folder
            if folder == own:
                differing = keys
    if differing:
        raise InputError(
            f"{own}: holds a run of other settings (it differs in {', '.join(differing[:6])}); give the settings that "
            "this sweep was begun with, or choose another hydra.sweep.dir."
        )
    return None


def _differing(folder: Path, command: str, settings: dict[str, Any]) -> list[str]:
    """What the record of a run has otherwise."""
    record = read_record(folder)
    keys = differing_keys(settings, record.config)
    if settings["tracking"]["wandb"]["group"] is None:  # then it is the name that the folder had
        keys = [key for key in keys if key != "tracking.wandb.group"]
    return keys if record.command == command else ["command", *keys]
