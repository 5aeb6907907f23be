"""From a command line to a run, and from an error to one line and an exit status."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from morenas.base.consent import NAMED, named, only
from morenas.base.errors import InputError, RunError
from morenas.base.processes import ProcessLost
from morenas.models.quiet import quiet_quantizers
from morenas.run import plugins, sweeps
from morenas.run.composing import (
    Schema,
    config_directory,
    groups_of,
    known_keys,
    register_schema,
    text_keys,
    to_config,
)
from morenas.run.directory import RunDirectory, literal
from morenas.run.ending import FAILED, REFUSED, exit_status, fail, refuse, unwritten
from morenas.run.folders import checked_folders
from morenas.run.hydra_errors import explain
from morenas.run.labels import labelled
from morenas.run.listing import HELP
from morenas.run.processes import team, together
from morenas.run.quoting import at_home, kept_as_text, key_of
from morenas.run.reading import RunRecord, is_complete, read_unfinished, typed
from morenas.run.usage import usage

CONFIGS = Path(config_directory())
TRUST = "model.trust_remote_code"
PLUGINS = "plugins"
PLACES = ("hydra.run.dir", "hydra.sweep.dir")
DEFAULT_PLACE = "runs"  # of configs/hydra/morenas.yaml


@dataclass(frozen=True)
class Command:
    """A command whose configuration Hydra composes.

    Attributes:
        name: That of its primary config: "search" or "finetune".
        about: What it does, with examples, for ``--help``.
        schema: Its typed configuration.
        execute: Does the work in a run directory; returns the metric on the select split, which a sweeper maximizes.
        compare: Makes one table of all complete runs in a folder.
    """

    name: str
    about: str
    schema: Schema
    execute: Callable[[Any, RunDirectory], float]
    compare: Callable[[Path], str]


class _JobEnded(Exception):
    """A job of a sweep has failed or was refused, and the error has been printed; its argument is the exit status."""


class Job:
    """What Hydra calls for every run: here, or where a launcher sends it.

    Args:
        words: Of the command line.
    """

    def __init__(self, command: Command, words: Sequence[str]) -> None:
        self.command, self.words, self.begun = command, words, False

    def __call__(self, composed: DictConfig) -> float | list[float]:
        self.begun = True
        return _job(self.command, composed)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.command, self.words)


class _SentJob(Job):
    """A job in a process that this module has not started."""

    def __call__(self, composed: DictConfig) -> float | list[float]:
        with labelled(f"[{HydraConfig.get().job.num}] "), checked_folders(self.words):
            return super().__call__(composed)


def _received(command: Command, words: Sequence[str]) -> Job:
    """A job out of a pickle: a process that a launcher has started knows nothing of what ``launch`` has done."""
    quiet_quantizers()
    prepare(command.name, command.schema, words)
    return _SentJob(command, words)


def launch(command: Command) -> None:
    """Do what the command line says."""
    texts = {*text_keys(command.schema), *PLACES}
    words = [kept_as_text(at_home(word), texts) for word in sys.argv[1:]]
    quiet_quantizers()
    NAMED.clear()
    # Hydra then raises its errors, so that they become one line and the right exit status.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with exit_status(), together(words) as this, exit_status():
            words = sys.argv[1:] = this.words(words)
            prepare(command.name, command.schema, words)
            try:
                _launch(command, words)
            except (HydraException, OmegaConfBaseException) as error:
                raise InputError(_explained(error, command.schema)) from error
    except _JobEnded as job:
        sys.exit(job.args[0])


def prepare(command: str, schema: Schema, words: Sequence[str]) -> None:
    """Make Hydra ready to compose: plug-ins that the words name are loaded, and what they bring can be chosen.

    Raises:
        InputError: If a plug-in cannot be imported.
    """
    register_schema(command, schema)
    plugins.load(plugins.named_by(words))
    plugins.offer(groups_of(schema), CONFIGS)


def _launch(command: Command, words: Sequence[str]) -> None:
    if set(words) & set(HELP):
        print(usage(command.name, command.about, command.schema, CONFIGS, words))
    elif (directory := _resumed_directory(words)) is not None:
        _resume(command, directory, words)
    else:
        with _no_empty_folders(words), checked_folders(words), sweeps.summed_up(command.compare):
            _start(command, words)


def _start(command: Command, words: Sequence[str]) -> None:
    job = Job(command, words)
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=command.name)(job)()
    except (OSError, ValueError) as error:
        if job.begun or isinstance(error, (HydraException, OmegaConfBaseException, InputError)):
            raise
        # Until now Hydra alone was at work: it has read the words and made the run directory.
        if isinstance(error, OSError) and error.filename is not None:
            raise InputError(
                f"{error.filename}: cannot be written ({error.strerror}); choose another hydra.run.dir."
            ) from error
        raise InputError(
            f"{' '.join(words)}: makes no configuration ({error}); a group is chosen by name: training=default."
        ) from error


@contextlib.contextmanager
def _no_empty_folders(words: Sequence[str]) -> Iterator[None]:
    """Remove what Hydra made for a run that is then refused: the folders that were not there, where they are empty."""
    chosen = [word.partition("=")[2].strip("'\"") for word in words if key_of(word) in PLACES]
    folders = [Path(value.partition("${")[0]) for value in chosen or [DEFAULT_PLACE]]
    absent = [path for folder in folders for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except (HydraException, OmegaConfBaseException, InputError, _JobEnded, SystemExit) as error:
        if not isinstance(error, SystemExit) or error.code == REFUSED:
            for path in absent:
                for folder, _, _ in os.walk(path, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)  # one that holds something stays
        raise


def _job(command: Command, composed: DictConfig) -> float | list[float]:
    """One run, alone or of a sweep."""
    settings = HydraConfig.get()
    alone = settings.mode == RunMode.RUN
    directory = RunDirectory(Path(settings.runtime.output_dir))
    try:
        config = to_config(composed, command.schema)
        if alone:
            team().settle(config)
            directory.begin(command.name, config, list(settings.overrides.task))
            return _execute(command, config, directory)
        claimed = sweeps.claimed(directory, command.name, config, settings)
        return _execute(command, config, claimed, sweeps.Sweep(Path(settings.sweep.dir)).go_on)
    except RunError as error:
        if alone:
            fail(f"failed: {error}")
        print(f"morenas: failed: job {settings.job.num}: {error}", file=sys.stderr)
        raise _JobEnded(FAILED) from error
    except InputError as error:
        chosen = any(word.startswith("hydra.run.dir=") for word in settings.overrides.hydra)
        directory.discard_if_idle(parent=not chosen)  # a folder that the user chose may be there for other reasons
        if alone:
            # Left to Hydra, the error would be preceded by a line of Hydra's own.
            refuse(str(error))
        # Hydra raises the first of a sweep's errors again, when all jobs are through.
        print(f"morenas: error: job {settings.job.num}: {error}", file=sys.stderr)
        raise _JobEnded(REFUSED) from error
    except Exception as error:
        if alone or isinstance(error, (HydraException, OmegaConfBaseException)):
            raise
        traceback.print_exc()  # another process may have started this one, and is not sent it
        raise _JobEnded(FAILED) from error


def _resume(command: Command, path: Path, words: Sequence[str]) -> None:
    if extra := [word for word in words if key_of(word) not in ("resume", TRUST, PLUGINS)]:
        raise InputError(
            f"resume={path}: a resumed run keeps its own configuration; leave out {' '.join(extra)}, or start a "
            "new run."
        )
    path = team().copy_of(path)
    RunDirectory(path).tidy()
    record = read_unfinished(path, command.name)
    check_trust(path, record, words)
    with only(typed("resume", path), "record", plugins.named_by(words)):
        config = to_config(OmegaConf.create(literal(record.config)), command.schema)
        _execute(command, config, RunDirectory(path))


def check_trust(path: Path, record: RunRecord, words: Sequence[str]) -> None:
    """Let a resumed run trust the code of its model only where that is said by hand again: anybody can write a record.

    Raises:
        InputError: If the word is missing, or the run was begun without it.
    """
    recorded = bool((record.config.get("model") or {}).get("trust_remote_code"))
    if recorded != (f"{TRUST}=true" in {word.lower() for word in words}):
        raise InputError(
            f"resume={path}: this run was begun with {TRUST}=true, so that code from its model's folder would run. If "
            f"you trust that code, say so again: {typed('resume', path)} {TRUST}=true."
            if recorded
            else f"resume={path}: this run was begun without {TRUST}=true; leave it out, or start a new run."
        )


def _execute(command: Command, config: Any, directory: RunDirectory, go_on: str = "") -> float | list[float]:
    """Do the work where it is not done; if it is cut off, say how to go on.

    Args:
        go_on: How, if not by resuming this run alone.
    """
    trusted = f" {TRUST}=true" if config.model.trust_remote_code else ""
    modules = f" {named(NAMED)}" if NAMED else ""
    resume = f"go on with: python -m morenas.{command.name} {typed('resume', directory.path)}{trusted}{modules}"
    go_on = go_on or resume
    try:
        if not is_complete(directory.path):
            with directory.held():
                if not is_complete(directory.path):  # another process has been quicker
                    team().meet(config, directory.path)
                    command.execute(config, directory)
        return sweeps.told(directory.results, config.sweep.objective)
    except KeyboardInterrupt:
        fail(f"interrupted; {go_on}")
    except (InputError, RunError):
        raise
    except ProcessLost as error:
        raise RunError(f"{error}; once that is mended, {go_on}") from error
    except Exception as error:
        if (lost := unwritten(error)) is not None:
            raise RunError(f"{lost}; once it can be, {go_on}") from error
        print(f"morenas: failed; once what follows is mended, {go_on}", file=sys.stderr)
        raise


def _resumed_directory(words: Sequence[str]) -> Path | None:
    values = [word.partition("=")[2] for word in words if key_of(word) == "resume"]
    given = {re.sub(r"(['\"])(.*)\1", r"\2", value) for value in values} - {"null"}
    if len(given) > 1 or "" in given:
        raise InputError(f"resume={' resume='.join(sorted(given))}: name one run directory.")
    return Path(given.pop()).expanduser() if given else None


def _explained(error: Exception, schema: Schema) -> str:
    kinds = groups_of(schema)

    def choices(group: str) -> list[str]:
        folder = group if (CONFIGS / group).is_dir() else group.split("/")[0]
        return plugins.choices(folder, CONFIGS, kinds.get(folder))

    return explain(error, known_keys(schema), sys.argv[1:], choices)
