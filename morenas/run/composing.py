"""The configuration: composed by Hydra, checked against its schema, turned into dataclasses."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import AnyNode, DictConfig, OmegaConf, StringNode
from omegaconf.errors import OmegaConfBaseException

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.base.settings import check_names, no_text
from morenas.run.config import RunConfig
from morenas.run.hydra_errors import explain, no_such_key
from morenas.run.plugins import load
from morenas.run.sections import Door, door_of, section

Schema = type[RunConfig]


def register_schema(command: str, schema: Schema) -> None:
    """Make a command's schema and the resolvers known to Hydra.

    A section that chooses an object by name is left open: what keys it has depends on the choice, and ``to_config``
    checks them. Where a text is meant, any value is let through to it: OmegaConf would make the text 'False' of no.
    """
    node = _taking_any_scalar(OmegaConf.structured(schema))
    for name in doors_of(schema):
        OmegaConf.set_struct(node[name], False)
    ConfigStore.instance().store(name=f"{command}_schema", node=node)
    OmegaConf.register_new_resolver("morenas.task_slug", _task_slug, replace=True)


def compose_words(command: str, words: Iterable[str]) -> DictConfig:
    """What words of a command line set, composed as Hydra does it for a run; its schema has to be registered."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=config_directory(), version_base="1.3"):
        return compose(config_name=command, overrides=list(words))


def config_directory() -> str:
    """The folder of configs: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return str(inside if inside.is_dir() else package.parent / "configs")


def to_config(composed: DictConfig, schema: Schema) -> Any:
    """Check a composed config once more against its schema and turn it into dataclasses.

    Hydra's ``+key=value`` adds keys behind a schema's back; here they are refused.

    Raises:
        InputError: Naming the full path of an unknown or missing key, of a wrong type, or of a name that nothing has.
    """
    load(composed.get("plugins") or ())  # named in a YAML, or by a run that is gone on with
    if OmegaConf.is_missing(composed.task, "name"):
        raise InputError("No task was chosen: add +task=<name>, for example +task=demo or +task=glue/rte.")
    composed = untyped(composed)
    typed = typed_node(composed, schema)
    _check_keys(composed, typed, doors_of(schema))
    _check_texts(composed, typed)
    try:
        merged = OmegaConf.merge(typed, composed)
        if missing := sorted(OmegaConf.missing_keys(composed) | OmegaConf.missing_keys(merged)):
            raise InputError(f"{', '.join(missing)}: must be set, for example {missing[0]}=<value>")
        config: Any = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise InputError(explain(error, declared(typed), sys.argv[1:])) from error
    check_all_names(config)
    return config


def untyped(composed: DictConfig) -> DictConfig:
    """The values of a config alone: of two types for a section, OmegaConf would merge neither into the other."""
    return OmegaConf.create(OmegaConf.to_container(composed))  # type: ignore[return-value]


def typed_node(composed: DictConfig, schema: Schema, whole: Collection[str] = ()) -> DictConfig:
    """The schema of one run: every section with the settings of what it chooses by name.

    What is chosen is imported only where a setting of its own was set, so that other wrong input is refused quickly.

    Args:
        whole: Sections to have them whatever was set.
    Raises:
        InputError: If there is no such object, or a setting of its own has the name of another key of the section.
    """
    node = OmegaConf.structured(schema)
    for name, door in doors_of(schema).items():
        if composed[name].get(door.key) is None:
            continue  # the library chooses
        chosen = str(composed[name][door.key])
        registry(door.kind).check(chosen, f"{name}.{door.key}")
        wanted = name in whole or set(composed[name]) - set(node[name])
        if wanted or registry(door.kind).is_loaded(chosen):
            own: Any = registry(door.kind).get(chosen)
            if isinstance(own, type) and is_dataclass(own):
                _check_own_names(own, set(node[name]), f"{name}.{door.key}={chosen}")
                if wanted:
                    node[name] = section(own, keys=OmegaConf.get_type(node, name), own=True)
    return node


def doors_of(schema: Schema) -> dict[str, Door]:
    """Section to how it chooses the object whose settings it may hold."""
    node = OmegaConf.structured(schema)
    made = {name: OmegaConf.get_type(node, name) for name in map(str, node)}
    doors = {name: door_of(one) for name, one in made.items() if is_dataclass(one)}
    return {name: door for name, door in doors.items() if door is not None}


def groups_of(schema: Schema) -> dict[str, str]:
    """Section that is a group of Hydra's, as in ``relaxation=gumbel``, to the kind of object that it chooses."""
    return {name: door.kind for name, door in doors_of(schema).items() if door.key == "name"}


