"""Settings: dataclasses whose fields are declared once, for Python and for the command line alike.

What a field means stands in the ``Attributes`` section of the class's docstring; what it may be, where that is a name
of several, in its metadata. ``--help`` and the documentation read both.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, field, fields
from typing import Any

from morenas.base.errors import InputError, suggest
from morenas.base.registry import registry

TEXTS = "texts"
"""In the metadata of a field that takes a list of texts and nothing else."""
ONE_TEXT = ("str", "str | None")
"""How the type of a field that takes a text is written."""


def one_of(names: tuple[str, ...], default: Any) -> Any:
    """A field that takes one of a few names, or several of them."""
    return field(default=default, metadata={"names": names})


def door(kind: str, default: Any) -> Any:
    """A field that takes the name of anything registered as ``kind``, or such an object itself."""
    return field(default=default, metadata={"door": kind})


def names_of(declared: Field[Any]) -> tuple[str, ...]:
    """The names that a field may take; empty where it takes other values."""
    if "door" in declared.metadata:
        return registry(declared.metadata["door"]).names()
    names: tuple[str, ...] = declared.metadata.get("names", ())
    return names


def check_names(settings: Any, section: str) -> None:
    """Refuse a name that its field does not take.

    Args:
        settings: A dataclass instance.
        section: What its fields are called in front of a name, such as "search"; empty for nothing.
    Raises:
        InputError: With the field, the nearest name and all there are.
    """
    for declared in fields(settings):
        key = f"{section}.{declared.name}" if section else declared.name
        check_name(declared, getattr(settings, declared.name), key)


def check_name(declared: Field[Any], value: Any, key: str) -> None:
    """Refuse a name that a field does not take, alone or among several, or an object that is not of its kind.

    Raises:
        InputError: With what the field is called, the nearest name and all there are.
    """
    if value is None and declared.default is None:
        return
    if declared.type in ONE_TEXT and isinstance(value, bool | int | float):
        raise no_text(value, key)
    if declared.metadata.get(TEXTS):
        texts(value, key)
    elif "door" in declared.metadata:
        known = registry(declared.metadata["door"])
        known.check(value, key) if isinstance(value, str) else known.check_object(value, key)
    elif names := declared.metadata.get("names"):
        for name in value if isinstance(value, list | tuple) else [value]:
            if name not in names:
                raise InputError(f"{key}={name}: choose from {', '.join(names)}{suggest(str(name), names)}.")


def texts(value: Any, key: str) -> tuple[str, ...] | None:
    """A list of texts, or None; what YAML made a number or a truth value of is no longer what the user wrote.

    Args:
        key: What the list is called.
    Raises:
        InputError: If it is no list, or something in it is no text.
    """
    if value is None:
        return None
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise InputError(f"{key}={value!r}: must be a list: '{key}=[<name>,<name>]'.")
    listed = tuple(value)
    if wrong := [one for one in listed if not isinstance(one, str)]:
        raise no_text(wrong[0], key, '["yes","no"]')
    return listed


def no_text(value: Any, key: str, quoted: str = '"no"') -> InputError:
    """The error of a value in the place of a text: it is no longer what the user wrote.

    Args:
        quoted: A right value, as it is written.
    """
    shown = "null" if value is None else str(value).lower()
    return InputError(
        f"{key}: {shown} is no text. Unquoted, yes, no, true, null, 01 and 1e3 are read as truth values and numbers; "
        f"quote it: '{key}={quoted}', or in a YAML file {quoted}."
    )


def record(settings: Any) -> dict[str, Any]:
    """A dataclass instance for a file: every field, objects of doors by name and settings."""
    values = {declared.name: getattr(settings, declared.name) for declared in fields(settings)}
    kinds = {declared.name: declared.metadata["door"] for declared in fields(settings) if "door" in declared.metadata}
    return {
        name: registry(kinds[name]).record(value) if name in kinds and value is not None else value
        for name, value in values.items()
    }


def meanings(cls: type[Any]) -> dict[str, str]:
    """What each field means: its entry in the docstring's ``Attributes`` section, on one line."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)+)", inspect.cleandoc(base.__doc__ or ""), re.MULTILINE)
        for entry in re.finditer(r"^    (\w+): (.+(?:\n {6,}.+)*)", section[1] if section else "", re.MULTILINE):
            found[entry[1]] = " ".join(entry[2].split())
    return found
