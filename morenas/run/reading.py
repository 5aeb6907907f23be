"""Read a run directory: how its run began, whether it is complete, and what a complete one holds.

Resume, export and compare read run directories by these functions alone, so the same fault has the same message.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from morenas.base.errors import InputError
from morenas.base.files import read_object
from morenas.run.results import read_results

RECORD = ".hydra/run.json"
RESULTS = "results.json"
COMMANDS = ("search", "finetune")
"""Those that begin runs."""
ARCHITECTURE = "architecture.json"


@dataclass(frozen=True)
class RunRecord:
    """How a run began, as ``.hydra/run.json`` records it.

    Attributes:
        command: "search" or "finetune".
        config: The resolved configuration.
        overrides: What the command line set.
    """

    command: str
    config: dict[str, Any]
    overrides: list[str]


@dataclass(frozen=True)
class FinishedRun:
    """What the directory of a complete run holds.

    Attributes:
        path: The run directory.
        results: The document of ``results.json``.
        config: The resolved configuration.
    """

    path: Path
    results: dict[str, Any]
    config: dict[str, Any]

    @property
    def adapter(self) -> Path:
        """The folder of what was trained."""
        return self.path / "adapter"

    @property
    def architecture(self) -> Path:
        """The architecture that a search found; a fine-tune has no such file."""
        return self.path / ARCHITECTURE

    @property
    def method(self) -> str:
        """Method of fine-tuning, by its name on the command line."""
        return str(self.results["methods"][0]["name"])

    @property
    def kind(self) -> str:
        """Kind of the task, such as "classification"."""
        return str(self.results.get("task_kind") or self.config["task"].get("kind"))

    @property
    def base(self) -> str:
        """Name or path of the pretrained model."""
        return str(self.results["model"]["name"])

    @property
    def pooling(self) -> str:
        """What a classifier's head reads of a sequence: "own" or "mean"."""
        return str(self.results["model"].get("pooling", "own"))

    @property
    def label_names(self) -> list[str] | None:
        """Names of the classes, where the task names them."""
        return self.results["data"].get("label_names") or self.config["task"].get("label_names")


def typed(key: str, path: Path) -> str:
    """A path as a word that can be typed in a shell as it is printed."""
    return shlex.quote(f"{key}={path}")


def read_record(path: Path) -> RunRecord:
    """Read how the run of a directory began.

    Raises:
        InputError: If the file cannot be read, or is not what a run writes.
    """
    document = read_object(path / RECORD, "run")
    words = document.get("overrides")
    if not (
        set(document) == {one.name for one in fields(RunRecord)}
        and document["command"] in COMMANDS
        and isinstance(document["config"], dict)
        and isinstance(words, list)
        and all(isinstance(word, str) for word in words)
    ):
        raise InputError(f"{path / RECORD}: not what a run wrote; restore it, or begin a new run.")
    return RunRecord(**document)


def is_complete(path: Path) -> bool:
    """Whether the run of a directory has published its results."""
    results = path / RESULTS
    return results.exists() and read_object(results, "results").get("status") == "complete"


def read_unfinished(path: Path, command: str) -> RunRecord:
    """Read how a run began that is to go on.

    Args:
        path: What ``resume=`` names.
        command: The command that is to go on with it.
    Raises:
        InputError: If there is no such run, it is complete, or another command began it.
    """
    who = f"resume={path}"
    record = _begun(path, who)
    if is_complete(path):
        raise InputError(f"{who}: this run is complete; its results are in {path / RESULTS}.")
    if record.command != command:
        raise InputError(f"{who}: this run belongs to python -m morenas.{record.command}, not morenas.{command}.")
    return record


def read_finished(path: Path) -> FinishedRun:
    """Read a complete run.

    Args:
        path: What ``run=`` names.
    Raises:
        InputError: If there is none, the run is not complete, or a part of it is missing.
    """
    who = f"run={path}"
    record = _begun(path, who)
    if not (path / RESULTS).exists():
        raise _unfinished(path, who, record)
    run = FinishedRun(path, _complete_results(path / RESULTS, who), record.config)
    if not run.adapter.is_dir() or not all(isinstance(run.config.get(name), dict) for name in ("task", "model")):
        lacking = "adapter" if not run.adapter.is_dir() else "configuration"
        raise InputError(f"{who}: its {lacking} is missing; copy the whole run directory again.")
    return run


def read_all_results(paths: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """Read every ``results.json`` at or under some folders, each once, in the order of their paths.

    Raises:
        InputError: If a folder holds none, or one is not valid or not of a complete run.
    """
    files = sorted({file for path in paths for file in _results_under(path)})
    return {file: _complete_results(file, str(file)) for file in files}


def _begun(path: Path, who: str) -> RunRecord:
    _check_directory(path, who)
    if not (path / RECORD).exists():
        raise InputError(f"{who}: no run began there ({RECORD} is missing); name a run directory.")
    return read_record(path)


def _results_under(path: Path) -> list[Path]:
    _check_directory(path, str(path))
    # os.walk goes on where a run that is at work removes a folder, and does not follow links.
    found = [Path(folder) / RESULTS for folder, _, files in os.walk(path) if RESULTS in files]
    if not found and (path / RECORD).exists():
        raise _unfinished(path, str(path), read_record(path))
    if not found:
        raise InputError(f"{path}: holds no {RESULTS}; name run directories that are complete, or a folder of them.")
    return found


def _complete_results(file: Path, who: str) -> dict[str, Any]:
    results = read_results(file)
    if results["status"] != "complete":
        raise InputError(f"{who}: this run is not complete, its status is {results['status']}; run it again.")
    return results


def _check_directory(path: Path, who: str) -> None:
    if not path.is_dir():
        raise InputError(f"{who}: there is no such directory.")


def _unfinished(path: Path, who: str, record: RunRecord) -> InputError:
    return InputError(
        f"{who}: this run is not complete ({RESULTS} is missing); "
        f"finish it: python -m morenas.{record.command} {typed('resume', path)}"
    )
