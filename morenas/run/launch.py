"""From a command line to a run, and from an error to one message and an exit status.

Status 0: done. 1: failed in work that was begun. 2: input was refused.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from morenas.base.errors import InputError, RunError
from morenas.models.quiet import quiet_quantizers
from morenas.run.composing import config_directory, explain, key_of, register_schemas, to_config
from morenas.run.directory import RunDirectory
from morenas.run.reading import read_unfinished
from morenas.run.schema import RunConfig
from morenas.run.usage import print_usage

Execute = Callable[[Any, RunDirectory], float]

REFUSED = 2


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
    quiet_quantizers()
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
        _refuse(explain(error, schema))
    except RunError as error:
        _fail(error)


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
            message = str(error) if isinstance(error, InputError) else explain(error, schema)
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
    if extra := [word for word in sys.argv[1:] if key_of(word) != "resume"]:
        raise InputError(
            f"resume={path}: a resumed run keeps its own configuration; leave out {' '.join(extra)}, or start a "
            "new run."
        )
    record = read_unfinished(path, command)
    _execute(command, execute, to_config(OmegaConf.create(record.config), schema), RunDirectory(path))


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
    given = {word.partition("=")[2].strip("'\"") for word in words if key_of(word) == "resume"} - {"null"}
    if len(given) > 1 or "" in given:
        raise InputError(f"resume={' resume='.join(sorted(given))}: name one run directory.")
    return Path(given.pop()) if given else None


def _fail(error: RunError) -> NoReturn:
    sys.exit(f"morenas: failed: {error}")


def _refuse(message: str) -> NoReturn:
    print(f"morenas: error: {message}", file=sys.stderr)
    sys.exit(REFUSED)
