"""What a command works out once in its process, kept for the hundreds that the tests run in one."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hydra._internal import config_loader_impl as composition
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import Overrides
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from omegaconf import DictConfig

from morenas.run import composing, launch
from morenas.tasks.sources import demo

_list_files, _merge_files = composition.create_defaults_list, ConfigLoaderImpl._compose_config_from_defaults_list
_lists: dict[Hashable, Any] = {}
_merged: dict[int, DictConfig] = {}


def keep() -> None:
    """Keep the schemas, which never change, and which files of configs the words choose, and what these say merged.

    Values that words give are read, checked and merged anew each time, and what is refused is never kept.
    """
    patch = pytest.MonkeyPatch()
    patch.setattr(composing, "doors_of", cache(composing.doors_of))
    patch.setattr(demo, "demo_examples", cache(demo.demo_examples))
    for name in ("register_schema", "text_keys", "known_keys"):
        patch.setattr(launch, name, cache(getattr(launch, name)))
    patch.setattr(composition, "create_defaults_list", _chosen_files)
    patch.setattr(CachingConfigRepository, "__init__", _repository_of_its_own)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", _said_by_files)


def _chosen_files(repo: Any, config_name: str | None, overrides_list: Sequence[Any], **how: bool) -> Any:
    groups = tuple(word.input_line for word in overrides_list if repo.group_exists(word.key_or_group))
    places = tuple((source.provider, source.path) for source in repo.get_sources())
    offered = tuple(_offered(ConfigStore.instance().repo))
    key = config_name, groups, places, offered, tuple(how.items())
    if key not in _lists:
        _lists[key] = _list_files(repo, config_name, list(overrides_list), **how)
        return _lists[key]
    values = Overrides(repo, list(overrides_list)).config_overrides
    return replace(_lists[key], config_overrides=values)


def _repository_of_its_own(self: CachingConfigRepository, delegate: Any) -> None:
    """Hydra copies every schema that is stored; a list of sources of its own is enough."""
    self.delegate, self.cache = copy.copy(delegate), {}


def _offered(stored: dict[str, Any]) -> list[str]:
    """What plug-ins have made choosable."""
    groups = {name: group for name, group in stored.items() if isinstance(group, dict) and name != "hydra"}
    return [f"{name}/{one.name}: {one.node}" for name, group in groups.items() for one in group.values()]


def _said_by_files(self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: Any) -> DictConfig:
    if id(defaults) not in _merged:  # the list lives on in _lists
        _merged[id(defaults)] = _merge_files(self, defaults, repo)
    return copy.deepcopy(_merged[id(defaults)])
