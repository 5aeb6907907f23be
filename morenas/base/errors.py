"""Errors with messages for users, and the nearest name to one that is misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Invalid input. The message says where, what was given, the rule, and how to fix it. Exit status 2."""


class RunError(RuntimeError):
    """A run that started and then failed, although its input was valid. Exit status 1."""


class WriteError(OSError):
    """What cannot be written, by its path, and why. Exit status 1."""

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written ({self.strerror})"


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the choice nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def one_line(error: BaseException, longest: int = 300) -> str:
    """An error of another library's in one line: its kind and all that it says, cut where it runs on."""
    words = " ".join(str(error).split())
    said = words if len(words) <= longest else words[: longest - 2] + " …"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
