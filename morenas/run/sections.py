"""Sections of the command line, made of the dataclasses that the library takes.

A setting is declared once, in the library: its type, its default, the names that it may take, what it means. A section
takes it from there (``section``), and what the user set goes back into the library's dataclass (``fill``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, field, fields, make_dataclass
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import omegaconf

from morenas.base.registry import registry
from morenas.base.settings import TEXTS, meanings

T = TypeVar("T")

OWN = "own"
"""In the metadata of a setting that belongs to what its section chooses by name, such as ``relaxation.power``."""
SCALARS = (bool, int, float, str)


def section(
    library: type[Any],
    only: Collection[str] | None = None,
    leave: Collection[str] = (),
    keys: type[Any] | None = None,
    own: bool = False,
) -> type[Any]:
    """A section with the fields of a dataclass of the library: same types, defaults, names and meanings.

    A field that takes no plain value, but an object, is for Python alone and left out.

    Args:
        library: The dataclass.
        only: Fields to take; None for all.
        leave: Fields not to take.
        keys: A dataclass of the keys that only the command line has; it becomes the section's base.
        own: The fields are settings of what the section chooses by name.
    """
    types = _plain_types(library)
    wanted = set(types if only is None else only) - set(leave)
    taken = [one for one in fields(library) if one.init and one.name in wanted & set(types)]
    hints = get_type_hints(library)
    made = [(one.name, types[one.name], _copy(one, {OWN: own, TEXTS: _is_texts(hints[one.name])})) for one in taken]
    bases = () if keys is None else (keys,)
    doc = _documentation({one.name: meanings(library).get(one.name, "") for one in taken})
    return make_dataclass(library.__name__, made, bases=bases, namespace={"__doc__": doc}, kw_only=True)


def choice(library: type[Any], name: str) -> type[Any]:
    """A section with one key, ``name``: that of a registered object, which a field of the library takes."""
    (declared,) = (one for one in fields(library) if one.name == name)
    doc = _documentation({"name": meanings(library)[name]})
    return make_dataclass(name, [("name", _name_type(declared), _copy(declared, {}))], namespace={"__doc__": doc})


class Door(NamedTuple):
    """How a section chooses an object.

    Attributes:
        key: The key that says which, such as "name".
        kind: Of the object, such as "relaxation".
    """

    key: str
    kind: str


def door_of(made: type[Any]) -> Door | None:
    """How a section chooses the object whose settings it may hold: by its one key that takes a registered name."""
    doors = [one for one in fields(made) if "door" in one.metadata and not one.metadata.get(OWN)]
    return Door(doors[0].name, doors[0].metadata["door"]) if len(doors) == 1 else None


def fill(library: type[T], *sections: Any, **values: Any) -> T:
    """Make a dataclass of the library from what the user set.

    Args:
        sections: Looked into for each field by its name; the first that has it decides. What none has keeps its
            default.
        values: Fields whose values are worked out, whatever the sections say.
    Raises:
        InputError: If the library refuses a value.
    """
    found, types = dict(values), _plain_types(library)
    for declared in fields(library):  # type: ignore[arg-type]
        holder = next((one for one in sections if hasattr(one, declared.name)), None)
        if declared.init and declared.name not in found and holder is not None:
            found[declared.name] = _settle(getattr(holder, declared.name), types.get(declared.name))
    return library(**found)


def own_settings(made: Any) -> dict[str, Any]:
    """The settings, of what a section chooses by name, that were set."""
    return {one.name: _settle(getattr(made, one.name), one.type) for one in fields(made) if one.metadata.get(OWN)}


def chosen(made: Any) -> Any:
    """What a section chooses: a name, or, where settings of its own were set, the object made with them.

    Raises:
        InputError: If there is no such object, or it refuses a setting.
    """
    door, own = door_of(type(made)), own_settings(made)
    if door is None:
        raise TypeError(f"{type(made).__name__}: chooses nothing by name")
    name = getattr(made, door.key)
    return registry(door.kind).build(name, **own) if own else name


def _plain_types(library: type[Any]) -> dict[str, Any]:
    """The type of every field that a command line can set, as OmegaConf takes it."""
    hints = get_type_hints(library)
    doors = {one.name: _name_type(one) for one in fields(library) if "door" in one.metadata}
    found = {one.name: _plain(hints[one.name]) for one in fields(library)}
    return {name: kind for name, kind in {**found, **doors}.items() if kind is not None}


def _name_type(declared: Field[Any]) -> Any:
    return str | None if declared.default is None else str


def _plain(hint: Any) -> Any:
    """A type as OmegaConf takes it; None where a command line cannot set it."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or hint in SCALARS:
        return hint
    if origin in (Union, UnionType):
        plain = [_plain(one) for one in inner if one is not NoneType]
        return None if len(plain) != 1 or plain[0] is None else Any if plain[0] is Any else plain[0] | None
    if _is_texts(hint):
        return Any  # of a list of text OmegaConf makes text of anything: no, unquoted in a YAML file, would be 'False'
    if origin in (list, tuple):
        return hint if _plain(inner[0]) is not None else None
    # OmegaConf neither adds keys to a typed mapping nor merges one into null.
    return Any if isinstance(origin, type) and issubclass(origin, Mapping) else None


def _is_texts(hint: Any) -> bool:
    return any(get_origin(one) in (list, tuple) and get_args(one)[0] is str for one in (hint, *get_args(hint)))


def _copy(declared: Field[Any], metadata: Mapping[str, Any]) -> Any:
    metadata = {**declared.metadata, **metadata}
    if declared.default_factory is not MISSING:
        return field(default_factory=declared.default_factory, metadata=metadata)
    default = omegaconf.MISSING if declared.default is MISSING else declared.default
    return field(default=default, metadata=metadata)


def _documentation(means: Mapping[str, str]) -> str:
    """A docstring from which ``meanings`` reads what fields mean, as it does for the keys in the section's base."""
    entries = (f"    {name}: {meaning}" for name, meaning in means.items())
    return "\n".join(["A section of the command line.", "", "Attributes:", *entries])


def _settle(value: Any, kind: Any) -> Any:
    """OmegaConf gives lists; the library has tuples where nothing may change."""
    inner = next((one for one in (kind, *get_args(kind)) if get_origin(one) is tuple), None)
    return tuple(value) if inner is not None and isinstance(value, list) else value
