"""Code of others: modules that the setting ``plugins`` names, and the choices that they add to the command line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from morenas.base.registry import load_plugins, registry
from morenas.run.sections import section


def load(modules: Iterable[str]) -> None:
    """Import plug-ins, from the folder that the command runs in too, but for ``python -P``.

    Raises:
        InputError: If one cannot be imported.
    """
    here = os.getcwd()
    if not sys.flags.safe_path and not {"", here} & set(sys.path):
        sys.path.append(here)
    load_plugins(modules)


def named_by(words: Iterable[str]) -> list[str]:
    """Modules that the words of a command line name as plug-ins, before anything is composed of those words."""
    given = (word.lstrip("+").partition("=") for word in words)
    return [module for key, _, value in given if key == "plugins" for module in re.findall(r"[\w.]+", value)]


def offer(groups: Mapping[str, str], configs: Path) -> None:
    """Make every registered name that has no YAML a choice of Hydra's group, with the defaults of its own settings.

    Args:
        groups: Group to kind of object.
        configs: The folder of YAMLs.
    """
    for group, kind in groups.items():
        for name in registry(kind).names():
            if not (configs / group / f"{name}.yaml").exists():
                ConfigStore.instance().store(group=group, name=name, node={"name": name, **_defaults(kind, name)})


def choices(group: str, configs: Path, kind: str | None) -> list[str]:
    """The choices of a group, those of its folders as ``folder/name``; files whose names begin with ``_`` are none.

    Args:
        kind: What the group chooses of, if that is registered by name.
    """
    files = (path.relative_to(configs / group).with_suffix("") for path in (configs / group).rglob("*.yaml"))
    return sorted({str(file) for file in files if not file.name.startswith("_")} | set(_names(kind)))


def _names(kind: str | None) -> tuple[str, ...]:
    return () if kind is None else registry(kind).names()


def _defaults(kind: str, name: str) -> dict[str, Any]:
    """Defaults of an object's own settings; none for one that would have to be imported for them."""
    target: Any = registry(kind).get(name) if registry(kind).is_loaded(name) else None
    if not isinstance(target, type) or not is_dataclass(target):
        return {}
    defaults: Any = OmegaConf.to_container(OmegaConf.structured(section(target)))
    return dict(defaults)
