"""The commands that accidents happen to, made small, and what is right of each after one."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tiny_models import save_tiny
from tiny_runs import SEARCH_WORDS, run, task_words, write_task

from morenas.base.files import write_text
from morenas.benchmark import command as benchmark
from morenas.benchmark import run as bench
from morenas.benchmark.rows import BenchmarkRow
from morenas.export import command as export
from morenas.run import publish
from morenas.run.reading import RECORD, RESULTS
from morenas.run.words import WordCommand, run_words

SAYS = {"FULL": "No space left on device", "READ_ONLY": "Read-only file system"}
"""What a message has to name as the cause."""


@dataclass
class Work(ABC):
    """A command, where it writes, and how it goes on.

    Attributes:
        out: What it makes, alone in its folder; operations below that folder are counted.
        words: Its command line.
    """

    out: Path
    words: list[str]

    @abstractmethod
    def execute(self, words: list[str]) -> int:
        """Run it in this process; its exit status."""

    @abstractmethod
    def is_done(self) -> bool:
        """Whether what it was to make is there."""

    def next_words(self) -> list[str]:
        """What a user types after an accident."""
        return self.words

    def said(self, status: int, err: str, fault: str) -> list[str]:
        """What is wrong with how it ended where the disk was full or read-only."""
        if status == 0 and self.is_done():
            return []
        way_out = self.way_on() if status == 1 else "choose another"
        right = {"status": self.right_status(err), "lines": 1}
        found = {"status": status, "lines": len(err.splitlines())}
        wrong = [] if found == right else [f"{found}, where {right} is right: {err}"]
        lacking = [part for part in ("morenas: ", str(self.out), SAYS[fault], way_out) if part not in err]
        return wrong + [f"does not say {part!r}: {err}" for part in lacking]

    @abstractmethod
    def right_status(self, err: str) -> int:
        """2 where it was refused before any work, and 1 where work was begun."""

    @abstractmethod
    def way_on(self) -> str:
        """What it tells to do where it failed at work."""

    def went_on(self, status: int, err: str, was_done: bool) -> list[str]:
        """What is wrong with how it ended after an accident."""
        right = status == 2 if was_done else status == 0 and not err
        return [] if right else [f"went on to status {status}: {err}"]


class Search(Work):
    """A search with its final fine-tune and a comparison."""

    def __init__(self, root: Path) -> None:
        model, out = save_tiny("bert", root / "model", num_hidden_layers=1), root / "runs" / "run"
        # drawing takes longer than the run
        publish.write_report = lambda directory, results: write_text(directory / "report.html", "<html>\n")
        data = write_task(root / "data", rows=64)
        short = ["search.steps=4", "training.max_steps=8", "training.evals=2", "training.learning_rate=2e-2"]
        super().__init__(out, [*task_words(data, model, out), *SEARCH_WORDS, *short, "compare=lora"])

    def execute(self, words: list[str]) -> int:
        sys.argv = ["morenas.search", *words]
        return run("search")

    def is_done(self) -> bool:
        return (self.out / RESULTS).exists()

    def next_words(self) -> list[str]:
        return [f"resume={self.out}"] if (self.out / RECORD).exists() else self.words

    def right_status(self, err: str) -> int:
        return 1 if (self.out / RECORD).exists() else 2

    def way_on(self) -> str:
        return f"resume={self.out}"


class Worded(Work):
    """A command without a run directory of its own."""

    command: WordCommand

    def execute(self, words: list[str]) -> int:
        try:
            run_words(self.command, words)
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    def right_status(self, err: str) -> int:
        return 2 if err.startswith("morenas: error: ") else 1

    def way_on(self) -> str:
        return "run the same command again"


class Export(Worded):
    """An export of a run."""

    command = export.COMMAND

    def __init__(self, root: Path, form: str) -> None:
        run = Search(root)
        assert run.is_done() or run.execute(run.words) == 0
        out = root / "exports" / "out"
        out.parent.mkdir()
        super().__init__(out, [f"run={run.out}", f"to={form}", f"out={out}"])

    def is_done(self) -> bool:
        return self.out.exists()


class Benchmark(Worded):
    """A benchmark whose searches and pictures cost nothing."""

    command = benchmark.COMMAND

    def __init__(self, root: Path) -> None:
        bench.ProcessPoolExecutor = Here  # type: ignore[assignment,misc]
        bench.rows_of = rows  # type: ignore[assignment]
        out = root / "benches" / "bench"
        out.parent.mkdir()
        words = [f"out={out}", "tables=planted", "families=plain", "methods=lora", "problems=2", "seeds=1"]
        super().__init__(out, words)

    def is_done(self) -> bool:
        return False  # it can always be called again


class Here(Executor):
    """Does at once, in this process, what others would do in theirs."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, work: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*given, **named))
        return future


def rows(problem: Any, methods: list[str], seeds: list[int], known: Any) -> Iterator[BenchmarkRow]:
    """A row of every method and seed."""
    row = BenchmarkRow("planted", "plain", problem.number, "", 0, {}, 1, 1, 0.5, 0.1, 1.0, None, 1, 1, 1, 1)
    for seed in seeds:
        yield from (replace(row, method=method, seed=seed) for method in methods)


WORKS: dict[str, Callable[[Path], Work]] = {
    "search": Search,
    "benchmark": Benchmark,
    **{form: partial(Export, form=form) for form in ("lora", "more", "merged")},
}
