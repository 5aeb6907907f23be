"""The jobs of a sweep: what is complete is not run again, what is half done goes on, what is missing is run.

A job is known by its settings. Its folder has its number in its name, but numbers move when a sweep gets more values:
the folders beside its own are looked into too.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from morenas.base.errors import InputError
from morenas.run.directory import RunDirectory, differing_keys, plain
from morenas.run.ending import fail
from morenas.run.reading import RECORD, RESULTS, is_complete, read_record, typed
from morenas.run.results import read_results
from morenas.tracking.wandb import NAME_LENGTH

FOLDERS: list[Path] = []
"""The folder of the sweep that this command makes; empty where it makes none."""


class Beginning(Callback):
    """Called by Hydra when a sweep begins: notes its folder, which Hydra alone knows."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        FOLDERS[:] = [Path(config.hydra.sweep.dir)]


@contextlib.contextmanager
def summed_up(table: Callable[[Path], str]) -> Iterator[None]:
    """Print, after the sweep that is made inside, the table of its runs and where they lie.

    Args:
        table: Makes it of a folder.
    """
    FOLDERS.clear()
    try:
        yield
    except KeyboardInterrupt:  # where launchers wait for jobs
        if not FOLDERS:
            raise
        fail(f"interrupted; {going_on(FOLDERS[0])}")
    except Exception:
        if _print_table(table):
            print(f"morenas: not all jobs are complete; {going_on(FOLDERS[0])}", file=sys.stderr)
        raise
    _print_table(table)


def _print_table(table: Callable[[Path], str]) -> bool:
    """Whether there was anything to print."""
    try:
        shown = [(table(folder), folder) for folder in FOLDERS]
    except InputError as error:  # no job is complete, or the folder holds other things
        if any(list(folder.glob(f"*/{RESULTS}")) for folder in FOLDERS):
            print(f"No table: {error}")
        return False
    for text, folder in shown:
        again = f"python -m morenas.compare {quote(str(folder))}"
        print(f"\n{text}\n\nThe runs are in {folder}; this table again: {again}")
    return bool(shown)


def claimed(own: RunDirectory, command: str, config: Any, words: list[str], number: int) -> RunDirectory:
    """The directory that a job works in: where its run was begun, or else its own, begun now.

    Args:
        own: The directory that Hydra made for the job.
        words: Of the command line, as they are for this job.
    Raises:
        InputError: If its own directory holds the run of other settings, or cannot be written.
    """
    found = _begun_before(own.path, command, plain(config)) if config.sweep.again == "skip" else None
    wandb = config.tracking.wandb
    wandb.group = wandb.group or own.path.parent.name[:NAME_LENGTH]
    if found is None:
        own.begin(command, config, words)
        return own
    if found != own.path:
        own.discard_if_idle(parent=False)
    directory = RunDirectory(found)
    directory.tidy()
    state = "is complete" if is_complete(found) else "goes on"
    print(f"Job {number} {state}: {found}")
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


def going_on(folder: Path) -> str:
    """What to type to go on with a sweep."""
    return f"go on with the same line and {typed('hydra.sweep.dir', folder)}"


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
