"""What a bench run shows: one document of every figure with its interval, the bars, and tables to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from morenas.base.errors import InputError, suggest
from morenas.benchmark import measures
from morenas.benchmark.planted import FAMILIES
from morenas.benchmark.rows import BenchmarkRow

FORMAT = "morenas.benchmark/1"
PLANTED, TRANSFORMER, TABULAR = "planted", "transformer", "tabular"
PLAIN, RANDOM = "plain", "random"
ALL, HARD = "all", "all hard"
GRID = 32  # places of an anytime curve
LOSSES = ("relaxed", "inherited", "retrained", "one_run", "lora_equal_passes")
PARTLY: dict[str, Callable[[BenchmarkRow], float | None]] = {
    "recovered": lambda row: row.recovered,
    "right_side": lambda row: row.right_side,
    "final": lambda row: None if row.final_loss is None else row.normalized(row.final_loss),
    "total": lambda row: row.total,
}
"""Figures that some rows lack."""
Document = dict[str, Any]
Figure = dict[str, float]


def summarize(rows: Sequence[BenchmarkRow], ours: str) -> Document:
    """Every figure of a run, whatever the order of its rows.

    Format: ``tables`` -> table -> ``groups`` -> a family, "all hard" (planted, but the plain family) or "all" ->
    ``methods`` (figures of each, best first) and ``paired`` (ours beside each other method on the problems and seeds
    that both have). A figure is ``{"mean", "low", "high"}``; losses are normalized regrets. ``curves`` of a table are
    regrets after so many trainings alone, from where every run of the method has an incumbent.

    Args:
        ours: The method that the bars are about; every other one is a control.
    Raises:
        InputError: If no row is of ``ours``, or two rows are of the same run.
        ValueError: As ``BenchmarkRow.regret``.
    """
    rows = sorted(rows, key=lambda row: row.key)
    methods = sorted({row.method for row in rows})
    if ours not in methods:
        raise InputError(f"bench: no row is of method '{ours}'{suggest(ours, methods)}; there are {methods}.")
    key, times = Counter(row.key for row in rows).most_common(1)[0]
    if times > 1:
        raise InputError(f"bench: {times} rows are of the same run, {key}; keep one of them.")
    bootstrap = {"level": measures.LEVEL, "resamples": measures.RESAMPLES, "seed": 0}
    tables = {name: [row for row in rows if row.table == name] for name in sorted({row.table for row in rows})}
    return {
        "format": FORMAT,
        "ours": ours,
        "bootstrap": bootstrap,
        "tables": {name: _table(name, of, ours) for name, of in tables.items()},
    }


def _table(name: str, rows: list[BenchmarkRow], ours: str) -> Document:
    families = sorted({row.family for row in rows}, key=lambda family: (_difficulty(family), family))
    groups = {family: [row for row in rows if row.family == family] for family in families}
    if name == PLANTED and any(row.family != PLAIN for row in rows):
        groups[HARD] = [row for row in rows if row.family != PLAIN]
    groups[ALL] = rows
    return {"groups": {group: _group(of, ours) for group, of in groups.items()}, "curves": _curves(rows)}


def _difficulty(family: str) -> int:
    return list(FAMILIES).index(family) if family in FAMILIES else len(FAMILIES)


def _group(rows: list[BenchmarkRow], ours: str) -> Document:
    of = _by_method(rows)
    methods = {name: _method(runs) for name, runs in of.items()}
    ranked = sorted(methods, key=lambda name: (methods[name]["regret"]["mean"], name))
    compared = {name: _paired(of.get(ours, []), of[name]) for name in ranked if name != ours}
    return {
        "methods": {name: methods[name] for name in ranked},
        "paired": {name: pair for name, pair in compared.items() if pair},
    }


def _by_method(rows: Iterable[BenchmarkRow]) -> dict[str, list[BenchmarkRow]]:
    found: dict[str, list[BenchmarkRow]] = {}
    for row in rows:
        found.setdefault(row.method, []).append(row)
    return found


def _method(rows: list[BenchmarkRow]) -> Document:
    """Figures of one method's runs; what was not measured is absent."""
    figures: Document = {
        "problems": len({_problem(row) for row in rows}),
        "seeds": len({row.seed for row in rows}),
        "runs": len(rows),
        "regret": _figure(rows, lambda row: row.regret),
        "cost": _figure(rows, lambda row: row.cost),
        **{name: _rounded(np.mean([getattr(row, name) for row in rows])) for name in ("passes", "final_passes")},
        **{name: _rounded(np.mean([getattr(row, name) for row in rows])) for name in ("seconds", "final_seconds")},
        "params_of_budget": _figure(rows, lambda row: row.params / row.budget),
        "details": _details(rows),
    }
    return figures | {name: figure for name, of in PARTLY.items() if (figure := _measured(rows, of))}


