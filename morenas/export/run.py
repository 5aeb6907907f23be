"""A finished run, as its directory tells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morenas.base.errors import InputError
from morenas.base.files import read_object
from morenas.run.results import read_results

PART = "trained.safetensors"
"""What holds the trained part of a model without adapters, in the folder of a run's adapter."""


@dataclass(frozen=True)
class FinishedRun:
    """What a run directory holds.

    Attributes:
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
    def method(self) -> str:
        """By what method, as on the command line."""
        return str(self.results["methods"][0]["name"])

    @property
    def kind(self) -> str:
        """Kind of the task, such as "classification"."""
        return str(self.results.get("task_kind") or self.config["task"]["kind"])

    @property
    def base(self) -> str:
        """Name or path of the pretrained model."""
        return str(self.results["model"]["name"])

    @property
    def label_names(self) -> list[str] | None:
        """Names of the classes, where the run was told them."""
        return self.results["data"].get("label_names") or self.config["task"].get("label_names")


def read_run(path: Path) -> FinishedRun:
    """Read a run directory.

    Raises:
        InputError: If there is none, the run is not complete, or a part of it is missing.
    """
    if not path.is_dir():
        raise InputError(f"run={path}: there is no such directory.")
    saved = path / ".hydra" / "run.json"
    if not saved.exists():
        raise InputError(f"run={path}: no run began there (.hydra/run.json is missing); name a run directory.")
    document = read_object(saved, "run")
    if not (path / "results.json").exists():
        raise InputError(
            f"run={path}: this run is not complete (results.json is missing); "
            f"finish it: python -m morenas.{document.get('command', 'search')} resume={path}"
        )
    run = FinishedRun(path, read_results(path / "results.json"), document.get("config", {}))
    if run.results["status"] != "complete":
        raise InputError(f"run={path}: this run is not complete, its status is {run.results['status']}; run it again.")
    if not run.adapter.is_dir() or not {"task", "model"} <= set(run.config):
        lacking = "adapter" if not run.adapter.is_dir() else "configuration"
        raise InputError(f"run={path}: its {lacking} is missing; copy the whole run directory again.")
    return run
