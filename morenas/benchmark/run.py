"""Run methods on problems: every problem is one file of rows, which appears whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from morenas.base.errors import InputError, suggest
from morenas.base.files import read_object, write_json
from morenas.base.version import __version__
from morenas.benchmark import measures
from morenas.benchmark.alone import train_alone
from morenas.benchmark.judge import ArchitectureKey, Judge
from morenas.benchmark.methods import METHODS, OURS, SearchResult
from morenas.benchmark.planted import FAMILIES, Family, PlantedProblem
from morenas.benchmark.planted_transformer import SIDES, PlantedTransformer
from morenas.benchmark.problem import Problem, Shapes, cost
from morenas.benchmark.reference import ROUNDS, near, random_architectures
from morenas.benchmark.rows import BenchmarkRow
from morenas.benchmark.tabular import TabularTask
from morenas.benchmark.tasks import TASKS
from morenas.space import Choice

BUDGETS = (0.3, 0.4, 0.5)  # of a table's largest architecture: what the number of a tabular problem stands for
TEACHERS: dict[str, tuple[type[PlantedProblem], Mapping[str, Family]]] = {
    PlantedProblem.table: (PlantedProblem, FAMILIES),
    PlantedTransformer.table: (PlantedTransformer, SIDES),
}
"""Tables of problems that a teacher made, and the families of each."""
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
        if self.table in TEACHERS:
            return TEACHERS[self.table][0](self.family, self.number)
        task = TabularTask(self.family, BUDGETS[self.number])
        task.number = self.number
        return task


def planted(table: str, families: Sequence[str] | None, first: int, count: int) -> list[Place]:
    """``count`` problems of every family of a table; its families take numbers in turn from ``first`` on.

    Args:
        families: Those to take, in any table; None for all. Of the others there are no problems.
    Raises:
        InputError: If no table has a family.
    """
    names, known = list(TEACHERS[table][1]), [name for _, of in TEACHERS.values() for name in of]
    for family in families or ():
        if family not in known:
            raise InputError(f"family {family!r}: choose from {', '.join(known)}{suggest(family, known)}")
    return [
        Place(table, family, first + len(names) * offset + names.index(family))
        for offset in range(count)
        for family in names
        if families is None or family in families
    ]


def tabular() -> list[Place]:
    """Every task of the table at every budget."""
    return [Place("tabular", task, number) for task in TASKS for number in range(len(BUDGETS))]


def run(
    places: Sequence[Place], methods: Sequence[str], seeds: Sequence[int], folder: Path, jobs: int
) -> list[BenchmarkRow]:
    """Rows of all places, methods and seeds; those that lie in ``folder`` already are not made anew.

    Each of ``jobs`` processes computes with one thread, so that seconds can be compared.
    """
    asked = {(method, seed) for method in methods for seed in seeds}
    missing = [place for place in places if not asked <= {_run_of(row) for row in known_rows(folder / place.file)}]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run_place, place, methods, seeds, folder): place for place in missing}
        for done, future in enumerate(as_completed(waiting), 1):
            future.result()
            print(f"{done} of {len(missing)}: {waiting[future].file}", flush=True)
    rows = (row for place in places for row in read_rows(folder / place.file))
    return [row for row in rows if _run_of(row) in asked]


def read_rows(path: Path) -> list[BenchmarkRow]:
    """The rows of one file.

    Raises:
        InputError: If it is no such file, or of another version.
    """
    document = read_object(path, "rows of a bench", {"rows": list})
    if (version := document.get("version", __version__)) != __version__:
        raise InputError(f"{path}: its rows are of morenas {version}; name another folder by --out.")
    return [BenchmarkRow.from_dict(row) for row in document["rows"]]


def known_rows(path: Path) -> list[BenchmarkRow]:
    """The rows of one file; none where it is not there."""
    return read_rows(path) if path.exists() else []


def run_place(place: Place, methods: Sequence[str], seeds: Sequence[int], folder: Path) -> None:
    """Run every method with every seed on one problem, where that was not done before, and write the rows."""
    torch.set_num_threads(1)
    rows = rows_of(place.problem(), methods, seeds, known_rows(folder / place.file))
    document = {"version": __version__, "rows": [row.to_dict() for row in rows]}
    write_json(folder / place.file, document)


@dataclass(frozen=True)
class _Ran:
    method: str
    seed: int
    found: SearchResult
    seconds: float


def rows_of(
    problem: Problem, methods: Sequence[str], seeds: Sequence[int], known: Sequence[BenchmarkRow] = ()
) -> Iterator[BenchmarkRow]:
    """Search with every method and seed, judge what was found, and compare it with the best and with random draws.

    Args:
        known: Rows of this problem from before: what they hold is not searched for again, and comes first.
    """
    have = {_run_of(row) for row in known}
    ran = [_timed(problem, method, seed) for method in methods for seed in seeds if (method, seed) not in have]
    judge = Judge(problem)
    draws = random_architectures(problem)
    of_draws = judge.losses(draws)
    judge.losses([shapes for one in ran for shapes in (one.found.shapes, *(known for _, known in one.found.curve))])
    best = min([_best(problem, judge), *(row.best for row in known)])
    yield from (replace(row, best=best) for row in known)
    seconds = _seconds_alone(problem, draws[0])
    for one in ran:
        row = _row(problem, judge, one, best, float(of_draws.mean()), seconds, draws)
        loss, total = _whole(problem, judge, one, _one_run(ran, known, one.seed))
        yield replace(row, final_loss=loss, total=total)


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
        right_side=measures.right_side(found.shapes, problem.planted) if problem.planted else None,
        passes=found.passes,
        final_passes=problem.recipe.steps,
        seconds=one.seconds,
        final_seconds=seconds,
        details=details,
        curve=[[passes, judge.loss(known)] for passes, known in found.curve],
    )


def _run_of(row: BenchmarkRow) -> tuple[str, int]:
    """The search of a problem that a row is of."""
    return row.method, row.seed


def _one_run(ran: Sequence[_Ran], known: Sequence[BenchmarkRow], seed: int) -> float:
    """Trainings that our one run of this seed took in all; 0 where it was not run."""
    runs: list[Mapping[str, float]] = [one.found.details for one in ran if (one.method, one.seed) == (OURS, seed)]
    runs += [row.details for row in known if _run_of(row) == (OURS, seed)]
    return runs[0].get("one_run_cost", 0.0) if runs else 0.0


def _whole(problem: Problem, judge: Judge, one: _Ran, trainings: float) -> tuple[float, float]:
    """Test loss that a method ends with, search and final training together as long as the one run; and how long.

    A search that leaves less than one training has a whole one all the same: the control may cost more, never less.
    """
    found, recipe = one.found, problem.recipe
    if "one_run" in found.details:
        return found.details["one_run"], found.details["one_run_cost"]
    if found.finish is not None:
        left = round(max(trainings, 1.0) * recipe.steps - found.passes)
        return found.finish(left), (found.passes + left) / recipe.steps
    left = max(recipe.steps, round(trainings * recipe.steps - found.passes))
    longer = left > recipe.steps
    loss = train_alone(problem, [found.shapes], one.seed, left)[0].test if longer else judge.loss(found.shapes)
    return loss, (found.passes + left) / recipe.steps


def _recovered(problem: Problem, found: SearchResult) -> float | None:
    if problem.planted is None or cost(problem.space, problem.planted) > problem.budget:
        return None
    return measures.exact_recovery(found.shapes, problem.planted, list(problem.space.modules))
