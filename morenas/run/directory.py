"""The run directory: what lies where, and whether a run may begin or go on there."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from morenas.base.errors import InputError, WriteError
from morenas.base.files import finite, whole_directory, write_json, write_text, writing
from morenas.base.registry import registry
from morenas.base.unfinished import remove, sweep
from morenas.run.reading import RECORD, RESULTS, is_complete, read_record, typed

FOLDERS = ("adapter", "checkpoints", "compare", "compare_lora", "finetune", "predictions", "search")
"""What a run makes in its directory beside files."""


class RunDirectory:
    """One run's files; see the output contract in the README. It may be moved at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.architecture = path / "architecture.json"
        self.results = path / RESULTS
        self.metrics = path / "search" / "metrics.jsonl"
        self.trajectory = path / "search" / "trajectory.npz"
        self.candidates = path / "search" / "candidates.jsonl"
        self.adapter = path / "adapter"
        self.predictions = path / "predictions"
        self.checkpoints = path / "checkpoints"
        self.phases = self.checkpoints / "phases.json"
        self.inputs = self.checkpoints / "inputs.json"
        self.lock = self.checkpoints / "lock"
        self.report = path / "report.html"
        self._run = path / RECORD
        self._found = set(path.iterdir()) if path.is_dir() else set()
        self._begun = False  # by this process

    def begin(self, command: str, config: Any, overrides: list[str]) -> None:
        """Claim the directory for a new run and write its resolved config under ``.hydra/``.

        Of several that begin at once one gets the directory: ``.hydra/`` appears whole, and is never replaced.

        Raises:
            InputError: If another run lives there, or it cannot be written.
        """
        resolved = plain(config)
        if self._run.exists() or self.results.exists():
            self._refuse_taken(resolved)
        for taken in (self.path / name for name in FOLDERS):
            if taken.is_file():
                raise InputError(
                    f"{taken}: is a file where the run needs a folder; move it, or choose another hydra.run.dir."
                )
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            with whole_directory(self._run.parent, replace=False) as folder:
                write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(literal(resolved))))
                write_text(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(literal(overrides))))
                write_json(folder / self._run.name, {"command": command, "config": resolved, "overrides": overrides})
        except OSError as error:
            if self._run.exists():
                self._refuse_taken(resolved)
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); choose another hydra.run.dir."
            ) from error
        self._begun = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out of the directory; the lock ends with its process, however that ends.

        What a killed process was writing there is removed.

        Raises:
            InputError: If another process is at work there.
        """
        lock = FileLock(self.lock)
        with writing(self.lock):
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise InputError(
                    f"{self.path}: another process is at work there; wait for it, or choose another hydra.run.dir."
                ) from error
        try:
            for folder in (self.path, *self.path.iterdir()):
                sweep(folder)
            yield
        finally:
            lock.release()

    def saved_overrides(self) -> list[str]:
        """What the command line that began the run set."""
        return list(read_record(self.path).overrides)

    def discard_if_idle(self, parent: bool) -> None:
        """Remove what a run that was refused before any work left; what was there, or is another run's, stays.

        Args:
            parent: Remove the folder that holds the directory too, if it is then empty.
        """
        if self._run.exists() and not self._begun:
            return
        ours = set(self.path.iterdir()) - self._found
        if all(self._is_preparation(path) for path in ours):
            for path in ours:
                shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.path.rmdir()
                if parent:
                    self.path.parent.rmdir()

    def _is_preparation(self, top: Path) -> bool:
        files = {path for path in top.rglob("*") if path.is_file()}
        begun = (".hydra", *registry("tracker").names())  # a tracker keeps its files in a folder of its name
        return top.name in begun or (top.is_dir() and files <= {self.phases, self.inputs, self.lock})

    def drop_checkpoints(self) -> None:
        """Remove the state of phases that are finished.

        Raises:
            WriteError: If it cannot be removed.
        """
        with writing(self.checkpoints):
            remove(self.checkpoints)

    def tidy(self) -> None:
        """Remove the checkpoints of a complete run, which may have been killed while it removed them."""
        if self._run.exists() and is_complete(self.path):
            with contextlib.suppress(WriteError):  # it is complete all the same
                self.drop_checkpoints()
            sweep(self.path)

    def _refuse_taken(self, resolved: dict[str, Any]) -> None:
        if is_complete(self.path):
            raise InputError(f"{self.path}: holds a complete run; choose another hydra.run.dir, or remove it.")
        theirs = read_record(self.path).config if self._run.exists() else {}
        differing = differing_keys(resolved, theirs)
        if differing:
            raise InputError(
                f"{self.path}: holds an unfinished run of another configuration (it differs in "
                f"{', '.join(differing[:6])}); "
                "choose another hydra.run.dir."
            )
        raise InputError(f"{self.path}: holds this very run, unfinished; go on with {typed('resume', self.path)}")


def plain(config: Any) -> dict[str, Any]:
    """A config of dataclasses as plain JSON values."""
    return dataclasses.asdict(config)


def literal(config: Any) -> Any:
    """Resolved values for OmegaConf, in which nothing is an interpolation: what stands in a file reads no variable."""
    if isinstance(config, str):
        return re.sub(r"(\\*)\$\{", lambda begun: rf"{begun[1] * 2}\${{", config)
    if isinstance(config, dict):
        return {name: literal(value) for name, value in config.items()}
    return [literal(value) for value in config] if isinstance(config, list | tuple) else config


def differing_keys(ours: dict[str, Any], theirs: Any) -> list[str]:
    """Full paths of the settings that two runs do not share, one of them as a file has it.

    What is done with a sweep is no setting of its runs.
    """
    keys = _differing_keys(finite(ours), theirs)
    return sorted(key for key in keys if key.partition(".")[0] != "sweep")


def _differing_keys(ours: Any, theirs: Any, prefix: str = "") -> list[str]:
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return [] if ours == theirs else [prefix.rstrip(".")]
    return [
        key
        for name in sorted({*ours, *theirs})
        for key in _differing_keys(ours.get(name), theirs.get(name), f"{prefix}{name}.")
    ]
