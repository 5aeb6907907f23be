"""File operations that go wrong: ``faults.c``, which is preloaded into a process, from Python."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
LIBRARY = "FAULTS"
"""Variable of the environment with the path of the preloaded library."""


class Fault(IntEnum):
    """What happens at an operation; numbered as in ``faults.c``."""

    NONE = 0
    KILL = 1
    """SIGKILL before it."""
    KILL_HALFWAY = 2
    """SIGKILL when half of what it writes is written."""
    FULL = 3
    """From it on the disk is full; what fits of a write is written."""
    READ_ONLY = 4
    """From it on nothing can be changed."""


@dataclass(frozen=True)
class Operation:
    """A file operation: its name in the C library, its path, and the inode where it is one on an open file, else 0."""

    name: str
    path: str
    inode: int

    @property
    def writes(self) -> bool:
        return "write" in self.name or "sendfile" in self.name or self.name == "copy_file_range"


def compiled(folder: Path) -> Path | None:
    """The library, made in a folder; None where there is no C compiler."""
    if not (compiler := shutil.which("cc")):
        return None
    library = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def preloading(library: Path) -> dict[str, str]:
    """Variables of the environment of a process that is to have the library."""
    return {"LD_PRELOAD": str(library), LIBRARY: str(library)}


def arm(folder: Path, fault: Fault, number: int, record: Path) -> None:
    """Count this process's operations below a folder from now on; something happens at that of a number.

    Args:
        record: File that each operation is written to, a line each, before it is done.
    """
    library = ctypes.CDLL(os.environ[LIBRARY])
    descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    library.arm(os.fsencode(folder), int(fault), ctypes.c_long(number), descriptor)


def read_record(record: Path) -> list[Operation]:
    """The operations that a process has done, in their order."""
    rows = (line.split("\t") for line in record.read_text().splitlines())
    return [Operation(name, path, int(inode)) for name, path, inode in rows]


def unflushed(done: list[Operation], folder: Path) -> list[Path]:
    """Files of a folder that were not flushed after they were written: they may be lost where the machine stops."""
    inodes = set()
    for one in done:
        if "sync" in one.name:
            inodes.discard(one.inode)
        elif one.writes:
            inodes.add(one.inode)
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_ino in inodes]
