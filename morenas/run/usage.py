"""What ``--help`` says. Hydra's own would take seconds to list the groups and name neither command nor task."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from morenas.base.errors import InputError, suggest
from morenas.base.registry import registry
from morenas.run.composing import Schema, compose_words, declared, doors_of, groups_of, leaves, typed_node, untyped
from morenas.run.listing import HELP, WIDTH, Key, key, listed
from morenas.run.plugins import choices


def usage(command: str, about: str, schema: Schema, configs: Path, words: Sequence[str]) -> str:
    """What a command does, the groups and their choices, and every key as ``words`` set it.

    Args:
        about: What the command does, with examples.
        words: Of the command line. One without ``=``, such as ``training`` or ``training.evals``, is what help is
            wanted on: that alone is shown.
    Raises:
        InputError: If there is nothing of that name.
    """
    topics = [word for word in words if "=" not in word and word not in HELP]
    composed = untyped(compose_words(command, [word for word in words if "=" in word]))
    sections = by_section(keys(composed, schema, topics))
    groups = {group: choices(group, configs, kind) for group, kind in all_groups(schema, configs).items()}
    if topics:
        return "\n".join(line for topic in topics for line in _on(topic, sections, groups))
    lines = [about, "", "A task is chosen by +task=name, any other group by group=choice:", ""]
    for group, names in groups.items():
        lines += textwrap.wrap(
            ", ".join(names),
            WIDTH,
            initial_indent=f"    {group:<14} ",
            subsequent_indent=" " * 19,
            break_on_hyphens=False,
        )
    lines += ["", "Every key is set by key=value. Listed are its value and what it means.", ""]
    for section, there in sections.items():
        lines += [section, *listed(there), ""]
    return "\n".join([*lines, "More: --help <section or key>; --cfg job prints the configuration alone."])


def keys(composed: DictConfig, schema: Schema, topics: Collection[str]) -> list[Key]:
    """Every key that holds a value, with the settings of what is chosen by name where that takes no import."""
    wanted = {topic.partition(".")[0] for topic in topics}
    loaded = {
        section
        for section, door in doors_of(schema).items()
        if section in wanted or registry(door.kind).is_loaded(str(composed[section][door.key]))
    }
    typed = typed_node(composed, schema, loaded)
    values: Any = OmegaConf.to_container(OmegaConf.merge(typed, composed))  # references to other keys stay as written
    there = declared(typed)
    return [key(path, reduce(getitem, path.split("."), values), *there[path]) for path in leaves(there)]


def by_section(keys: Sequence[Key]) -> dict[str, list[Key]]:
    """Keys under the first part of their path; those of one part come first."""
    found: dict[str, list[Key]] = {"run": []}
    for one in keys:
        section = one.path.partition(".")[0] if "." in one.path else "run"
        found.setdefault(section, []).append(one)
    return found


def all_groups(schema: Schema, configs: Path) -> dict[str, str | None]:
    """Groups of Hydra's that are sections of a command, or may set any of them, to the kind of object they choose."""
    kinds = groups_of(schema)
    sections = {*OmegaConf.structured(schema), "experiment"}
    folders = {path.name for path in configs.iterdir() if path.is_dir()}
    return {group: kinds.get(group) for group in sorted((folders | set(kinds)) & sections)}


def _on(topic: str, sections: Mapping[str, Sequence[Key]], groups: Mapping[str, Sequence[str]]) -> list[str]:
    there = [one for some in sections.values() for one in some]
    found = [one for one in there if one.path == topic or one.path.startswith(f"{topic}.")] or sections.get(topic)
    if not found and topic not in groups:
        known = [*sections, *groups, *(one.path for one in there)]
        raise InputError(f"--help {topic}: there is no such section or key{suggest(topic, known)}.")
    chosen = [f"{topic}={'|'.join(groups[topic])}", ""] if topic in groups else []
    return [*chosen, *(listed(found) if found else []), ""]
