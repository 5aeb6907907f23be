"""The document of a bench run, its bars, tables and picture."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from morenas.base.errors import InputError
from morenas.benchmark import bars, markdown, measures, plot, report
from morenas.benchmark.planted import FAMILIES
from morenas.benchmark.rows import BenchmarkRow

OURS = "bilevel"
LOSS = {OURS: 0.1, "random": 0.6, "spectral": 0.1}


def row(method: str = OURS, **changes: Any) -> BenchmarkRow:
    fields: dict[str, Any] = dict(
        table="planted", family="plain", problem=0, method=method, seed=0, shapes={"a": (4, 2)}, params=90, budget=100,
        loss=LOSS[method], best=0.1, random=1.1, recovered=1.0, passes=500.0, final_passes=1000.0, seconds=2.0,
        final_seconds=4.0,
    )  # fmt: skip
    return BenchmarkRow(**(fields | changes))


def runs(method: str, problems: int = 3, seeds: int = 2, **changes: Any) -> list[BenchmarkRow]:
    return [row(method, problem=p, seed=s, **changes) for p in range(problems) for s in range(seeds)]


def perfect() -> list[BenchmarkRow]:
    """Rows by which every bar holds."""
    details = {"tau": 0.8, "ceiling": 0.9, "relaxed": 0.1, "inherited": 0.3, "retrained": 0.1}
    rows = []
    for family in FAMILIES:
        rows += runs(OURS, family=family, details=details) + runs("random", family=family, recovered=0.25, shapes={})
        rows += runs("spectral", family=family)
    for task in ("first", "second"):
        tabular: dict[str, Any] = dict(table="tabular", family=task, recovered=None)
        curve = [[0, 1.1], [100, 0.6], [400, 0.1]]
        rows += runs(OURS, 1, details=details, curve=curve, **tabular) + runs(
            "random", 1, curve=curve[:2], shapes={}, **tabular
        )
        rows += runs("spectral", 1, loss=0.2, shapes={}, **tabular)
    return rows


@pytest.fixture(scope="module")
def document() -> report.Document:
    """Of the rows by which every bar holds."""
    return report.summarize(perfect(), OURS)


def changed(rows: list[BenchmarkRow], method: str, table: str, **changes: Any) -> list[BenchmarkRow]:
    return [dataclasses.replace(row, **changes) if (row.method, row.table) == (method, table) else row for row in rows]


def found_bars(rows: list[BenchmarkRow]) -> list[report.Document]:
    """Without p, which no bar looks at: where losses are tied, it is found by trying all permutations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "_wilcoxon", lambda difference, problems: float("nan"))
        return bars.bars(report.summarize(rows, OURS))


def missed(rows: list[BenchmarkRow]) -> set[tuple[str, str, str]]:
    found = found_bars(rows)
    return {(bar["table"], bar["group"], bar["measure"]) for bar in found if not bar["holds"]}


def test_a_row_comes_back_from_json() -> None:
    sent = row(curve=[(1, 0.5)], details={"tau": 0.5}, shapes={"a": [4, 2]})
    assert BenchmarkRow.from_dict(json.loads(json.dumps(sent.to_dict()))) == sent


def test_a_row_of_other_fields_is_refused() -> None:
    with pytest.raises(InputError, match="loss"):
        BenchmarkRow.from_dict({key: value for key, value in row().to_dict().items() if key != "loss"})


def test_regret_and_cost_of_a_row() -> None:
    assert (row("random").regret, row().regret, row().cost) == (pytest.approx(0.5), 0, 1.5)


def test_a_regret_that_cannot_be_names_its_row() -> None:
    with pytest.raises(ValueError, match=r"planted/plain/0/bilevel/0.*not above best"):
        _ = row(random=0.1).regret


