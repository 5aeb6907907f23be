"""Errors with messages for users, and the nearest name to one that is misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Invalid input. The message says where, what was given, the rule, and how to fix it. Exit status 2."""


class RunError(RuntimeError):
    """A run that started and then failed, although its input was valid. Exit status 1."""


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the choice nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
