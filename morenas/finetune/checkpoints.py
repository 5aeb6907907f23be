"""Folders of checkpoints that are whole or do not count.

Each is sealed by a manifest of its files, written last. A folder without one was cut off while being written:
it is removed. A folder whose files differ from its manifest was damaged later: it is refused, never trained
on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from morenas.base.errors import InputError
from morenas.base.files import check_fields, read_object, sha256, write_json, writing
from morenas.base.unfinished import remove, sweep

FORMAT = "morenas.checkpoint/1"
MANIFEST = "manifest.json"


def checkpoint_folder(directory: Path, step: int) -> Path:
    """Where the Trainer writes the checkpoint of an optimizer step."""
    return directory / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def seal(folder: Path, info: Mapping[str, Any]) -> None:
    """Declare a folder whole: write its manifest, with ``info`` beside sizes and hashes."""
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # the manifest must not reach the disk before what it vouches for
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    write_json(folder / MANIFEST, {"format": FORMAT, "files": files, "info": dict(info)})


def last_checkpoint(directory: Path) -> Path | None:
    """Return the latest whole checkpoint, or ``None``; remove what was cut off while being written."""
    folders = sorted(directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=_step) if directory.is_dir() else []
    sweep(directory)
    for folder in folders:
        if not (folder / MANIFEST).is_file():
            with writing(folder):
                remove(folder)
    whole = [folder for folder in folders if folder.is_dir()]
    return whole[-1] if whole else None


def verify(folder: Path) -> Mapping[str, Any]:
    """Check a sealed folder against its manifest and return the manifest's ``info``.

    Raises:
        InputError: Naming the file that is missing, cut short or changed.
    """
    manifest = read_object(folder / MANIFEST, "checkpoint manifest", {"files": dict, "info": dict})
    if manifest.get("format") != FORMAT:
        raise _damaged(folder / MANIFEST, f"is no manifest of format {FORMAT}")
    for name, expected in manifest["files"].items():
        path = folder / name
        check_fields(expected if isinstance(expected, dict) else {}, {"bytes": int, "sha256": str}, str(path))
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise _damaged(path, "is missing")
        if size != expected["bytes"]:
            raise _damaged(path, f"has {size:,} bytes where its manifest says {expected['bytes']:,}")
        if sha256(path) != expected["sha256"]:
            raise _damaged(path, "is not what was written")
    return manifest["info"]


def keep_only(directory: Path, steps: Iterable[int]) -> None:
    """Remove all checkpoints but those of the given optimizer steps."""
    kept = {checkpoint_folder(directory, step) for step in steps}
    for folder in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if folder not in kept:
            with writing(folder):
                remove(folder)


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _damaged(path: Path, how: str) -> InputError:
    return InputError(
        f"Checkpoint {path} {how}. Restore the file, or remove the folder {path.parent} to go on from the "
        "checkpoint before it."
    )
