"""The table of real tasks: which rows are run, how, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import table
from comparison import bayesian_signed_rank, compare, difference_of_seeds, holm
from protocol import (
    METHODS,
    OURS,
    SEEDS,
    TASKS,
    Row,
    best_rate,
    half_decade,
    missing,
    rates_to_try,
    row_beside,
    rows_of,
)
from scipy import stats
from series import Series, line_of, shapes_by_type, work
from tiny_runs import composed

PLACE = ("minilm-l3", "stsb", "lora-r1")
SMALL = METHODS["lora-r1"].rates

Made = dict[Row, dict[str, Any]]


def made(select: Callable[[Row], float], *rows: Row) -> Made:
    """Rows as a series keeps them, with a metric and a select metric of one's own."""
    return {row: line(row, select(row)) for row in rows}


def line(row: Row, metric: float) -> dict[str, Any]:
    return {**row._asdict(), "metric": metric, "select": metric, "params": 20_000, "passes": 3.6}


def done(metrics: dict[str, float], tasks: tuple[str, ...], seeds: int = 3) -> Made:
    """Whole series of methods, best at 3e-3 (of LoRA r = 32 at 3e-4), with a task's number and the seed added."""
    known: Made = {}
    for index, task in enumerate(tasks):
        for method, metric in metrics.items():
            low, best, high = METHODS[method].rates
            place, more = ("minilm-l3", task, method), index / 10
            known |= made(lambda _: 0.0, Row(*place, low, 0), Row(*place, high, 0))
            rows = [Row(*place, best, seed) for seed in range(seeds)]
            known |= made(lambda row, at=metric + more: at + row.seed / 100, *rows)  # type: ignore[misc]
    return known


def interval(values: list[float]) -> tuple[float, float, float]:
    found = difference_of_seeds(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))
    assert found is not None
    return found.mean, found.low, found.high


def test_the_interval_of_a_constant_difference_is_that_difference() -> None:
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)
    mean, low, high = interval([0.0, 1.0, 2.0])
    assert mean == 1 and 0 <= low < 1 < high <= 2


def test_pairs_are_of_equal_seeds_and_one_of_them_gives_no_interval() -> None:
    found = difference_of_seeds({0: 1.0, 1: 2.0, 4: 9.0}, {1: 1.0, 0: 0.0, 3: -50.0})
    assert found is not None and found.mean == found.low == 1
    assert difference_of_seeds({0: 1.0, 1: 2.0}, {1: 1.0, 2: 0.0}) is None


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9]) and holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


def test_the_bayesian_signed_rank_test_says_which_way_and_whether_it_matters() -> None:
    differences = [1.0, 2.0, 1.5, 3.0, 0.9, 1.2, 2.2, 1.1]
    worse, equal, better = bayesian_signed_rank(differences)
    assert better > 0.99 and worse == 0 and worse + equal + better == pytest.approx(1)
    assert bayesian_signed_rank([-value for value in differences])[0] > 0.99
    assert bayesian_signed_rank([0.1, -0.2, 0.05, 0.0])[1] == 1
    assert bayesian_signed_rank([5.0, -5.0], rope=0.0)[0] == pytest.approx(
        bayesian_signed_rank([-5.0, 5.0], rope=0.0)[2], abs=0.02
    )


def test_a_single_difference_wins_as_often_as_its_weight_says() -> None:
    # Walsh averages of the prior's 0 and of 10 lie above the region but for that of 0 with itself: w² against 1 - w².
    expected = stats.beta(0.5, 1).cdf(0.5**0.5)
    assert bayesian_signed_rank([10.0])[2] == pytest.approx(expected, abs=0.01)


def test_a_comparison_is_of_the_tasks_mean_differences() -> None:
    rng = np.random.default_rng(0)
    ours = {str(task): dict(enumerate(rng.normal(task, 1, 4))) for task in range(6)}
    other = {task: dict(enumerate(rng.normal(0, 1, 4))) for task in ours}
    few = {task: {0: 0.0} for task in ours}
    (one,) = compare(ours, {"other": other, "few": few})
    means = [np.mean([ours[task][seed] - other[task][seed] for seed in range(4)]) for task in ours]
    assert (one.rival, one.tasks, one.pairs) == ("other", 6, 24)
    assert one.difference.mean == pytest.approx(np.mean(means)) and one.difference.low < one.difference.mean
    assert one.p == one.holm == pytest.approx(stats.wilcoxon(means).pvalue)


