"""Keys of a command line listed for ``--help``: what each means, what it is set to, what it may be."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import Field
from typing import Any, NamedTuple

from omegaconf import MISSING

from morenas.base.settings import meanings, names_of

HELP = ("--help", "-h")
WIDTH = 120  # columns
LONG_VALUE = 22  # columns; what is longer stands on a line of its own


class Key(NamedTuple):
    """A key: its full path, its value, and what it means."""

    path: str
    value: str
    meaning: str


def key(path: str, value: Any, made: type[Any], declared: Field[Any]) -> Key:
    """Describe a key.

    Args:
        value: As set, or its default.
        made: The dataclass that declares it.
        declared: Its field there.
    """
    meaning = meanings(made).get(declared.name, "")
    return Key(path, written(value), f"{_for_reading(meaning)} {_one_of(names_of(declared), meaning)}".strip())


def listed(keys: Sequence[Key]) -> list[str]:
    """Lines of aligned columns: key, value, meaning."""
    path = max(len(one.path) for one in keys)
    value = max((len(one.value) for one in keys if len(one.value) <= LONG_VALUE), default=0)
    indent = 4 + path + 2 + value + 2
    lines = []
    for one in keys:
        begun = f"    {one.path:<{path}}  {one.value:<{value}}  "
        meaning = textwrap.wrap(one.meaning, WIDTH - indent, break_on_hyphens=False)
        if len(begun) > indent:
            lines.append(begun.rstrip())
            begun = " " * indent
        lines.append(f"{begun}{meaning[0] if meaning else ''}".rstrip())
        lines += [" " * indent + line for line in meaning[1:]]
    return lines


def written(value: Any) -> str:
    """A value as it is written on a command line."""
    if value is None or value == MISSING:
        return "null" if value is None else "(to be set)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {written(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    return str(value)


def _for_reading(meaning: str) -> str:
    """Words of Python in those of a command line."""
    words = {"None": "null", "True": "true", "False": "false"}
    return re.sub(r"\b(None|True|False)\b", lambda word: words[word[0]], meaning.replace("``", ""))


def _one_of(names: Sequence[str], meaning: str) -> str:
    """What a key may be, where its meaning does not say."""
    said = all(re.search(rf"\b{re.escape(name)}\b", meaning) for name in names)
    return "" if said else f"One of {', '.join(names)}."