def _measured(rows: list[BenchmarkRow], of: Callable[[BenchmarkRow], float | None]) -> Figure:
    """The figure of the rows that have it."""
    return _figure([row for row in rows if of(row) is not None], lambda row: of(row) or 0.0)


def _details(rows: list[BenchmarkRow]) -> Document:
    """Rank correlations as they are; losses, and the discretization gap between them, as normalized regrets."""
    found: Document = {}
    for name in sorted({name for row in rows for name in row.details}):
        having = [row for row in rows if name in row.details]
        found[name] = _figure(having, partial(_detail, name))
    differences = {
        "gap_inherited": ("relaxed", "inherited"),
        "gap_retrained": ("relaxed", "retrained"),
        "less_lora_equal_passes": ("lora_equal_passes", "one_run"),
    }
    for name, (start, end) in differences.items():
        having = [row for row in rows if {start, end} <= set(row.details)]
        if having:
            found[name] = _figure(having, partial(_gap, start, end))
    return found


def _detail(name: str, row: BenchmarkRow) -> float:
    return row.normalized(row.details[name]) if name in LOSSES else row.details[name]


def _gap(start: str, end: str, row: BenchmarkRow) -> float:
    return _detail(end, row) - _detail(start, row)


def _paired(ours: list[BenchmarkRow], others: list[BenchmarkRow]) -> Document | None:
    """Both on the same problem and seed; None where they share none."""
    beside = {(*_problem(row), row.seed): row for row in others}
    pairs = [(row, beside[(*_problem(row), row.seed)]) for row in ours if (*_problem(row), row.seed) in beside]
    if not pairs:
        return None
    found = measures.paired(
        [row.regret for row, _ in pairs],
        [other.regret for _, other in pairs],
        [_problem(row) for row, _ in pairs],
        [measures.adapters(row.shapes) == measures.adapters(other.shapes) for row, other in pairs],
    )
    unpaired = len(ours) + len(others) - 2 * len(pairs)
    document = asdict(found) | {"ties": _rounded(found.ties), "p": _rounded(found.p), "unpaired": unpaired}
    document |= {name: _rounded_figure(getattr(found, name)) for name in ("difference", "wins")}
    final = [(difference, _problem(row)) for row, other in pairs if (difference := _in_the_end(row, other)) is not None]
    if final:
        differences, problems = zip(*final, strict=True)
        document["final"] = _rounded_figure(measures.bootstrap(differences, problems))
    return document


def _in_the_end(row: BenchmarkRow, other: BenchmarkRow) -> float | None:
    """The final loss of a run less that of another, as normalized regrets; None where one has none."""
    if row.final_loss is None or other.final_loss is None:
        return None
    return row.normalized(row.final_loss) - other.normalized(other.final_loss)


def _curves(rows: list[BenchmarkRow]) -> Document:
    """Mean regret of each method's incumbents with a band, over trainings alone spent on the search."""
    curves = {name: [row for row in of if row.curve] for name, of in _by_method(rows).items()}
    lines = {name: [_curve(row) for row in of] for name, of in curves.items() if of}
    places = [place for of in lines.values() for line in of for place, _ in line if place > 0]
    if not places:
        return {}
    grid = np.geomspace(min(places), max(places), GRID) if max(places) > min(places) else np.array([max(places)])
    grid[-1] = max(places)
    found = {}
    for name, of in lines.items():
        values = measures.anytime(of, grid)
        known = ~np.isnan(values).any(axis=0)
        if known.any():
            means, low, high = measures.band(values[:, known], [_problem(row) for row in curves[name]])
            columns = {"trainings": grid[known], "mean": means, "low": low, "high": high}
            found[name] = {column: [_rounded(value) for value in column_of] for column, column_of in columns.items()}
    return found


def _curve(row: BenchmarkRow) -> list[tuple[float, float]]:
    return [(passes / row.final_passes, row.normalized(loss)) for passes, loss in row.curve]


def _problem(row: BenchmarkRow) -> tuple[str, int]:
    return row.family, row.problem


def _figure(rows: list[BenchmarkRow], of: Callable[[BenchmarkRow], float]) -> Figure:
    if not rows:
        return {}
    return _rounded_figure(measures.bootstrap([of(row) for row in rows], [_problem(row) for row in rows]))


def _rounded_figure(interval: measures.Interval) -> Figure:
    return {name: _rounded(value) for name, value in asdict(interval).items()}


def _rounded(value: float | np.floating[Any]) -> float:
    """Six significant digits: what summation order changes lies below."""
    return float(f"{float(value):.6g}")