def test_learning_rates_lie_half_a_decade_apart() -> None:
    assert [half_decade(rate, down=False) for rate in (1e-4, 3e-4, 1e-2)] == [3e-4, 1e-3, 3e-2]
    assert [half_decade(rate, down=True) for rate in (1e-4, 3e-4, 1e-2)] == [3e-5, 1e-4, 3e-3]
    for method in METHODS.values():
        assert all(half_decade(a, down=False) == b for a, b in zip(method.rates, method.rates[1:], strict=False))


@pytest.mark.parametrize(("best", "further"), [(1e-3, [3e-4]), (3e-3, []), (1e-2, [3e-2])])
def test_a_rate_at_the_end_of_the_grid_asks_for_one_more(best: float, further: list[float]) -> None:
    found = {rate: float(rate == best) for rate in SMALL}
    assert rates_to_try(found, PLACE) == [*SMALL, *further]
    known = made(lambda row: found[row.learning_rate], *(Row(*PLACE, rate, 0) for rate in SMALL))
    assert best_rate(known, PLACE) == (None if further else best)
    for rate in further:
        known |= made(lambda _: 2.0, Row(*PLACE, rate, 0))
        assert best_rate(known, PLACE) == rate and rates_to_try(found | {rate: 2.0}, PLACE) == [*SMALL, *further]


def test_other_seeds_do_not_choose_and_of_equal_rates_the_lower_is_taken() -> None:
    known = made(lambda _: 0.5, *(Row(*PLACE, rate, 0) for rate in (*reversed(SMALL), 3e-4)))
    known |= made(lambda _: 1.0, Row(*PLACE, 1e-2, 1))
    assert best_rate(known, PLACE) == 3e-4


class Pretended(Series):
    """A series whose runs take no time."""

    def __init__(self) -> None:
        self.done: Made = {}

    def known(self) -> Made:
        return self.done

    def run(self, row: Row) -> bool:
        if row.learning_rate == 1e-2 and row.task == "rte":
            return False
        self.done[row] = line(row, 1 - abs(row.learning_rate - 2e-3) + row.seed)
        return True


def test_rows_come_in_the_order_of_the_protocol_until_none_is_missing() -> None:
    series = Pretended()
    names = [["minilm-l3"], ["stsb"], [OURS, "lora-equal-passes"]]
    assert work(series, names) == [] and not list(missing(series.done, *names))
    order = [(row.method, row.seed) for row in series.done]
    trials = len(SMALL) + 1  # the best of the grid lies at its end
    assert order[: 2 * trials] == [(OURS, 0)] * trials + [("lora-equal-passes", 0)] * trials
    assert sorted(order[2 * trials :]) == sorted((method, seed) for method in names[2] for seed in SEEDS[1:])


def test_a_row_waits_for_the_one_that_says_its_size() -> None:
    names = [["minilm-l3"], ["stsb"], ["lora-equal"]]
    row = Row("minilm-l3", "stsb", "lora-equal", 1e-3, 1)
    known = done({OURS: 0.5}, ("stsb",), seeds=1)
    assert [one.learning_rate for one in missing(known, *names)] == list(SMALL)
    assert not list(missing({}, *names)) and row_beside(known, row) is None
    beside = row_beside(done({OURS: 0.5}, ("stsb",)), row)
    assert beside is not None and (beside["seed"], beside["learning_rate"]) == (1, 3e-3)


def test_a_run_that_fails_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    failed = work(Pretended(), [["minilm-l3"], ["rte", "stsb"], ["lora-r1"]])
    assert failed == [Row("minilm-l3", "rte", "lora-r1", 1e-2, 0)] and "stsb-lora-r1-0.001-4" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "task"), zip(METHODS, [*TASKS, *TASKS], strict=False))
def test_commands_compose_without_unknown_keys(tmp_path: Path, method: str, task: str) -> None:
    series, row = Series(tmp_path, tmp_path, tmp_path / "runs"), Row("minilm-l3", task, method, 3e-3, 2)
    words = series.command(row, tmp_path / "run", {"params": 33177, "passes": 3.6})[2:]
    config = composed(words[0].removeprefix("morenas."), words[1:])
    assert (config.seed, config.training.learning_rate, config.model.pooling) == (2, 3e-3, "mean")
    assert config.training.epochs == (3.6 if "passes" in method else TASKS[task].epochs)
    if "equal" in method:
        assert config.method.params == 33177
    if words[0] == "morenas.search":
        assert (config.compare, config.search.runs) == ("none", 2 if "two" in method else 1)
    files = {path.stem for path in (tmp_path / "runs" / "data" / task).iterdir()}
    assert files == {"train", *config.task.test_splits.values()}