def test_figures_are_means_over_problems_and_seeds(document: report.Document) -> None:
    assert list(document["tables"]["planted"]["groups"]) == [*FAMILIES, report.HARD, report.ALL]
    hard = document["tables"]["planted"]["groups"][report.HARD]
    figures = hard["methods"]["random"]
    assert (figures["problems"], figures["seeds"], figures["runs"]) == (12, 2, 24)
    assert figures["regret"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert figures["recovered"]["mean"] == 0.25
    assert "recovered" not in document["tables"]["tabular"]["groups"][report.ALL]["methods"]["random"]
    assert hard["paired"]["random"]["wins"]["mean"] == 1
    assert hard["paired"]["spectral"]["ties"] == 1 and hard["paired"]["spectral"]["p"] == 1


def test_the_discretization_gap_is_a_normalized_regret(document: report.Document) -> None:
    details = document["tables"]["planted"]["groups"]["plain"]["methods"][OURS]["details"]
    assert details["relaxed"]["mean"] == pytest.approx(0)
    assert details["gap_inherited"]["mean"] == pytest.approx(0.2)
    assert details["gap_retrained"]["mean"] == pytest.approx(0)
    assert details["tau"]["mean"] == 0.8


def test_curves_start_where_every_run_has_an_incumbent() -> None:
    rows = [*runs(OURS, 1, curve=[[100, 0.6], [400, 0.1]]), *runs("random", 1, curve=[[200, 0.6]])]
    rows.append(row("random", seed=7, curve=[[400, 1.1]]))
    curves = report.summarize(rows, OURS)["tables"]["planted"]["curves"]
    assert curves[OURS]["trainings"][0] == 0.1 and curves[OURS]["trainings"][-1] == 0.4
    assert curves[OURS]["mean"][0] == pytest.approx(0.5) and curves[OURS]["mean"][-1] == 0
    assert curves["random"]["trainings"] == [0.4]
    assert curves["random"]["mean"] == [pytest.approx(2 / 3, rel=1e-5)]


def test_every_bar_holds_where_all_is_as_it_should_be() -> None:
    assert missed(perfect()) == set()


@pytest.mark.parametrize(
    ("method", "table", "changes", "expected"),
    [
        (OURS, "planted", {"recovered": 0.94}, {("planted", "plain", "recovered")}),
        (OURS, "planted", {"passes": 1001.0}, {("planted", "all", "cost, trainings alone")}),
        (OURS, "tabular", {"details": {"tau": 0.6, "ceiling": 0.7}}, {("tabular", "all", "Kendall tau")}),
        (OURS, "tabular", {"details": {"tau": 0.6, "ceiling": 0.6}}, set()),
        (OURS, "tabular", {"details": {"tau": -0.1, "ceiling": -0.2}}, {("tabular", "all", "Kendall tau")}),
        ("spectral", "tabular", {"loss": 0.1}, {("tabular", "all", "regret less a control's")}),
        ("spectral", "planted", {"loss": 0.0999}, {("planted", "all", "regret less a control's")}),
        ("random", "planted", {"loss": 0.1}, {("planted", "all", "share of pairs won")}),
        (OURS, "tabular", {"loss": 0.16}, {("tabular", "all", "regret")}),
    ],
)
def test_a_bar_fails_where_it_should(
    method: str, table: str, changes: dict[str, Any], expected: set[tuple[str, str, str]]
) -> None:
    assert missed(changed(perfect(), method, table, **changes)) == expected


def test_each_family_has_its_own_regret_bar() -> None:
    rows = changed(changed(perfect(), OURS, "planted", loss=0.12), "spectral", "planted", loss=0.12)
    assert missed(rows) == {("planted", "plain", "regret")}
    rows = [row if row.family != "half" else dataclasses.replace(row, loss=0.4) for row in rows]
    assert {("planted", "plain", "regret"), ("planted", "half", "regret")} <= missed(rows)


def test_the_worst_control_is_named() -> None:
    found = found_bars(changed(perfect(), "spectral", "planted", loss=0.05))
    bar = next(bar for bar in found if bar["measure"] == "regret less a control's" and bar["table"] == "planted")
    assert (bar["worst"], bar["seen"], bar["holds"]) == ("spectral", 0.05, False)


def test_what_was_not_measured_neither_holds_nor_fails() -> None:
    found = bars.bars(report.summarize(runs(OURS), OURS))
    states = {(bar["table"], bar["group"], bar["measure"]): bar["holds"] for bar in found}
    assert states["planted", "plain", "regret"] is True
    assert states["planted", "noisy", "regret"] is None
    assert states["planted", "all", "share of pairs won"] is None
    assert states["planted", "all", "Kendall tau"] is None
    assert {held for (table, _, _), held in states.items() if table == "tabular"} == {None}


def test_pairs_are_those_that_both_have() -> None:
    rows = [*runs(OURS, 2, 3), *runs("random", 3, 1)]
    paired = report.summarize(rows, OURS)["tables"]["planted"]["groups"]["plain"]["paired"]["random"]
    assert (paired["pairs"], paired["problems"], paired["unpaired"]) == (2, 2, 5)


def test_the_document_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    noise = random.Random(0)
    rows = [dataclasses.replace(row, loss=row.loss + noise.random()) for row in perfect()]
    bars.write(tmp_path / "first.json", report.summarize(rows, OURS))
    noise.shuffle(rows)
    bars.write(tmp_path / "second.json", report.summarize(rows, OURS))
    written = (tmp_path / "first.json").read_bytes()
    assert written == (tmp_path / "second.json").read_bytes()
    assert b"NaN" not in written
    assert len(json.loads(written)["bars"]) == 15


def test_rows_without_ours_or_twice_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'bilevel'"):
        report.summarize(perfect(), "bilevl")
    with pytest.raises(InputError, match="2 rows are of the same run"):
        report.summarize([row(), row()], OURS)


def test_the_tables_show_every_method_and_bar(document: report.Document) -> None:
    text = markdown.markdown(document)
    assert "| **bilevel** | 0 [0, 0] |" in text
    assert "| spectral |" in text and "| gap_inherited |" in text
    assert text.count("| yes |") == 15
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_sides_of_n_and_final_losses_are_shown_where_they_were_measured(document: report.Document) -> None:
    of: dict[str, Any] = dict(table="transformer", family="mixed", right_side=0.9, total=1.25)
    other = of | {"right_side": 0.25, "final_loss": 0.25}
    rows = [*runs(OURS, 1, final_loss=0.05, **of), *runs("random", 1, **other)]
    having = report.summarize(rows, OURS)
    text = markdown.markdown(having)
    assert "| **bilevel** | 1.25 | -0.05 [-0.05, -0.05] |" in text and "0.25 [0.25, 0.25]" in text
    assert having["tables"]["transformer"]["groups"]["mixed"]["paired"]["random"]["final"]["mean"] == pytest.approx(
        -0.2
    )
    assert "| -0.2 [-0.2, -0.2] |" in text and "final loss, ours less its" in text
    [bar] = [bar for bar in bars.bars(having) if (bar["measure"], bar["group"]) == ("right side of N", "mixed")]
    assert (bar["seen"], bar["holds"]) == (0.9, False)
    assert "passes in all" in text and "passes in all" not in markdown.markdown(document)


@pytest.mark.parametrize("table", ["planted", "tabular"])
def test_the_picture_is_the_same_for_the_same_document(document: report.Document, table: str, tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        plot.draw(tmp_path / "pictures" / name, document, table)
    first, second = (tmp_path / "pictures" / name for name in ("first.png", "second.png"))
    assert first.read_bytes() == second.read_bytes()
    assert Image.open(first).size[0] == 1320
