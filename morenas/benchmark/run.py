"""Run methods on problems: every problem is one file of rows, which appears whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from morenas.base.errors import InputError, suggest
from morenas.base.files import read_json, write_json
from morenas.benchmark import measures
from morenas.benchmark.alone import train_alone
from morenas.benchmark.judge import ArchitectureKey, Judge
from morenas.benchmark.methods import METHODS, SearchResult
from morenas.benchmark.planted import FAMILIES, PlantedProblem
from morenas.benchmark.problem import Problem, Shapes, cost
from morenas.benchmark.reference import ROUNDS, near, random_architectures
from morenas.benchmark.rows import BenchmarkRow
from morenas.benchmark.tabular import TabularTask
from morenas.benchmark.tasks import TASKS
from morenas.space import Choice

BUDGETS = (0.3, 0.4, 0.5)  # of a table's largest architecture: what the number of a tabular problem stands for
UNKNOWN_BEST = ("outside", "half")  # families whose planted architecture need not be the best


@dataclass(frozen=True)
class Place:
    """One problem."""

    table: str
    family: str
    number: int

    @property
    def file(self) -> str:
        return f"{self.table}-{self.family}-{self.number}.json"

    def problem(self) -> Problem:
        if self.table == "planted":
            return PlantedProblem(self.family, self.number)
        task = TabularTask(self.family, BUDGETS[self.number])
        task.number = self.number
        return task


def planted(families: Sequence[str], first: int, count: int) -> list[Place]:
    """``count`` problems of every family; the families take numbers in turn from ``first`` on."""
    names = list(FAMILIES)
    for family in families:
        if family not in FAMILIES:
            raise InputError(f"family {family!r}: choose from {', '.join(names)}{suggest(family, names)}")
    return [
        Place("planted", family, first + len(names) * offset + names.index(family))
        for offset in range(count)
        for family in families
    ]


def tabular() -> list[Place]:
    """Every task of the table at every budget."""
    return [Place("tabular", task, number) for task in TASKS for number in range(len(BUDGETS))]


def run(
    places: Sequence[Place], methods: Sequence[str], seeds: Sequence[int], folder: Path, jobs: int
) -> list[BenchmarkRow]:
    """Rows of all places, those that lie in ``folder`` already as they are.

    Each of ``jobs`` processes computes with one thread, so that seconds can be compared.
    """
    missing = [place for place in places if not (folder / place.file).exists()]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run_place, place, methods, seeds, folder): place for place in missing}
        for done, future in enumerate(as_completed(waiting), 1):
            future.result()
            print(f"{done} of {len(missing)}: {waiting[future].file}", flush=True)
    return [row for place in places for row in read_rows(folder / place.file)]


def read_rows(path: Path) -> list[BenchmarkRow]:
    """The rows of one file."""
    return [BenchmarkRow.from_dict(row) for row in read_json(path, "rows of a bench")["rows"]]


def run_place(place: Place, methods: Sequence[str], seeds: Sequence[int], folder: Path) -> None:
    """Run every method with every seed on one problem and write the rows."""
    torch.set_num_threads(1)
    rows = list(rows_of(place.problem(), methods, seeds))
    write_json(folder / place.file, {"rows": [row.to_dict() for row in rows]})


@dataclass(frozen=True)
class _Ran:
    method: str
    seed: int
    found: SearchResult
    seconds: float


def rows_of(problem: Problem, methods: Sequence[str], seeds: Sequence[int]) -> Iterator[BenchmarkRow]:
    """Search with every method and seed, judge what was found, and compare it with the best and with random draws."""
    ran = [_timed(problem, method, seed) for method in methods for seed in seeds]
    judge = Judge(problem)
    draws = random_architectures(problem)
    of_draws = judge.losses(draws)
    judge.losses([shapes for one in ran for shapes in (one.found.shapes, *(known for _, known in one.found.curve))])
    best = _best(problem, judge)
    seconds = _seconds_alone(problem, draws[0])
    for one in ran:
        yield _row(problem, judge, one, best, float(of_draws.mean()), seconds, draws)


def _timed(problem: Problem, method: str, seed: int) -> _Ran:
    start = time.perf_counter()
    found = METHODS[method](problem, seed)
    return _Ran(method, seed, found, time.perf_counter() - start)


def _best(problem: Problem, judge: Judge) -> float:
    """The lowest loss known: of all that was found, the planted architecture and, where that need not be the best,
    of neighbours of the best."""
    if problem.planted is not None and cost(problem.space, problem.planted) <= problem.budget:
        judge.losses([problem.planted])
    if judge.table is not None:
        return min(judge.table.loss(problem.family, picks) for picks in judge.table.architectures(problem.budget))
    for number in range(ROUNDS if problem.family in UNKNOWN_BEST else 0):
        judge.losses(near(problem, _spelled(problem, judge.least()[1]), number))
    return judge.least()[0]


def _spelled(problem: Problem, name: ArchitectureKey) -> Shapes:
    return {module: Choice(*shape) for module, shape in name}


def _seconds_alone(problem: Problem, shapes: Shapes) -> float:
    start = time.perf_counter()
    train_alone(problem, [shapes])
    return time.perf_counter() - start


def _row(
    problem: Problem, judge: Judge, one: _Ran, best: float, random: float, seconds: float, draws: Sequence[Shapes]
) -> BenchmarkRow:
    found = one.found
    details = dict(found.details)
    if found.scores:
        details |= measures.scored(found.scores, judge.repeated(draws))
    if "relaxed" in details:
        details["retrained"] = judge.loss(found.shapes)
    return BenchmarkRow(
        table=problem.table,
        family=problem.family,
        problem=problem.number,
        method=one.method,
        seed=one.seed,
        shapes=found.shapes,
        params=cost(problem.space, found.shapes),
        budget=problem.budget,
        loss=judge.loss(found.shapes),
        best=best,
        random=random,
        recovered=_recovered(problem, found),
        passes=found.passes,
        final_passes=problem.recipe.steps,
        seconds=one.seconds,
        final_seconds=seconds,
        details=details,
        curve=[[passes, judge.loss(known)] for passes, known in found.curve],
    )


def _recovered(problem: Problem, found: SearchResult) -> float | None:
    if problem.planted is None or cost(problem.space, problem.planted) > problem.budget:
        return None
    return measures.exact_recovery(found.shapes, problem.planted, list(problem.space.modules))
