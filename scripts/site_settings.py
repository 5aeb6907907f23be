"""Tables of every setting for the site, made from what ``--help`` is made of: nothing is written twice."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from morenas.base.builtin import BUILTIN
from morenas.base.registry import registry
from morenas.benchmark import command as benchmark
from morenas.compare import command as compare
from morenas.export import command as export
from morenas.finetune.phase import COMMAND as FINETUNE
from morenas.run.composing import compose_words, doors_of, untyped
from morenas.run.launch import CONFIGS, Command, prepare
from morenas.run.listing import Key
from morenas.run.plugins import choices
from morenas.run.sections import Door
from morenas.run.usage import all_groups, by_section, keys
from morenas.run.words import keys_of
from morenas.search.phase import COMMAND as SEARCH

SMALL = {"export": export.COMMAND, "compare": compare.COMMAND, "benchmark": benchmark.COMMAND}
"""Commands of a few keys, without sections."""


@functools.cache  # a preview makes pages anew at every change
def settings_tables() -> str:
    """Every command with its groups and keys, as Markdown; no plug-in is known to it."""
    plain = {command: _keys(command, [], []) for command in (SEARCH, FINETUNE)}
    common = [one for one in plain[SEARCH] if one in plain[FINETUNE]]
    parts = ["## search and finetune", "", *_sections(SEARCH, common)]
    for command, there in plain.items():
        own = [one for one in there if one not in common]
        parts += [f"## python -m morenas.{command.name}", "", *_groups(command), *_sections(command, own)]
    for name, small in SMALL.items():
        parts += [f"## python -m morenas.{name}", "", *_table(keys_of(small))]
    return "\n".join(parts)


def _sections(command: Command, there: Sequence[Key]) -> list[str]:
    """Keys by section, each with the settings that its choices have of their own."""
    doors = doors_of(command.schema)
    parts = []
    for section, some in by_section(there).items():
        told = {one.path for one in some}
        parts += [f"### {section}", "", *_table(some)] if some else []
        if section in doors and f"{section}.{doors[section].key}" in told:
            parts += _of_choices(command, section, doors[section], told)
    return parts


def _keys(command: Command, words: Sequence[str], topics: Sequence[str]) -> list[Key]:
    """The keys of a command as words set them, with those of what the topics choose."""
    prepare(command.name, command.schema, [])
    return keys(untyped(compose_words(command.name, words)), command.schema, topics)


def _groups(command: Command) -> list[str]:
    """The groups, each with its choices."""
    rows = [
        f"| `{group}` | {', '.join(f'`{name}`' for name in choices(group, CONFIGS, kind))} |"
        for group, kind in all_groups(command.schema, CONFIGS).items()
    ]
    return ["| group | choices |", "|---|---|", *rows, ""]


def _of_choices(command: Command, section: str, door: Door, told: set[str]) -> list[str]:
    """Settings that a choice of a section has and the default one has not."""
    parts = []
    for name in filter(registry(door.kind).settings, BUILTIN[door.kind]):
        choice = f"{section}={name}" if door.key == "name" else f"{section}.{door.key}={name}"
        own = [one for one in _keys(command, [choice], [section]) if one.path.startswith(f"{section}.")]
        if new := [one for one in own if one.path not in told]:
            parts += [f"With `{choice}`:", "", *_table(new)]
    return parts


def _table(keys: Iterable[Key]) -> list[str]:
    rows = [f"| `{one.path}` | `{one.value}` | {_cell(one.meaning)} |" for one in keys]
    return ["| key | default | meaning |", "|---|---|---|", *rows, ""]


def _cell(text: str) -> str:
    """Text inside a table: no character of Markdown's or HTML's."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
