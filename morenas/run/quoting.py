"""Words of a command line as Hydra has to be given them, so that it reads in them what was typed."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from hydra.core.override_parser.overrides_parser import OverridesParser


def key_of(word: str) -> str:
    """The key that a word of the command line sets."""
    return word.lstrip("+~").split("=")[0]


def at_home(word: str) -> str:
    """A word with the home folder in the place of the ``~`` that its value begins with, quoted for Hydra."""
    key, equals, value = word.partition("=")
    quote = value[:1] if value[:1] in "'\"" and value[-1:] == value[:1] else ""
    bare = value[len(quote) : len(value) - len(quote)]
    if not equals or not bare.startswith("~"):
        return word
    paths = [bare] if quote else bare.split(",")  # of a sweep
    return f"{key}={','.join(for_hydra(os.path.expanduser(path)) for path in paths)}"


def kept_as_text(word: str, texts: Collection[str]) -> str:
    """A word in whose value nothing becomes a number or a truth value where its key takes a text.

    Args:
        texts: Keys that take a text.
    """
    key, equals, value = word.partition("=")
    if not equals or key_of(word) not in texts:
        return word
    return f"{key}={','.join(_text(one) for one in value.split(','))}"  # of a sweep


def _text(value: str) -> str:
    """One value, quoted where Hydra would not take it for text; null is none."""
    if not re.fullmatch(r"[\w.+-]+", value):
        return value
    read = OverridesParser.create().parse_override(f"key={value}").value()
    return for_hydra(value) if isinstance(read, bool | int | float) else value


def for_hydra(text: str) -> str:
    """A text in Hydra's quotes, in which only quotes, and backslashes before them, are escaped."""
    return '"' + re.sub(r'(\\*)("|$)', lambda end: end[1] * 2 + ('\\"' if end[2] else ""), text) + '"'
