"""Commands of a few keys, which need no Hydra: the same words as elsewhere, and flags too.

``key=value`` and ``--key value`` and ``--key=value`` say the same; a list is ``key=[a,b]`` or ``--key a b``, and a flag
without a value is ``true``. What a command takes is a dataclass whose docstring says what the keys mean.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from morenas.base.errors import InputError, suggest
from morenas.base.settings import check_name
from morenas.run.ending import exit_status
from morenas.run.listing import HELP, Key, key, listed, written
from morenas.run.processes import check_alone


@dataclass(frozen=True)
class WordCommand:
    """A command of a few keys.

    Attributes:
        about: What it does, with examples, for ``--help``.
        settings: The dataclass of its keys; one without a default has to be set.
        execute: Does the work.
        places: The key that words without one belong to; empty if there is none.
        retired: Keys that there were, and what takes their place.
    """

    about: str
    settings: type[Any]
    execute: Callable[[Any], None]
    places: str = ""
    retired: Mapping[str, str] = field(default_factory=dict)


def run_words(command: WordCommand, words: Sequence[str] | None = None) -> None:
    """Do what the command line says, and end as every command does.

    Args:
        words: None for those of this process.
    """
    words = sys.argv[1:] if words is None else words
    with exit_status():
        if set(words) & set(HELP):
            print(usage(command))
        else:
            check_alone()
            command.execute(parse(command, words))


def usage(command: WordCommand) -> str:
    """What a command does, and what its keys mean."""
    return "\n".join(
        [command.about, "", "Every key is set by key=value, or by --key value.", "", *listed(keys_of(command))]
    )


def keys_of(command: WordCommand) -> list[Key]:
    """Every key of a command with its default and what it means."""
    plain: Any = OmegaConf.to_container(OmegaConf.structured(command.settings))
    return [key(_word(one.name), plain[one.name], command.settings, one) for one in fields(command.settings)]


def parse(command: WordCommand, words: Sequence[str]) -> Any:
    """The settings that words give.

    Raises:
        InputError: If a key is unknown, given twice or missing, or a value is of the wrong type.
    """
    settings = OmegaConf.structured(command.settings)
    declared = {one.name: one for one in fields(command.settings)}
    for name, values in _gathered(command, words).items():
        value = _value(command.settings, name, values)
        check_name(declared[name], value, _word(name))
        try:
            OmegaConf.update(settings, name, value)
        except OmegaConfBaseException as error:
            raise InputError(f"{_word(name)}={written(value)}: {str(error).splitlines()[0]}") from error
    if missing := [name for name in settings if OmegaConf.is_missing(settings, name)]:
        raise InputError(f"{', '.join(map(str, missing))}: must be set; --help says how.")
    parsed: Any = OmegaConf.to_object(settings)
    return parsed


def _gathered(command: WordCommand, words: Sequence[str]) -> dict[str, list[str]]:
    """The words that belong to each key, by the name of its field, in their order."""
    known = {_word(one.name): one.name for one in fields(command.settings)}
    found: dict[str, list[str]] = {}
    flag = ""  # the key of a flag that further words may belong to
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_") if word.startswith("--") else name
        if word.startswith("--") or (equals and name.isidentifier()):
            if name in command.retired:
                raise InputError(f"{name}: is no key any more: {command.retired[name]}.")
            if name not in known or known[name] in found:
                wrong = "is given twice" if name in known else f"there is no such key{suggest(name, known)}"
                path = f" A path that holds = is given as {shlex.quote(f'./{word}')}." if Path(word).exists() else ""
                raise InputError(f"{name}: {wrong}. The keys are {', '.join(known)}.{path}")
            name = known[name]
            found[name] = [value] if equals else []
            flag = "" if equals or _type(command.settings, name) is bool else name  # a switch takes no word
        elif flag and (_is_list(command.settings, flag) or not found[flag]):
            found[flag].append(word)
        elif command.places:
            found.setdefault(command.places, []).append(word)
        else:
            raise InputError(f"{word}: give key=value. The keys are {', '.join(known)}.")
    return found


def _word(name: str) -> str:
    """The key of a field; where the key is a word of Python's own, the field has an underscore after it."""
    return name.removesuffix("_")


def _value(settings: type[Any], name: str, values: Sequence[str]) -> Any:
    values = [os.path.expanduser(value) for value in values]  # a shell expands ~ at the start of a word alone
    if _is_list(settings, name):
        whole = len(values) == 1 and values[0].startswith("[") and values[0].endswith("]")
        return [os.path.expanduser(one.strip()) for one in values[0][1:-1].split(",")] if whole else list(values)
    if not values:
        if _type(settings, name) is not bool:
            raise InputError(f"{name}: needs a value: {name}=<value>.")
        return True
    return None if values == ["null"] else values[0]


def _type(settings: type[Any], name: str) -> Any:
    return get_type_hints(settings)[name]


def _is_list(settings: type[Any], name: str) -> bool:
    hint = _type(settings, name)
    return any(get_origin(one) in (list, tuple) for one in (hint, *get_args(hint)))
