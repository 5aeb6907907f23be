"""Tables of every setting for the site, made from what ``--help`` is made of: nothing is written twice."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterable, Sequence

from morenas.base.builtin import BUILTIN
from morenas.base.registry import registry
from morenas.finetune.phase import COMMAND as FINETUNE
from morenas.run.composing import compose_words, sections_with_a_choice, untyped
from morenas.run.launch import CONFIGS, Command, prepare
from morenas.run.listing import Key
from morenas.run.plugins import choices
from morenas.run.usage import by_section, groups_of, keys
from morenas.search.phase import COMMAND as SEARCH

OTHERS = ("export", "compare", "benchmark")
"""Commands with a few words of their own, without sections."""


@functools.cache  # a preview makes pages anew at every change
def settings_tables() -> str:
    """Every command with its groups and keys, as Markdown; no plug-in is known to it."""
    plain = {command: _keys(command, [], []) for command in (SEARCH, FINETUNE)}
    common = [one for one in plain[SEARCH] if one in plain[FINETUNE]]
    parts = ["## search and finetune", "", *_sections(SEARCH, common)]
    for command, there in plain.items():
        own = [one for one in there if one not in common]
        parts += [f"## python -m morenas.{command.name}", "", *_groups(command), *_sections(command, own)]
    return "\n".join([*parts, *(part for name in OTHERS for part in _help(name))])


def _sections(command: Command, there: Sequence[Key]) -> list[str]:
    """Keys by section, each with the settings that its choices have of their own."""
    chosen = sections_with_a_choice(command.schema)
    parts = []
    for section, some in by_section(there).items():
        parts += [f"### {section}", "", *_table(some)] if some else []
        if section in chosen and f"{section}.name" in {one.path for one in some}:
            parts += _of_choices(command, section, chosen[section], {one.path for one in some})
    return parts


def _keys(command: Command, words: Sequence[str], topics: Sequence[str]) -> list[Key]:
    """The keys of a command as words set them, with those of what the topics choose."""
    prepare(command.name, command.schema, [])
    return keys(untyped(compose_words(command.name, words)), command.schema, topics)


def _groups(command: Command) -> list[str]:
    """The groups, each with its choices."""
    rows = [
        f"| `{group}` | {', '.join(f'`{name}`' for name in choices(group, CONFIGS, kind))} |"
        for group, kind in groups_of(command.schema, CONFIGS).items()
    ]
    return ["| group | choices |", "|---|---|", *rows, ""]


def _of_choices(command: Command, section: str, kind: str, told: set[str]) -> list[str]:
    """Settings that a choice of a section has and the default one has not."""
    parts = []
    for name in filter(registry(kind).settings, BUILTIN[kind]):
        own = [one for one in _keys(command, [f"{section}={name}"], [section]) if one.path.startswith(f"{section}.")]
        if new := [one for one in own if one.path not in told]:
            parts += [f"With `{section}={name}`:", "", *_table(new)]
    return parts


def _table(keys: Iterable[Key]) -> list[str]:
    rows = [f"| `{one.path}` | `{one.value}` | {_cell(one.meaning)} |" for one in keys]
    return ["| key | default | meaning |", "|---|---|---|", *rows, ""]


def _cell(text: str) -> str:
    """Text inside a table: no character of Markdown's or HTML's."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _help(command: str) -> list[str]:
    words = [sys.executable, "-m", f"morenas.{command}", "--help"]
    text = subprocess.run(words, capture_output=True, text=True, check=True, cwd=CONFIGS.parent).stdout
    return [f"## python -m morenas.{command}", "", "```text", text.strip(), "```", ""]
