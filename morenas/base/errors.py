"""The error that tells users what to mend, and the words it is made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that morenas refuses: says who, what came, the rule and the way out. Exit status 2."""


class RunError(RuntimeError):
    """Work that was begun and came to nothing, through nobody's wrong input. Exit status 1."""


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the choice nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
