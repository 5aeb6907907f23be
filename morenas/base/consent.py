"""Whose word it is that a module is imported.

Modules are named in command lines and in the records of runs. A command line is its user's own: what it names is
imported. A record may be anybody's, and importing a module runs its code: of what a record names, only those modules
are imported that its user names too.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from morenas.base.errors import InputError


@dataclass(frozen=True)
class Reading:
    """A run's record that is being read, and what its user trusts.

    Attributes:
        word: The word that names the run, such as "resume=<run directory>".
        granted: Modules that the user has named.
    """

    word: str
    granted: Collection[str]


NAMED: set[str] = set()
"""Modules that names have brought into this command; whoever goes on with its run names them again."""
_record: Reading | None = None


@contextlib.contextmanager
def only(word: str, granted: Collection[str]) -> Iterator[None]:
    """Import, of the modules that a run's record names, those alone that the user has named.

    Args:
        word: The word that names the run, for the message.
        granted: What the user has named.
    """
    global _record
    _record = Reading(word, granted)
    try:
        yield
    finally:
        _record = None


def require_consent(modules: Iterable[str], who: str) -> None:
    """Refuse modules that a run's record names and its user does not.

    Args:
        who: The setting that names them.
    Raises:
        InputError: With what to type where they are trusted.
    """
    modules = list(modules)
    if _record is not None and (missing := sorted({*modules} - {*_record.granted})):
        raise InputError(
            f"{_record.word}: its record sets {who}, and importing {' and '.join(missing)} runs code. A record may be "
            f"anybody's, so nothing that it names is imported by itself: where you trust that code, name it too: "
            f"{_record.word} {named({*_record.granted, *missing})}."
        )
    NAMED.update(modules)


def named(modules: Iterable[str]) -> str:
    """The word of a command line that names modules, as it is typed in a shell."""
    return shlex.quote(f"plugins=[{','.join(sorted(modules))}]")
