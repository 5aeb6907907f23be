"""Let accidents happen to commands, go on after each, and print what each came to, as JSON, a line each.

    python accidents.py <folder> <JSON of Plans>

``faults.so`` has to be preloaded. Runs as a program: it imports once, runs a command once, and forks every further
run of it.
"""

from __future__ import annotations

import gc
import json
import os
import random
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import datasets
import sklearn.metrics  # noqa: F401
import tiny_runs
import torch
from commands import WORKS, Work
from faults import Fault, Operation, arm, read_record, unflushed
from hydra._internal.hydra import Hydra
from whole import contents, differences, unwhole

CUT = "CUT"
"""An accident beside those of ``Fault``: the machine stops before an operation, and what was not flushed is lost."""

LOG = "metrics.jsonl"
"""Is not flushed: its last lines may be missing after a cut."""


@dataclass
class Plan:
    """Which accidents happen to which command.

    Attributes:
        work: Name of a command in ``commands``.
        faults: What happens at single operations.
        sample: By what happens, at how many operations, evenly over the run; at all where it is not named.
        moments: Kills at random moments.
        twice: Kills at a random operation, and at another one when the run goes on.
    """

    work: str
    faults: list[str]
    sample: dict[str, int] = field(default_factory=dict)
    moments: int = 0
    twice: int = 0
    seed: int = 0


@dataclass
class Ended:
    """How a process ended, what it said on stderr, and its file operations."""

    status: int
    err: str
    done: list[Operation]


class Process:
    """A command in a process of its own."""

    def __init__(self, work: Work, words: list[str], fault: Fault = Fault.NONE, number: int = -1) -> None:
        self.record, self.err = (work.out.parents[1] / name for name in ("record", "err"))
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(self.err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            torch.manual_seed(time.time_ns() % 2**32)  # nothing may depend on what came before
            arm(work.out.parent, fault, number, self.record)
            end_with(lambda: work.execute(words))

    def end(self) -> Ended:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return Ended(status, self.err.read_text(), read_record(self.record))


def end_with(main: Callable[[], int]) -> None:
    """End the process as an interpreter would, with its last words on stderr."""
    status = 1
    try:
        status = main()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    gc.collect()  # what is lost in vain is said when it goes
    sys.stderr.flush()
    os._exit(status)


class Campaign:
    """Accidents of one command, and what was wrong after each."""

    def __init__(self, work: Work) -> None:
        self.work = work
        work.execute(work.words)  # imports what is imported at its first need
        self._clear()
        gc.collect()
        gc.freeze()
        began = time.monotonic()
        ended = Process(work, work.words).end()
        self.seconds = time.monotonic() - began
        assert ended.status == 0, ended.err
        self.operations, self.never = ended.done, contents(work.out.parent)
        self._clear()

    def at(self, name: str, number: int) -> list[str]:
        """Something happens at an operation."""
        kind = Fault.KILL if name == CUT else Fault[name]
        ended = Process(self.work, self.work.words, kind, number).end()
        if name in (Fault.FULL.name, Fault.READ_ONLY.name):
            wrong = self.work.said(ended.status, ended.err, name)
        else:
            wrong = [] if ended.status == -signal.SIGKILL else [f"was not killed, but ended with {ended.status}"]
        if name == CUT:
            for path in unflushed(ended.done, self.work.out.parent):
                if path.name != LOG:
                    os.truncate(path, 0)
        return wrong + unwhole(self.work.out.parent) + self._go_on()

    def twice(self, first: int, second: int) -> list[str]:
        """A kill at an operation, and one when the run goes on."""
        Process(self.work, self.work.words, Fault.KILL, first).end()
        Process(self.work, self.work.next_words(), Fault.KILL, second).end()
        return unwhole(self.work.out.parent) + self._go_on()

    def after(self, seconds: float) -> list[str]:
        """A kill some time after the start; sooner, where the run is over by then."""
        process = Process(self.work, self.work.words)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        if process.end().status != -signal.SIGKILL:
            self._clear()
            return self.after(seconds / 2)
        return unwhole(self.work.out.parent) + self._go_on()

    def _go_on(self) -> list[str]:
        was_done = self.work.is_done()
        ended = Process(self.work, self.work.next_words()).end()
        wrong = self.work.went_on(ended.status, ended.err, was_done)
        wrong += differences(self.never, contents(self.work.out.parent))
        self._clear()
        return wrong

    def _clear(self) -> None:
        for path in self.work.out.parent.iterdir():
            shutil.rmtree(path)


def accidents(campaign: Campaign, plan: Plan) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """The accidents of a plan: where they happen, and what lets them happen."""
    rng, operations = random.Random(plan.seed), campaign.operations
    for name in plan.faults:
        places = [number for number, one in enumerate(operations, 1) if one.writes or name != Fault.KILL_HALFWAY.name]
        for number in evenly(places, plan.sample.get(name, len(places)), rng):
            yield f"{name} at {number}, {operations[number - 1]}", partial(campaign.at, name, number)
    for _ in range(plan.twice):
        first = rng.randint(1, len(operations) - 1)
        second = rng.randint(1, len(operations) - first)  # the run that goes on has at least so many
        yield f"KILL at {first}, then at {second}", partial(campaign.twice, first, second)
    for _ in range(plan.moments):
        seconds = rng.uniform(0.1, 1.0) * campaign.seconds
        yield f"KILL after {seconds:.3f} s", partial(campaign.after, seconds)


def evenly(places: list[int], count: int, rng: random.Random) -> Iterator[int]:
    """So many of them, one of each of as many equal parts."""
    for part in range(count):
        yield rng.choice(places[part * len(places) // count : (part + 1) * len(places) // count])


def prepare() -> None:
    """Leave out what a run of seconds spends most of its time on."""
    torch.set_num_threads(1)
    datasets.arrow_dataset.generate_fingerprint = lambda _: secrets.token_hex(8)  # the name of a table
    # Hydra composes everything twice, the first time to look for hydra.mode
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]


def main() -> None:
    root, plans = Path(sys.argv[1]).resolve(), [Plan(**plan) for plan in json.loads(sys.argv[2])]
    prepare()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for plan in plans:
        (root / plan.work).mkdir()
        campaign = Campaign(WORKS[plan.work](root / plan.work))
        tiny_runs._leave_the_libraries_alone = lambda: None  # the first of them has done it
        written = sorted({Path(one.path).name for one in campaign.operations if one.writes})
        print(json.dumps({"work": plan.work, "operations": len(campaign.operations), "written": written}), file=out)
        for place, happen in accidents(campaign, plan):
            print(json.dumps({"accident": place, "wrong": happen()}), file=out)


if __name__ == "__main__":
    main()
