"""Whose word it is that a module is imported.

Modules are named in command lines, in the records of runs and in YAML files. A command line is its user's own: what it
names is imported. A file may be anybody's, and importing a module runs its code: of what a file names, only those
modules are imported that the user names too.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from morenas.base.errors import InputError


@dataclass(frozen=True)
class Reading:
    """Files that are being read, and what their user trusts.

    Attributes:
        word: The word that names them, such as "resume=<run directory>".
        file: What they are: "record" or "YAML file".
        granted: Modules that the user has named.
    """

    word: str
    file: str
    granted: Collection[str]


NAMED: set[str] = set()
"""Modules that names have brought into this command; whoever goes on with its run names them again."""
_reading: Reading | None = None


@contextlib.contextmanager
def only(word: str, file: str, granted: Collection[str]) -> Iterator[None]:
    """Import, of the modules that files name, those alone that the user has named.

    Args:
        word, file, granted: As of ``Reading``.
    """
    global _reading
    _reading = Reading(word, file, granted)
    try:
        yield
    finally:
        _reading = None


def require_consent(modules: Iterable[str], who: str) -> None:
    """Refuse modules that a file names and its user does not.

    Args:
        who: The setting that names them.
    Raises:
        InputError: With what to type where they are trusted.
    """
    modules = list(modules)
    if _reading is not None and (missing := sorted({*modules} - {*_reading.granted})):
        raise InputError(
            f"{_reading.word}: a {_reading.file} there sets {who}, and importing {' and '.join(missing)} runs code. A "
            f"{_reading.file} may be anybody's, so nothing that it names is imported by itself: where you trust that "
            f"code, name it too: {_reading.word} {named({*_reading.granted, *missing})}."
        )
    NAMED.update(modules)


def named(modules: Iterable[str]) -> str:
    """The word of a command line that names modules, as it is typed in a shell."""
    return shlex.quote(f"plugins=[{','.join(sorted(modules))}]")
