"""Whether what a command wrote is whole, and whether it is the same as what another run of it wrote."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from morenas.base.files import sha256
from morenas.finetune.checkpoints import MANIFEST, verify

Contents = Mapping[str, Any]

TEMPORARY = re.compile(r"\..+\.unfinished$")
"""Names of what is being written."""
MEASURED = {"seconds", "peak_memory_bytes", "memory_over_model_bytes", "git_commit"}
"""Fields of a document that differ from run to run."""


def contents(folder: Path) -> Contents:
    """Every file and folder below a folder, with what must be equal of it; None where the folder is not there."""
    return {path.relative_to(folder).as_posix(): _content(path) for path in sorted(folder.rglob("*"))}


def differences(expected: Contents, found: Contents) -> list[str]:
    """What is not as it should be, by path."""
    wrong = [f"{path} is missing" for path in expected.keys() - found.keys()]
    wrong += [f"{path} is left" for path in found.keys() - expected.keys()]
    return wrong + [f"{path} differs" for path in expected.keys() & found.keys() if expected[path] != found[path]]


def unwhole(folder: Path) -> list[str]:
    """Files that are not whole although they have their final names.

    A checkpoint of the Trainer counts only once it has a manifest, and the last line of a log only once it ends.
    """
    wrong = []
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_dir() or any(TEMPORARY.fullmatch(part) for part in parts) or _is_unsealed(path.parent):
            continue
        try:
            READERS.get(path.suffix, lambda _: None)(path)
        except Exception as error:
            wrong.append(f"{path} is not whole ({type(error).__name__}: {error})")
    return wrong


def _content(path: Path) -> Any:
    if path.is_dir():
        return "folder"
    with contextlib.suppress(ValueError):
        if path.suffix == ".json":
            return _unmeasured(json.loads(path.read_text()))
    return sha256(path)


def _unmeasured(document: Any) -> Any:
    if isinstance(document, dict):
        return {name: _unmeasured(value) for name, value in document.items() if name not in MEASURED}
    return [_unmeasured(value) for value in document] if isinstance(document, list) else document


def _is_unsealed(folder: Path) -> bool:
    return folder.name.startswith("checkpoint-") and not (folder / MANIFEST).exists()


def _read_json(path: Path) -> None:
    json.loads(path.read_text())
    if path.name == MANIFEST:
        verify(path.parent)


def _read_lines(path: Path) -> None:
    for line in path.read_text().split("\n")[:-1]:
        json.loads(line)


def _read_tensors(path: Path) -> None:
    with safe_open(path, "np") as file:
        assert [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118


def _read_arrays(path: Path) -> None:
    with np.load(path) as arrays:
        assert [arrays[name] for name in arrays]


def _read_text(path: Path) -> None:
    assert path.read_text().endswith("\n"), "is cut off"


READERS: dict[str, Callable[[Path], None]] = {
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".safetensors": _read_tensors,
    ".npz": _read_arrays,
    ".yaml": _read_text,
    ".html": _read_text,
}
