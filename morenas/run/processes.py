"""The processes of a run: which there are, where each works, and how they begin and end together.

``torchrun`` starts the same command several times. Every process does the same (``morenas.base.processes``); the first
one owns the run directory, the trackers and the screen, and the others work in folders of their own, which are removed.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

from morenas.base.errors import InputError, one_line
from morenas.run.config import RunConfig, TrackingConfig
from morenas.run.quoting import key_of

COUNT, NUMBER, LOCAL = "WORLD_SIZE", "RANK", "LOCAL_RANK"
OTHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""What Open MPI and MPICH say of how many processes they have started."""
NODE = ("LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE")
SWEEP = ("-m", "--multirun")
TIMEOUT = timedelta(minutes=10)  # that processes wait for each other; what one does alone takes less
PATIENCE = 10.0  # seconds that a process leaves the first one to say what all have met
KEPT = (".hydra", "checkpoints", "search", "adapter", "architecture.json", "compare", "predictions")
"""What a run goes on from."""


@dataclass(frozen=True)
class Team:
    """The processes of a run, as one of them sees them.

    Attributes:
        count: How many there are.
        number: Which this one is, from 0.
        local: Which it is on its machine.
        folder: Where it works, if it is not the first.
        resumes: Whether they go on with a run.
    """

    count: int = 1
    number: int = 0
    local: int = 0
    folder: Path | None = None
    resumes: bool = False

    @property
    def first(self) -> bool:
        """Whether this process owns the run directory."""
        return self.number == 0

    def words(self, words: Sequence[str]) -> list[str]:
        """The command line of this process."""
        if self.folder is None:
            return list(words)
        kept = [word for word in words if key_of(word) != "hydra.run.dir"]
        return kept if self.resumes else [*kept, f"hydra.run.dir={self.folder}"]

    def settle(self, config: RunConfig) -> None:
        """Cut the batches of a new run into as many shares as there are processes, at least."""
        training: Any = config.training
        micro_batches = training.gradient_accumulation * training.shares
        if 0 < micro_batches < self.count:
            training.shares *= math.ceil(self.count / micro_batches)

    def meet(self, config: RunConfig, directory: Path) -> None:
        """Begin together, where the first process stands; it alone tells trackers of the run."""
        if not self.first:
            config.tracking = TrackingConfig(name="local")
        if self.first or not self.resumes:
            self.join()
        if self.first and self.resumes:
            self._send(directory)

    def copy_of(self, directory: Path) -> Path:
        """What the run goes on from, where this process works; others than the first are sent it."""
        if self.first:
            return directory
        self.join()
        return self._receive()

    def join(self) -> None:
        """Meet the other processes.

        Raises:
            InputError: If they do not come.
        """
        if self.count == 1:
            return
        errors = list[Exception]()
        # In a thread of its own: this one would hear no signal until the others are there.
        meeting = Thread(target=self._meet, args=(errors,), daemon=True)
        meeting.start()
        while meeting.is_alive():
            meeting.join(0.1)
        if errors:
            raise InputError(
                f"{COUNT}={self.count}: process {self.number} does not meet the others ({one_line(errors[0])}); start "
                "them by torchrun or accelerate launch, which say where they meet."
            ) from errors[0]

    def _meet(self, errors: list[Exception]) -> None:
        import torch
        from torch import distributed

        backend = "gloo"
        try:
            if torch.cuda.is_available():
                torch.cuda.set_device(self.local % torch.cuda.device_count())
                backend = "cpu:gloo,cuda:nccl"
            distributed.init_process_group(backend, timeout=TIMEOUT, world_size=self.count, rank=self.number)
        except Exception as error:  # a store that is not there, addresses that are none, devices
            errors.append(error)

    def _send(self, directory: Path) -> None:
        """Give the other processes what the run goes on from."""
        if self.count == 1:
            return
        from morenas.base.processes import exchange

        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as files:
            for name in KEPT:
                if (directory / name).exists():
                    files.add(directory / name, name, filter=lambda file: None if file.name.endswith("lock") else file)
        exchange(packed.getvalue())

    def _receive(self) -> Path:
        """A copy of what the run goes on from, from the first process."""
        from morenas.base.processes import exchange

        assert self.folder is not None
        with tarfile.open(fileobj=io.BytesIO(exchange(b"")[0])) as files:
            files.extractall(self.folder, filter="data")
        return self.folder


def check_alone() -> None:
    """Refuse to be one of several processes, each of which would do the whole work.

    Raises:
        InputError: If a launcher has started several.
    """
    for name in (COUNT, *OTHERS):
        if (count := _count(name)) > 1:
            raise InputError(
                f"{name}={count}: a launcher has started {count} processes of this command, which is one process's "
                f"work; start it without torchrun or mpirun. If {name} is left over from something else, unset it."
            )


def _count(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else 1


ALONE = Team()
_TEAM = ALONE


def team() -> Team:
    """The processes that this one belongs to, inside ``together``."""
    return _TEAM


@contextmanager
def together(words: Sequence[str]) -> Iterator[Team]:
    """Find out which processes there are; all but the first are silent, unless they alone have something to say.

    Args:
        words: The command line.
    Raises:
        InputError: If they cannot work together.
    """
    global _TEAM
    if (found := _started(words)).count == 1:
        yield found
        return
    for name in (COUNT, NUMBER, LOCAL, *NODE):  # accelerate and transformers would begin to share work themselves
        os.environ.pop(name, None)
    _TEAM = found
    try:
        with _silent(found) if found.folder else _speaking():
            yield found
    finally:
        # A launcher tells all to end once one has: what ends by itself keeps its own status.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _TEAM = ALONE
        _leave()
        if found.folder is not None:
            shutil.rmtree(found.folder, ignore_errors=True)


def _started(words: Sequence[str]) -> Team:
    for name in (COUNT, *OTHERS):
        if (count := _count(name)) < 2:
            continue
        if name != COUNT or not os.environ.get(NUMBER, "").isdigit() or "MASTER_ADDR" not in os.environ:
            raise InputError(
                f"{name}={count}: a launcher has started {count} processes of this command, and has not said where "
                "they meet. Start them by torchrun (torchrun --nproc-per-node <processes> -m morenas.search …) or by "
                f"accelerate launch. If {name} is left over from something else, unset it."
            )
        if set(words) & set(SWEEP):
            raise InputError(
                f"{name}={count}: a sweep (--multirun) starts its runs itself; start it without torchrun, or start one "
                "run by torchrun for every choice."
            )
        number = int(os.environ[NUMBER])
        folder = Path(tempfile.mkdtemp(prefix="morenas-")) if number else None
        resumes = any(key_of(word) == "resume" for word in words)
        return Team(count, number, int(os.environ.get(LOCAL, number)), folder, resumes)
    return ALONE


@contextmanager
def _speaking() -> Iterator[None]:
    yield


@contextmanager
def _silent(one: Team) -> Iterator[None]:
    """Keep what a process says to itself; where it fails and the first one does not, say why."""
    said = io.StringIO()
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(said):
            yield
    except KeyboardInterrupt:
        sys.exit(1)
    except SystemExit as error:
        if error.code and not isinstance(error.__context__, KeyboardInterrupt):
            _wait(one, said.getvalue())
        raise


def _wait(one: Team, said: str) -> None:
    try:
        time.sleep(PATIENCE)  # launchers end all processes once one has failed
    except KeyboardInterrupt:
        return
    print("".join(f"process {one.number} of {one.count}: {line}\n" for line in said.splitlines()), file=sys.stderr)


def _leave() -> None:
    if "torch" in sys.modules:
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