def test_an_interrupted_row_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    command = Series(tmp_path, tmp_path, tmp_path).command(Row(*PLACE, 1e-3, 0), tmp_path)
    assert command[2:] == ["morenas.finetune", f"resume={tmp_path}"]


def test_a_line_counts_the_search_with_the_training(tmp_path: Path) -> None:
    modules = {f"encoder.layer.{layer}.{kind}": {"nblocks": layer + 1} for layer in range(2) for kind in "qv"}
    details = {"best_step": 8, "passes_with_search": 72, "worth": {"gain": 0.1}}
    found = {"metrics": {"test": {"pearson": 0.5}, "select": {"pearson": 0.4}}, "adapter_params": 7, "steps": 30}
    phases = [{"name": name, "seconds": 1.5} for name in ("prepare", "search", "finetune", "evaluate")]
    results = {
        "kind": "search",
        "split": "test",
        "methods": [{**found, "details": details}],
        "data": {"sizes": {"search_train": 600, "search_val": 30, "select": 100}},
        "phases": phases,
        "git_commit": "c",
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "architecture.json").write_text(json.dumps({"modules": modules}))
    kept = line_of(Row("minilm-l3", "stsb", OURS, 1e-3, 0), tmp_path)
    assert (kept["passes"], kept["seconds"], kept["steps"], kept["worth"]) == (3.6, 3.0, 30, {"gain": 0.1})
    assert kept["shapes"] == shapes_by_type(modules) == {f"encoder.layer.*.{kind}": {"1": 1, "2": 1} for kind in "qv"}


@pytest.fixture(scope="module")
def whole() -> Made:
    """Three table tasks and a development task; LoRA r = 32 is above r = 1 on all but the constant ones."""
    known = done({OURS: 0.5, "lora-r1": 0.4, "lora-r32": 0.45, "lora-equal": 0.5}, ("stsb", "mrpc", "rte", "qnli"))
    return known | done({"lora-r1": 0.7, "lora-r32": 0.7}, ("qnli",))


def test_tables_say_what_the_rows_give(whole: Made) -> None:
    text = table.markdown(table.tables(whole))
    assert "| stsb | morenas | 51.00 ± 1.00 | 3 | 20,000 | 3.60 | 3e-3 |" in text
    assert (
        "| stsb | +5.00 [+5.00, +5.00] | 3 | yes |" in text
        and "| qnli | +0.00 [+0.00, +0.00] | 3 | no headroom" in text
    )
    assert "| mrpc (development) | lora-r1 | +10.00 [+10.00, +10.00] | 3 |" in text and "qnli (no headroom)" in text
    assert "| all | lora-equal | 3 | 9 | +0.00 [+0.00, +0.00] | 1.000 | 1.000 | 0.000 | 1.000 | 0.000 |" in text
    assert "| with headroom | lora-equal | 2 | 6 |" in text


def test_one_common_seed_is_said_and_no_task_of_a_mean(whole: Made) -> None:
    known = {row: kept for row, kept in whole.items() if row.seed == 0}
    text = table.markdown(table.tables(known))
    assert "| lora-r1 | fewer than two common seeds | 1 |" in text and "mean over tasks" not in text


def test_latex_has_a_line_for_every_line(whole: Made) -> None:
    found = table.tables(whole)
    text = table.latex(found)
    assert text.count(r"\\") == sum(1 + len(one.lines) for one in found) and r"51.00 $\pm$ 1.00" in text
    assert r"95 \%" in text and "_" not in text.replace(r"\_", "")


def test_the_figure_has_a_panel_for_each_task_and_a_dot_for_each_method(whole: Made) -> None:
    axes = table.figure(whole).axes
    assert [axis.get_title() for axis in axes] == [f"{task}, minilm-l3" for task in ("stsb", "mrpc", "rte", "qnli")]
    assert {len(axis.containers) for axis in axes} == {4}


def test_the_readme_has_the_tables_of_its_rows() -> None:
    rows, readme = (table.HERE / name for name in ("rows.json", "README.md"))
    known = rows_of(json.loads(rows.read_text())["rows"])
    assert table.written(readme.read_text(), known) == readme.read_text(), "run experiments/real_tasks/table.py --write"
