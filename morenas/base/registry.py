"""Doors: what is chosen by name, and how code from outside comes in under a name of its own.

Every closed vocabulary is a registry. ``morenas.base.builtin`` lists what comes with morenas, so that names can be
listed and checked without an import; an object is imported when it is asked for. A plug-in adds to a registry with
``register``. It is a module, named by the setting ``plugins`` or by an entry point of the group ``morenas.plugins``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from morenas.base.builtin import BUILTIN, NEEDS
from morenas.base.consent import require_consent
from morenas.base.errors import InputError, suggest
from morenas.base.plain import plain, settings_of

GROUP = "morenas.plugins"
"""Entry points of installed packages whose modules register what they bring."""


class Registry:
    """The objects of one kind, by name.

    An object is a class, which is called with its settings, or anything else, which is taken as it is. The settings of
    a class are the fields of the dataclass that it is.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self._targets: dict[str, Any] = dict(builtin)

    def names(self) -> tuple[str, ...]:
        """Every name, ours first, then those of plug-ins."""
        load_installed_plugins()
        return tuple(self._targets)

    def register(self, name: str, target: Any) -> None:
        """Add an object, or ``"package.module:Name"`` for one that is imported when it is asked for.

        Raises:
            InputError: If another object has the name.
        """
        if self._targets.setdefault(name, target) != target:
            raise InputError(f"{self.kind} '{name}': is registered already; choose another name.")

    def check(self, name: str, key: str = "") -> None:
        """Refuse a name that nothing has.

        Args:
            key: The setting that the name was given for; None for the kind.
        Raises:
            InputError: With the nearest name and all there are; or if it would be imported, and the user has not
                named its module.
        """
        if name in self._targets:
            return
        if ":" in name:
            _require_consent([name.partition(":")[0]], f"{key or self.kind}={name}")
        elif name not in self.names():
            known = self.names()
            raise InputError(
                f"{key or self.kind}={name}: there is no such {self.kind}{suggest(name, known)}. "
                f"Choose from {', '.join(known)}."
            )

    def is_loaded(self, name: str) -> bool:
        """Whether the object of a name is there without importing anything."""
        target = self._targets.get(name, name)
        return not isinstance(target, str) or target.partition(":")[0] in sys.modules

    def check_object(self, given: Any, key: str = "") -> None:
        """Refuse an object that is not what this kind is; a class is looked at once it is made.

        Raises:
            InputError: With what it lacks.
        """
        protocol, members = NEEDS.get(self.kind, ("", ()))
        lacking = [member for member in members if not hasattr(given, member)]
        if lacking and not isinstance(given, type):
            raise InputError(
                f"{key or self.kind}={given!r}: has no {', '.join(lacking)}. Give a name, or an object as {protocol} "
                "says; docs/extending.md shows one."
            )

    def get(self, given: Any) -> Any:
        """The object of a name, or of ``"package.module:Name"``; what is no text is given back.

        Raises:
            InputError: If there is none.
        """
        if not isinstance(given, str):
            return given
        self.check(given)
        target = self._targets.get(given, given)
        return _imported(target, self.kind) if isinstance(target, str) else target

    def build(self, given: Any, **settings: Any) -> Any:
        """The object of a name, made with its settings where it is a class; what is no text is given back.

        Raises:
            InputError: If there is none, or it has no such setting.
        """
        target = self.get(given)
        if not settings and not isinstance(target, type):
            self.check_object(target)
            return target
        known = self.settings(given) if isinstance(target, type) else None
        for key in settings:
            if known is not None and key not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise InputError(f"{self.kind} {given} has no setting '{key}'; {has}{suggest(key, known)}.")
        made = target(**settings) if isinstance(target, type) else functools.partial(target, **settings)
        self.check_object(made)
        return made

    def settings(self, given: Any) -> tuple[str, ...]:
        """Names of the settings of its own that an object takes."""
        target = self.get(given)
        return tuple(field.name for field in fields(target) if field.init) if is_dataclass(target) else ()

    def chosen_by(self, given: Any) -> str:
        """What chooses an object, its class or its function: its name, or its ``module:Name`` where it has none."""
        if isinstance(given, str):
            return given
        made = given.func if isinstance(given, functools.partial) else given
        target = made if hasattr(made, "__qualname__") else type(made)
        place = f"{target.__module__}:{target.__qualname__}"
        return next((name for name, known in self._targets.items() if known in (target, place)), place)

    def record(self, given: Any) -> Any:
        """What was chosen, for a file: a name as it is, an object as ``{"name": …}`` and its settings."""
        if isinstance(given, str):
            return given
        settings = given.keywords if isinstance(given, functools.partial) else settings_of(given)
        return {"name": self.chosen_by(given), **{key: plain(value) for key, value in settings.items()}}


REGISTRIES = {kind: Registry(kind, builtin) for kind, builtin in BUILTIN.items()}


def registry(kind: str) -> Registry:
    """The registry of a kind.

    Raises:
        InputError: If there is no such kind.
    """
    if kind not in REGISTRIES:
        raise InputError(f"register: there is no door '{kind}'{suggest(kind, REGISTRIES)}; there are {_listed()}.")
    return REGISTRIES[kind]


def register(kind: str, name: str, target: Any) -> None:
    """Bring in an object of your own under a name, so that settings and command lines can choose it.

    Args:
        kind: Which door, such as "relaxation"; ``docs/extending.md`` shows each.
        name: What it is chosen by.
        target: A class, whose dataclass fields are its settings; or a function; or ``"package.module:Name"`` of either.
    Raises:
        InputError: If there is no such door, or the name is taken.
    """
    registry(kind).register(name, target)


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that register what they bring.

    Raises:
        InputError: If one cannot be imported, or a run's record alone names it.
    """
    modules = list(modules)
    _require_consent(modules, f"plugins=[{','.join(modules)}]")
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise InputError(
                f"plugins={module}: cannot be imported ({error}); it must be a module that Python finds, installed or "
                "in the folder that the command is run from."
            ) from error


@functools.cache
def load_installed_plugins() -> None:
    """Load, once, what installed packages bring by an entry point."""
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except ImportError as error:
            raise InputError(
                f"plug-in '{point.name}' ({point.value}): cannot be imported ({error}); fix or remove its package."
            ) from error


def _require_consent(modules: Iterable[str], who: str) -> None:
    """As ``require_consent``; what an installed package brings by an entry point is loaded whatever a record says."""
    installed = {point.module for point in entry_points(group=GROUP)}
    require_consent([module for module in modules if module not in installed], who)


def _imported(target: str, kind: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{kind}={target}: cannot be imported ({error}); give package.module:Name.") from error


def _listed() -> str:
    return ", ".join(REGISTRIES)