def check_all_names(config: Any, section: str = "") -> None:
    """Refuse, in every section, a name that its key does not take."""
    check_names(config, section)
    for declared in fields(config):
        value = getattr(config, declared.name)
        if is_dataclass(value):
            check_all_names(value, f"{section}.{declared.name}".lstrip("."))


def declared(node: DictConfig, prefix: str = "") -> dict[str, tuple[type[Any], Field[Any]]]:
    """Every key of a schema, with its full path, to the dataclass that declares it and its field there."""
    made: Any = OmegaConf.get_type(node)
    found = {}
    for one in fields(made):
        found[f"{prefix}{one.name}"] = made, one
        if is_dataclass(OmegaConf.get_type(node, one.name)):
            found |= declared(node[one.name], f"{prefix}{one.name}.")
    return found


def leaves(keys: Collection[str]) -> list[str]:
    """The keys that no other key stands below."""
    sections = {key.rpartition(".")[0] for key in keys}
    return [key for key in keys if key not in sections]


def text_keys(schema: Schema) -> set[str]:
    """Every key that takes a text."""
    return {key for key, node in _nodes(OmegaConf.structured(schema)) if isinstance(node, StringNode)}


def known_keys(schema: Schema) -> list[str]:
    """Every key of a schema, but those that depend on what is chosen by name."""
    return sorted(declared(OmegaConf.structured(schema)))


def _taking_any_scalar(node: DictConfig) -> DictConfig:
    """The same schema with anything in the place of a text."""
    for name in map(str, node):
        child = node._get_node(name)
        if isinstance(child, StringNode):
            node._content[name] = AnyNode(child._value(), key=name, parent=node)  # type: ignore[index]
        elif isinstance(child, DictConfig) and child:
            _taking_any_scalar(child)
    return node


def _check_texts(composed: DictConfig, typed: DictConfig) -> None:
    """Refuse a number or a truth value in the place of a text: it is no longer what the user wrote."""
    meant = {key: node for key, node in _nodes(typed) if isinstance(node, StringNode)}
    for key, node in _nodes(composed):
        value = node._value() if key in meant else ""
        if isinstance(value, bool | int | float) or (value is None and not meant[key]._is_optional()):
            raise no_text(value, key)


def _nodes(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that no other stands below, and its node."""
    for name in map(str, config):
        child: Any = config._get_node(name)
        if isinstance(child, DictConfig) and child:
            yield from _nodes(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _check_own_names(own: type[Any], taken: Collection[str], who: str) -> None:
    if clash := sorted({one.name for one in fields(own)} & set(taken)):
        raise InputError(
            f"{who}: its setting '{clash[0]}' has the name of another key here; it needs a name of its own."
        )


def _check_keys(composed: DictConfig, typed: DictConfig, doors: Mapping[str, Door]) -> None:
    there = declared(typed)
    free = tuple(f"{key}." for key in leaves(there) if there[key][1].type is Any)
    for key in _keys(composed):
        if key in there or key.startswith(free):  # under a key that takes anything stand names of the user's own
            continue
        section = key.partition(".")[0]
        raise InputError(no_such_key(key, there, _choice(composed, section, doors)))


def _choice(composed: DictConfig, section: str, doors: Mapping[str, Door]) -> str:
    """What decides about the keys of a section, as it is written on a command line; empty where nothing is chosen."""
    if section not in doors or composed[section][doors[section].key] is None:
        return ""
    key = doors[section].key
    return f"{section}{'' if key == 'name' else f'.{key}'}={composed[section][key]}"


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, config):
        key = f"{prefix}{name}"
        yield key
        if not OmegaConf.is_missing(config, name) and isinstance(child := config._get_node(name), DictConfig) and child:
            yield from _keys(child, f"{key}.")


def _task_slug(*_: str, _root_: DictConfig) -> str:
    return str(OmegaConf.select(_root_, "task.name", default=None, throw_on_missing=False) or "no-task").replace(
        "/", "-"
    )
