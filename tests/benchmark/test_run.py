"""The harness: methods on problems, rows on disk."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from morenas.base.errors import InputError
from morenas.base.files import write_json
from morenas.benchmark import run
from morenas.benchmark.alone import train_alone
from morenas.benchmark.command import COMMAND, BenchmarkConfig, benchmark
from morenas.benchmark.methods import METHODS, OURS, SearchMethod
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.planted import PlantedProblem
from morenas.benchmark.planted_transformer import SIDES
from morenas.benchmark.problem import Batch, cost
from morenas.benchmark.reference import random_architectures
from morenas.benchmark.rows import BenchmarkRow
from morenas.benchmark.run import BUDGETS, Place, planted, read_rows, rows_of, run_place, tabular
from morenas.benchmark.table import ArchitectureTable
from morenas.benchmark.tabular import TabularTask
from morenas.run.words import run_words

NUMBER = 8  # a small one
ROW = BenchmarkRow("planted", "plain", NUMBER, "lora", 0, {}, 1, 1, 0.5, 0.1, 1.0, None, 1, 1, 1, 1)
CONTROLS = (
    "random logits", "untrained logits", "lora", "early gradient", "dense change", "para", "eva ranks", "fisher ranks"
)  # fmt: skip


class Sealed(PlantedProblem):
    """A problem whose test set cannot be read."""

    def examples(self, split: str) -> Batch:
        if split == "test":
            raise AssertionError("a method read the test set")
        return super().examples(split)


def small(family: str = "plain", number: int = NUMBER, kind: type[PlantedProblem] = PlantedProblem) -> PlantedProblem:
    """A planted problem with a recipe of seconds."""
    problem = kind(family, number)
    problem.recipe = replace(problem.recipe, steps=20, batch_size=32)
    return problem


@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_to_the_budget_costs_no_more_than_one_training_alone_and_gives_the_model_back(name: str) -> None:
    problem = small(kind=Sealed if name in CONTROLS else PlantedProblem)  # a control does not need the test set
    if name != "uniform":  # which costs several, and says so
        problem.recipe = replace(problem.recipe, steps=96)  # of far fewer, the last measurements alone cost more
    before = {key: value.clone() for key, value in problem.model.state_dict().items()}
    modules = dict(problem.model.named_modules())
    found = METHODS[name](problem, 3)
    assert cost(problem.space, found.shapes) <= problem.budget
    assert name == "uniform" or found.passes < problem.recipe.steps + 1
    assert dict(problem.model.named_modules()) == modules
    assert all(torch.equal(value, before[key]) for key, value in problem.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in problem.model.parameters())


def test_what_a_method_finds_is_a_function_of_problem_and_seed() -> None:
    for name in ("random", "local search", OURS, "dense change"):
        assert METHODS[name](small(), 5).shapes == METHODS[name](small(), 5).shapes, name


def test_rows_hold_what_was_judged() -> None:
    methods = [OURS, "random", "untrained logits"]
    rows = list(rows_of(small(), methods, [0, 1]))
    assert [(row.method, row.seed) for row in rows] == [(method, seed) for method in methods for seed in (0, 1)]
    assert all(row.best <= row.loss for row in rows)
    assert len({row.random for row in rows}) == 1
    assert rows[0].details["retrained"] == rows[0].loss and "tau" in rows[0].details
    assert rows[-1].shapes == {} and rows[-1].recovered is not None


def test_controls_are_trained_until_they_have_cost_as_much_as_the_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, shapes, left = small(), METHODS["lora"](small(), 0).shapes, list[int]()

    def finish(steps: int) -> float:
        left.append(steps)
        return 0.25

    def method(found: SearchResult) -> SearchMethod:
        return lambda problem, seed: found

    methods = {
        OURS: SearchResult(shapes, 16.0, details={"one_run": 0.125, "one_run_cost": 1.5}),
        "free": SearchResult(shapes, 0.0),
        "dear": SearchResult(shapes, 20.0),
        "goes on": SearchResult(shapes, 12.0, finish=finish),
    }
    for name, found in methods.items():
        monkeypatch.setitem(METHODS, name, method(found))
    monkeypatch.setattr(run, "random_architectures", lambda problem: [{}])
    ours, free, dear, on = run.rows_of(problem, list(methods), [0])
    assert [row.total for row in (ours, free, dear, on)] == [1.5, 1.5, 2.0, 1.5]
    assert (ours.final_loss, on.final_loss, left) == (0.125, 0.25, [18])
    [longer] = train_alone(problem, [shapes], 0, 30)
    assert free.final_loss == longer.test != free.loss
    # A search that leaves less than a training has one all the same: what was judged.
    assert dear.final_loss == dear.loss


def test_the_best_of_half_a_budget_is_sought_beyond_what_was_found() -> None:
    [row] = rows_of(small("half", 1), ["untrained logits"], [0])
    assert row.best < row.loss and row.recovered is None


def test_random_references_spend_the_budget() -> None:
    problem = small()
    draws = random_architectures(problem)
    assert draws == random_architectures(small())
    assert all(0.5 * problem.budget < cost(problem.space, shapes) <= problem.budget for shapes in draws)


def test_a_small_space_is_its_own_reference() -> None:
    task = TabularTask("order", BUDGETS[0])
    expected = ArchitectureTable().architectures(task.budget, spent=True)
    assert sorted(task.picks(shapes) for shapes in random_architectures(task)) == sorted(expected)


def test_a_file_of_rows_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "problem", lambda place: small(place.family))
    threads = torch.get_num_threads()
    try:
        run_place(Place("planted", "plain", NUMBER), ["lora"], [0], tmp_path)
    finally:
        torch.set_num_threads(threads)
    [row] = read_rows(tmp_path / f"planted-plain-{NUMBER}.json")
    assert (row.method, row.family, row.problem) == ("lora", "plain", NUMBER)


def test_numbers_do_not_depend_on_how_many_problems_are_run() -> None:
    few, many = planted("planted", None, 1000, 2), planted("planted", None, 1000, 4)
    assert many[: len(few)] == few
    assert len({place.number for place in many}) == len(many)
    assert all(1100 <= place.number < 1150 for place in planted("planted", None, 1100, 10))


def test_a_table_takes_the_families_that_it_has_of_those_asked_for() -> None:
    asked = ["mixed", "half"]
    assert [place.family for place in planted("planted", asked, 0, 1)] == ["half"]
    [place] = planted("transformer", asked, 0, 1)
    assert (place.table, place.family, place.number) == ("transformer", "mixed", list(SIDES).index("mixed"))
    assert (place.problem().table, place.problem().family) == ("transformer", "mixed")


def test_every_task_is_searched_at_every_budget() -> None:
    problems = [place.problem() for place in tabular()]
    assert len({(problem.family, problem.budget) for problem in problems}) == len(problems) == 2 * len(BUDGETS)


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(InputError, match="plain"):
        planted("planted", ["plane"], 0, 1)


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (["--methods", "halfing"], "halving"),
        (["--seeds", "0"], "at least 1"),
        (["--families", "plane"], "plain"),
    ],
)
def test_a_wrong_word_is_one_line_and_status_2(
    words: list[str], needs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        run_words(COMMAND, ["--out", str(tmp_path), *words])
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and needs in message


def test_successive_halving_stops_those_that_fall_behind() -> None:
    problem = small()
    problem.recipe = replace(problem.recipe, steps=160)
    found = METHODS["halving"](problem, 0)
    first = found.curve[0][0]
    assert first == 10 and found.passes == 160
    # One that is trained to the end leaves room for no other: several must have been stopped at the first rung.
    assert found.details["trials"] >= 6


def test_rows_of_another_request_are_not_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is missing is run, what is there is not run again, and what is not asked for is not shown."""
    place, ran = Place("planted", "plain", NUMBER), []

    class Here:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None: ...
        def submit(self, work: Any, *given: Any) -> Future[None]:
            future: Future[None] = Future()
            future.set_result(work(*given))
            return future

    def rows(problem: Any, methods: Any, seeds: Any, known: Any = ()) -> Iterator[Any]:
        have = {(row.method, row.seed) for row in known}
        missing = [(method, seed) for method in methods for seed in seeds if (method, seed) not in have]
        ran.append(missing)
        yield from known
        yield from (replace(ROW, method=method, seed=seed) for method, seed in missing)

    monkeypatch.setattr(run, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(run, "rows_of", rows)
    monkeypatch.setattr(Place, "problem", lambda place: None)

    def asked(methods: list[str], seeds: list[int]) -> list[tuple[str, int]]:
        return [(row.method, row.seed) for row in run.run([place], methods, seeds, tmp_path, 1)]

    assert asked(["lora"], [0]) == [("lora", 0)]
    assert asked(["lora", "random"], [0, 1]) == [("lora", 0), ("lora", 1), ("random", 0), ("random", 1)]
    assert asked(["random"], [1]) == [("random", 1)]
    assert asked(["random"], [2]) == [("random", 2)]
    assert ran == [[("lora", 0)], [("lora", 1), ("random", 0), ("random", 1)], [("random", 2)]]


def test_rows_from_before_share_the_best_with_those_added(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = small()
    (first,) = rows_of(problem, ["lora"], [0])
    known, added = rows_of(problem, ["lora", "random"], [0], [replace(first, best=-1.0)])
    assert (known.method, added.method) == ("lora", "random") and known.best == added.best == -1.0


def test_rows_of_another_version_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "rows.json", {"version": "0.0.1", "rows": []})
    with pytest.raises(InputError, match=r"rows\.json: its rows are of morenas 0\.0\.1"):
        read_rows(tmp_path / "rows.json")


@pytest.mark.parametrize("out", ["", "{here}/file", "{here}/file/below", "/proc/nowhere", "/dev/null"])
def test_a_folder_that_cannot_be_is_refused_before_anything_is_run(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(InputError, match="out="):
        benchmark(BenchmarkConfig(out.format(here=tmp_path), tables=("planted",), problems=1))
