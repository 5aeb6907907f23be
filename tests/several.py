"""Several processes of one run, forked from this one, with what torchrun says in their environment."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tiny_runs import Outcome, run

from morenas.run.processes import together

SECONDS = 100.0  # after which processes are taken to hang


@dataclass
class Several:
    """Processes at work.

    Attributes:
        folder: What they print lies here, by number of process.
        pids: Of those that have not ended yet, by number.
    """

    folder: Path
    pids: dict[int, int]

    def kill(self, number: int) -> None:
        """As ``kill -9`` does."""
        os.kill(self.pids[number], signal.SIGKILL)

    def wait(self) -> list[Outcome]:
        """How each of them ended, in order. Once one has failed the others are told to end, as torchrun does it."""
        statuses, end, told = dict[int, int](), time.monotonic() + SECONDS, False
        while len(statuses) < len(self.pids):
            for number, pid in self.pids.items():
                if number not in statuses and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                    statuses[number] = os.waitstatus_to_exitcode(ended[1])
                    if statuses[number] and not told:
                        told = True
                        self._end({other for other in self.pids if other not in statuses}, signal.SIGTERM)
            if time.monotonic() > end:
                self._end({other for other in self.pids if other not in statuses}, signal.SIGKILL)
                raise AssertionError(f"still at work after {SECONDS} seconds: {self.pids.keys() - statuses.keys()}")
            time.sleep(0.02)
        return [Outcome(statuses[number], self._said(number, 1), self._said(number, 2)) for number in self.pids]

    def _end(self, numbers: set[int], how: signal.Signals) -> None:
        for number in numbers:
            os.kill(self.pids[number], how)

    def _said(self, number: int, stream: int) -> str:
        return (self.folder / f"{number}.{stream}").read_text()


def started(count: int, command: str, words: Sequence[str], folder: Path) -> Several:
    """Begin ``torchrun --nproc-per-node <count> -m morenas.<command> <words>``."""
    folder.mkdir(parents=True, exist_ok=True)
    sys.argv = [f"morenas.{command}", *words]
    return Several(folder, _forked(count, folder, lambda: run(command)))


def answers(count: int, work: Callable[[], Any], folder: Path) -> list[Any]:
    """What a function returns in each of several processes that have met."""

    def answer() -> int:
        number = os.environ["RANK"]
        with together([]) as team:
            team.join()
            (folder / f"{number}.answer").write_bytes(pickle.dumps(work()))
        return 0

    folder.mkdir(parents=True, exist_ok=True)
    outcomes = Several(folder, _forked(count, folder, answer)).wait()
    assert not any(outcome.status for outcome in outcomes), outcomes
    return [pickle.loads((folder / f"{number}.answer").read_bytes()) for number in range(count)]


def _forked(count: int, folder: Path, work: Callable[[], int]) -> dict[int, int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    pids = {}
    for number in range(count):
        if not (pid := os.fork()):
            os.environ |= place | {"RANK": str(number), "LOCAL_RANK": str(number)}
            _child(folder, number, work)
        pids[number] = pid
    return pids


def _child(folder: Path, number: int, work: Callable[[], int]) -> NoReturn:
    status = 1
    try:
        for stream in (1, 2):
            os.dup2(os.open(folder / f"{number}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(stream), "w", buffering=1) for stream in (1, 2))
        status = work()
    except BaseException:  # whatever it is, this process must not go on as the tests
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
