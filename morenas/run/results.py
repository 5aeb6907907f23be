"""results.json: what a run measured, and what is needed to repeat it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from morenas.base.documents import validate
from morenas.base.files import read_json, write_json
from morenas.base.version import __version__

FORMAT = "morenas.results/1"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "hydra-core", "wandb")


def write_results(path: Path, document: dict[str, Any]) -> None:
    """Write ``results.json``, whole or not at all, checked against its schema."""
    document = {"format": FORMAT, **document}
    validate(document, "results", source=str(path))
    write_json(path, document)


def read_results(path: Path) -> dict[str, Any]:
    """Read ``results.json``.

    Raises:
        InputError: If it is missing, not JSON, of another version, or does not follow the schema.
    """
    document: dict[str, Any] = read_json(path, "results")
    validate(document, "results", source=str(path))
    return document


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that results depend on."""
    found: dict[str, str | None] = {"python": sys.version.split()[0], "morenas": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def git_commit() -> str | None:
    """Commit of the checkout that morenas runs from, with ``+dirty`` where it has changes; None outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    return commit and commit + ("+dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
