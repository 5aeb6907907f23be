"""Files that appear whole or not at all: written beside, flushed, then renamed into place."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from morenas.base.errors import InputError


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all; parent folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(path)
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode())


def write_arrays(path: str | Path, **arrays: Any) -> None:
    """Write numpy arrays by name as a compressed ``.npz``, whole or not at all."""
    import numpy as np  # commands that only read JSON go without

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def write_json(path: str | Path, document: Any) -> None:
    """Write a JSON document, indented, whole or not at all."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path, what: str) -> Any:
    """Read a JSON document.

    Args:
        what: What the file is, for the message.
    Raises:
        InputError: If it is missing or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: the {what} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise InputError(f"{path}: the {what} is not JSON ({error}); restore the file it was copied from.") from error


def read_object(path: str | Path, what: str) -> dict[str, Any]:
    """Read a JSON object; as ``read_json``.

    Raises:
        InputError: If it is missing, or JSON of another kind.
    """
    document = read_json(path, what)
    if not isinstance(document, dict):
        raise InputError(f"{path}: the {what} is no JSON object; restore the file it was copied from.")
    return document


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def whole_directory(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place at the end, unless an error is raised.

    Args:
        replace: Whether a folder that is there already gives way; if not, OSError is raised, also where the folder
            appeared while this one was being filled.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(path)
    beside.mkdir()
    try:
        yield beside
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        os.replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A fresh name in the same folder; tempfile would make it readable by its owner alone."""
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
