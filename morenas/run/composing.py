"""The configuration: composed by Hydra, checked against its schema, and its mistakes told in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from morenas.base.errors import InputError, suggest
from morenas.run.schema import FinetuneRunConfig, RunConfig, SearchRunConfig
from morenas.run.usage import choices

OPEN_KEYS = ("task.test_splits", "task.test_files", "task.mix")  # mappings of the user's own names


def register_schemas() -> None:
    """Make the schemas and resolvers known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="search_schema", node=SearchRunConfig)
    store.store(name="finetune_schema", node=FinetuneRunConfig)
    OmegaConf.register_new_resolver("morenas.task_slug", _task_slug, replace=True)


def config_directory() -> str:
    """The folder of configs: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return str(inside if inside.is_dir() else package.parent / "configs")


def to_config(config: DictConfig, schema: type[RunConfig]) -> Any:
    """Check a composed config against its schema once more and turn it into dataclasses.

    Hydra's ``+key=value`` adds keys behind a schema's back; here they are refused.

    Raises:
        InputError: Naming the full path of an unknown or missing key.
    """
    known = set(known_keys(schema))
    for key in _keys(config):
        if key not in known and not any(key.startswith(f"{parent}.") for parent in OPEN_KEYS):
            raise InputError(no_such_key(key, known))
    if OmegaConf.is_missing(config.task, "name"):
        raise InputError("No task was chosen: add +task=<name>, for example +task=demo or +task=glue/rte.")
    merged = OmegaConf.merge(OmegaConf.structured(schema), config)
    if missing := sorted(OmegaConf.missing_keys(config) | OmegaConf.missing_keys(merged)):
        raise InputError(f"{', '.join(missing)}: must be set, for example {missing[0]}=<value>")
    return OmegaConf.to_object(merged)


def explain(error: Exception, schema: type[RunConfig]) -> str:
    """Tell a config error in one line: the key's full path, what is wrong, the nearest valid name."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None)
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()]
    if key and re.sub(r"\[\d+\]$", "", key) not in known_keys(schema):
        typed = next((word for word in map(key_of, sys.argv[1:]) if word.startswith(f"{key}.")), key)
        return no_such_key(typed, known_keys(schema))
    if key and (unset := re.search(r"interpolation '\$\{(\S+)\}': Incompatible value 'None'", str(cause))):
        return f"{unset[1]}: must be set, for example {unset[1]}=<value>"
    if key:
        return f"{key}: {str(cause).splitlines()[0]}"
    if match := re.search(r"Could not find '(\S+)/(\S+?)'", first):
        # A group may be given as a path, and so may a choice: task/glue=rte is task=glue/rte.
        written = (word.lstrip("+").split("=", 1) for word in sys.argv[1:] if "=" in word)
        group, name = next((pair for pair in written if "/".join(pair) == "/".join(match.groups())), match.groups())
        known = _group_choices(group)
        return f"{group}={name}: there is no such choice{suggest(name, known)}. Choose from {', '.join(known)}."
    if match := re.match(r"Could not override '(.+?)'", first):
        known = known_keys(schema)
        wrong = f"{match[1]}: nothing is chosen yet." if match[1] in known else no_such_key(match[1], known)
        return " ".join([wrong, *rest])
    return " ".join([first, *rest])


def key_of(word: str) -> str:
    """The key that a word of the command line sets."""
    return word.lstrip("+~").split("=")[0]


def no_such_key(key: str, known: Collection[str]) -> str:
    """Say that a key does not exist: with the nearest one that does, or all of its section."""
    section, _, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    if not section or not siblings:
        return f"{key}: there is no such key{suggest(key, known)}."
    # The section is spelled right, so the last part decides: by the whole path every sibling would be near.
    near = suggest(key, [other for last, other in siblings.items() if suggest(name, [last])])
    return f"{key}: there is no such key{near or f'; {section} has ' + ', '.join(sorted(siblings))}."


def known_keys(schema: type[RunConfig]) -> list[str]:
    """Every key of a schema, spelled with its full path."""
    return sorted(_keys(OmegaConf.structured(schema)))


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, config):
        key = f"{prefix}{name}"
        yield key
        if not OmegaConf.is_missing(config, name) and isinstance(child := config._get_node(name), DictConfig) and child:
            yield from _keys(child, f"{key}.")


def _group_choices(group: str) -> list[str]:
    folder = Path(config_directory()) / group
    return choices(folder if folder.is_dir() else Path(config_directory()) / group.split("/")[0])


def _task_slug(*_: str, _root_: DictConfig) -> str:
    return str(OmegaConf.select(_root_, "task.name", default=None, throw_on_missing=False) or "no-task").replace(
        "/", "-"
    )
