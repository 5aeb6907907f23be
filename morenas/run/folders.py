"""Folders of configs beside our own, which anybody may have written.

What Hydra is told of itself can run code: callbacks and formatters of logs are made of whatever a config names, and
variables of the environment decide which programs run. These the command line alone sets, never a YAML file. Of modules
that a file names, those are imported that the command line names too.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from morenas.base.consent import only
from morenas.base.errors import InputError
from morenas.run import plugins
from morenas.run.quoting import key_of

RUNS_CODE = ("callbacks", "launcher", "job_logging", "hydra_logging", "job.env_set")
"""What of Hydra's own settings decides which code runs."""
ADDS = ("hydra.searchpath", "--config-dir", "-cd")
REPLACES = ("--config-path", "-cp", "--config-name", "-cn")


@contextlib.contextmanager
def checked_folders(words: Sequence[str]) -> Iterator[None]:
    """Let nothing of such a folder run: every configuration that is composed inside is checked, those of a sweep's jobs
    too.

    Args:
        words: Of the command line.
    Raises:
        InputError: If the words put other configs in the place of ours.
    """
    keys = [key_of(word) for word in words]
    if replaced := [key for key in keys if key in REPLACES]:
        raise InputError(
            f"{replaced[0]}: configs of your own stand beside those of morenas, not in their place; name their folder: "
            "'hydra.searchpath=[file://<folder>]'."
        )
    compose = ConfigLoaderImpl.load_configuration

    def checked(loader: Any, *given: Any, **named: Any) -> DictConfig:
        composed = compose(loader, *given, **named)
        call = signature(compose).bind(loader, *given, **named)
        own = [word for word in call.arguments["overrides"] if key_of(word).startswith(("hydra.", "hydra/"))]
        call.arguments["overrides"] = own
        _check(composed, compose(*call.args, **call.kwargs))
        return composed

    with contextlib.ExitStack() as stack:
        if {*keys} & {*ADDS}:
            folders = " ".join(shlex.quote(word) for word in words if key_of(word) in ADDS)
            stack.enter_context(only(folders, "YAML file", {*plugins.named_by(words), *_modules(words)}))
            setattr(ConfigLoaderImpl, "load_configuration", checked)  # noqa: B010  sweeps compose inside Hydra
            stack.callback(setattr, ConfigLoaderImpl, "load_configuration", compose)
        yield


def _modules(words: Sequence[str]) -> set[str]:
    """Modules of the objects that the words choose by ``module:Name``."""
    return {module for word in words for module in re.findall(r"([\w.]+):[A-Za-z_]", word)}


def _check(composed: DictConfig, ours: DictConfig) -> None:
    """Refuse a setting of Hydra's that the words of the command line have not made so.

    Args:
        ours: What the words about Hydra alone make.
    """
    for key in RUNS_CODE:
        if _plain(composed, key) != _plain(ours, key):
            raise InputError(
                f"hydra.{key}: a YAML file sets it, and what it names would run. Files may be anybody's, so it is set "
                f"by a word of the command line alone; leave it out of the file, or give it as one."
            )


def _plain(config: DictConfig, key: str) -> Any:
    found = OmegaConf.select(config, f"hydra.{key}")
    return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
