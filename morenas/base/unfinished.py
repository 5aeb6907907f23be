"""What is being written stands beside its place, under a name of its own, until it is whole.

A killed process leaves it there. Whoever writes holds a lock on it, which ends with the process however that ends, so
what nobody writes any more can be told and removed.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

ENDING = "unfinished"


def beside(path: Path) -> Path:
    """A fresh name in the same folder; tempfile would make it readable by its owner alone."""
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.{ENDING}"


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold an unfinished file or folder: other processes do not sweep it."""
    if sys.platform == "win32":  # where nothing is swept
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network file system may know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a folder, whole or not at all, as for whoever looks at it; nothing where there is none."""
    leaving = beside(folder)
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder, leaving)
        shutil.rmtree(leaving, ignore_errors=True)  # what is left of it is swept


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what nobody writes any more from a folder.

    Args:
        name: Of the file or folder that was to be; None for any.
    """
    whose = "*" if name is None else glob.escape(name)
    if sys.platform == "win32":
        return
    for path in folder.glob(f".{whose}.????????.{ENDING}"):
        with contextlib.suppress(OSError):  # somebody writes it, or it is gone
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)
