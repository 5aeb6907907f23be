"""From a command line to a checked configuration, and from an error to one message and an exit status.

Status 0: done. 1: failed in work that was begun. 2: input was refused.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from morenas.errors import InputError, RunError, suggest
from morenas.rundir import RunDirectory, Saved
from morenas.schema import FinetuneRunConfig, RunConfig, SearchRunConfig
from morenas.usage import choices, print_usage

Execute = Callable[[Any, RunDirectory], float]

REFUSED = 2
OPEN_KEYS = ("task.test_splits", "task.test_files")  # mappings of the user's own names


class _Told(InputError):
    """A job's error that has been printed."""


def launch(command: str, schema: type[RunConfig], execute: Execute) -> None:
    """Run ``execute(config, run directory)`` on what the command line says.

    Args:
        command: "search" or "finetune": the name of the primary config.
        schema: Its typed schema.
        execute: Does the work; returns the metric on the select split, which a sweeper maximizes.
    """
    register_schemas()
    # Hydra then raises its errors, so that they can be told in one message and with the right exit status.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        if "--help" in sys.argv[1:] or "-h" in sys.argv[1:]:
            print_usage(command, Path(config_directory()), sys.argv[1:])
        elif (directory := _resumed_directory(sys.argv[1:])) is not None:
            _resume(command, schema, execute, directory)
        else:
            _start(command, schema, execute)
    except _Told:
        sys.exit(REFUSED)
    except InputError as error:
        _refuse(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _refuse(_explain(error, schema))
    except RunError as error:
        _fail(error)


def register_schemas() -> None:
    """Make the schemas and resolvers known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="search_schema", node=SearchRunConfig)
    store.store(name="finetune_schema", node=FinetuneRunConfig)
    OmegaConf.register_new_resolver("morenas.task_slug", _task_slug, replace=True)


def config_directory() -> str:
    """The folder of configs: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return str(inside if inside.is_dir() else package.parent / "configs")


def to_config(config: DictConfig, schema: type[RunConfig]) -> Any:
    """Check a composed config against its schema once more and turn it into dataclasses.

    Hydra's ``+key=value`` adds keys behind a schema's back; here they are refused.

    Raises:
        InputError: Naming the full path of an unknown or missing key.
    """
    typed = OmegaConf.structured(schema)
    known = set(_keys(typed))
    for key in _keys(config):
        if key not in known and not any(key.startswith(f"{parent}.") for parent in OPEN_KEYS):
            raise InputError(no_such_key(key, known))
    if OmegaConf.is_missing(config.task, "name"):
        raise InputError("No task was chosen: add +task=<name>, for example +task=demo or +task=glue/rte.")
    merged = OmegaConf.merge(typed, config)
    if missing := sorted(OmegaConf.missing_keys(config) | OmegaConf.missing_keys(merged)):
        raise InputError(f"{', '.join(missing)}: must be set, for example {missing[0]}=<value>")
    return OmegaConf.to_object(merged)


def _start(command: str, schema: type[RunConfig], execute: Execute) -> None:
    begun = []

    def task(composed: DictConfig) -> float:
        begun.append(True)
        settings = HydraConfig.get()
        directory = RunDirectory(Path(settings.runtime.output_dir))
        try:
            config = to_config(composed, schema)
            if settings.mode == RunMode.MULTIRUN and config.tracking.wandb.group is None:
                config.tracking.wandb.group = Path(settings.sweep.dir).name
            directory.begin(command, config, list(settings.overrides.task))
            return _execute(command, execute, config, directory)
        except RunError as error:
            if settings.mode == RunMode.RUN:
                _fail(error)
            raise
        except (InputError, OmegaConfBaseException) as error:
            chosen = any(word.startswith("hydra.run.dir=") for word in settings.overrides.hydra)
            directory.discard_if_idle(parent=not chosen)  # a folder that the user chose may be there for other reasons
            message = str(error) if isinstance(error, InputError) else _explain(error, schema)
            if settings.mode == RunMode.RUN:
                # Left to Hydra, the error would be preceded by a line of Hydra's own.
                _refuse(message)
            # Hydra raises the first of a sweep's errors again, when all jobs are through.
            print(f"morenas: error: job {settings.job.num}: {message}", file=sys.stderr)
            raise _Told(message) from error

    try:
        hydra.main(version_base="1.3", config_path=config_directory(), config_name=command)(task)()
    except (OSError, ValueError) as error:
        if begun or isinstance(error, (HydraException, OmegaConfBaseException, InputError)):
            raise
        # Until now Hydra alone was at work: it has read the words and made the run directory.
        if isinstance(error, OSError) and error.filename is not None:
            raise InputError(
                f"{error.filename}: cannot be written ({error.strerror}); choose another hydra.run.dir."
            ) from error
        raise InputError(
            f"{' '.join(sys.argv[1:])}: makes no configuration ({error}); a group is chosen by name: training=default."
        ) from error


def _resume(command: str, schema: type[RunConfig], execute: Execute, path: Path) -> None:
    if extra := [word for word in sys.argv[1:] if _key_of(word) != "resume"]:
        raise InputError(
            f"resume={path}: a resumed run keeps its own configuration; leave out {' '.join(extra)}, or start a "
            "new run."
        )
    saved: Saved = RunDirectory(path).saved(command)
    _execute(command, execute, to_config(OmegaConf.create(saved.config), schema), RunDirectory(path))


def _execute(command: str, execute: Execute, config: RunConfig, directory: RunDirectory) -> float:
    """Do the work; if it is cut off, say how to go on."""
    try:
        with directory.held():
            return execute(config, directory)
    except KeyboardInterrupt:
        sys.exit(f"\nInterrupted. Go on with: python -m morenas.{command} resume={directory.path}")
    except (InputError, RunError):
        raise
    except Exception:
        print(f"\nOnce mended, go on with: python -m morenas.{command} resume={directory.path}", file=sys.stderr)
        raise


def _resumed_directory(words: Sequence[str]) -> Path | None:
    given = {word.partition("=")[2].strip("'\"") for word in words if _key_of(word) == "resume"} - {"null"}
    if len(given) > 1 or "" in given:
        raise InputError(f"resume={' resume='.join(sorted(given))}: name one run directory.")
    return Path(given.pop()) if given else None


def _fail(error: RunError) -> NoReturn:
    sys.exit(f"morenas: failed: {error}")


def _refuse(message: str) -> NoReturn:
    print(f"morenas: error: {message}", file=sys.stderr)
    sys.exit(REFUSED)


def _explain(error: Exception, schema: type[RunConfig]) -> str:
    """Tell a config error in one line: the key's full path, what is wrong, the nearest valid name."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None)
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()]
    if key and re.sub(r"\[\d+\]$", "", key) not in known_keys(schema):
        typed = next((word for word in map(_key_of, sys.argv[1:]) if word.startswith(f"{key}.")), key)
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


def _key_of(word: str) -> str:
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
