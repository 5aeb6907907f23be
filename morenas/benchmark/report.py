"""What a bench run shows: one document of every figure with its interval, the bars, and tables to read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from morenas.base.errors import InputError, suggest
from morenas.base.files import write_json
from morenas.benchmark import measures
from morenas.benchmark.planted import FAMILIES
from morenas.benchmark.rows import Row

FORMAT = "morenas.benchmark/1"
PLANTED, TABULAR = "planted", "tabular"
PLAIN, RANDOM = "plain", "random"
ALL, HARD = "all", "all hard"
GRID = 32  # places of an anytime curve
LOSSES = ("relaxed", "inherited", "retrained")

Document = dict[str, Any]
Figure = dict[str, float]


def summarize(rows: Sequence[Row], ours: str) -> Document:
    """Every figure of a run, whatever the order of its rows.

    Format: ``tables`` -> table -> ``groups`` -> a family, "all hard" (planted, but the plain family) or "all" ->
    ``methods`` (figures of each, best first) and ``paired`` (ours beside each other method on the problems and seeds
    that both have). A figure is ``{"mean", "low", "high"}``; losses are normalized regrets. ``curves`` of a table are
    regrets after so many trainings alone, from where every run of the method has an incumbent.

    Args:
        ours: The method that the bars are about; every other one is a control.
    Raises:
        InputError: If no row is of ``ours``, or two rows are of the same run.
        ValueError: As ``Row.regret``.
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


def write(path: str | Path, document: Document) -> None:
    """Write the document and its bars as JSON, whole or not at all."""
    write_json(path, {**document, "bars": bars(document)})


def _table(name: str, rows: list[Row], ours: str) -> Document:
    families = sorted({row.family for row in rows}, key=lambda family: (_difficulty(family), family))
    groups = {family: [row for row in rows if row.family == family] for family in families}
    if name == PLANTED and any(row.family != PLAIN for row in rows):
        groups[HARD] = [row for row in rows if row.family != PLAIN]
    groups[ALL] = rows
    return {"groups": {group: _group(of, ours) for group, of in groups.items()}, "curves": _curves(rows)}


def _difficulty(family: str) -> int:
    return list(FAMILIES).index(family) if family in FAMILIES else len(FAMILIES)


def _group(rows: list[Row], ours: str) -> Document:
    of = _by_method(rows)
    methods = {name: _method(runs) for name, runs in of.items()}
    ranked = sorted(methods, key=lambda name: (methods[name]["regret"]["mean"], name))
    compared = {name: _paired(of.get(ours, []), of[name]) for name in ranked if name != ours}
    return {
        "methods": {name: methods[name] for name in ranked},
        "paired": {name: pair for name, pair in compared.items() if pair},
    }


def _by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.method, []).append(row)
    return found


def _method(rows: list[Row]) -> Document:
    """Figures of one method's runs; what was not measured is absent."""
    recovered = _figure([row for row in rows if row.recovered is not None], lambda row: row.recovered or 0.0)
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
    return figures | ({"recovered": recovered} if recovered else {})


def _details(rows: list[Row]) -> Document:
    """Rank correlations as they are; losses, and the discretization gap between them, as normalized regrets."""
    found: Document = {}
    for name in sorted({name for row in rows for name in row.details}):
        having = [row for row in rows if name in row.details]
        found[name] = _figure(having, partial(_detail, name))
    for name, (start, end) in {"gap_inherited": LOSSES[:2], "gap_retrained": LOSSES[::2]}.items():
        having = [row for row in rows if {start, end} <= set(row.details)]
        if having:
            found[name] = _figure(having, partial(_gap, start, end))
    return found


def _detail(name: str, row: Row) -> float:
    return row.normalized(row.details[name]) if name in LOSSES else row.details[name]


def _gap(start: str, end: str, row: Row) -> float:
    return _detail(end, row) - _detail(start, row)


def _paired(ours: list[Row], others: list[Row]) -> Document | None:
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
    return document | {name: _rounded_figure(getattr(found, name)) for name in ("difference", "wins")}


def _curves(rows: list[Row]) -> Document:
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


def _curve(row: Row) -> list[tuple[float, float]]:
    return [(passes / row.final_passes, row.normalized(loss)) for passes, loss in row.curve]


def _problem(row: Row) -> tuple[str, int]:
    return row.family, row.problem


def _figure(rows: list[Row], of: Callable[[Row], float]) -> Figure:
    if not rows:
        return {}
    return _rounded_figure(measures.bootstrap([of(row) for row in rows], [_problem(row) for row in rows]))


def _rounded_figure(interval: measures.Interval) -> Figure:
    return {name: _rounded(value) for name, value in asdict(interval).items()}


def _rounded(value: float | np.floating[Any]) -> float:
    """Six significant digits: what summation order changes lies below."""
    return float(f"{float(value):.6g}")


def bars(document: Document) -> list[Document]:
    """What the bench must show, beside what it has seen.

    Each is ``measure``, ``table``, ``group``, ``seen`` with ``low`` and ``high``, ``relation``, ``bar``, ``holds`` and
    ``worst`` (the control it is about). ``holds`` compares the mean, not the interval; it is None, and so is
    ``seen``, where nothing was measured. The bar on rank correlation is 0.7 or 0.95 of the ceiling, the lower one.
    """
    ours, tables = document["ours"], document["tables"]
    known = dict.fromkeys([*FAMILIES, *(group for group in _groups(tables, PLANTED) if group not in (HARD, ALL))])
    found = [
        _bar("regret", PLANTED, family, _seen(tables, PLANTED, family, ours, "regret"), "<=", limit)
        for family, limit in ((family, 0.01 if family == PLAIN else 0.05) for family in known)
    ]
    found.append(_bar("recovered", PLANTED, PLAIN, _seen(tables, PLANTED, PLAIN, ours, "recovered"), ">=", 0.95))
    names = dict.fromkeys([PLANTED, TABULAR, *tables])
    found += [
        _bar("regret", name, ALL, _seen(tables, name, ALL, ours, "regret"), "<=", 0.05)
        for name in names
        if name != PLANTED
    ]
    for name in names:
        against = _groups(tables, name).get(ALL, {}).get("paired", {})
        found.append(_bar("share of pairs won", name, ALL, against.get(RANDOM, {}).get("wins"), ">=", 0.90, RANDOM))
        found.append(_worst_control(name, against))
        found.append(_correlation(name, _seen(tables, name, ALL, ours, "details") or {}))
        found.append(_bar("cost, trainings alone", name, ALL, _seen(tables, name, ALL, ours, "cost"), "<=", 2.0))
    return found


def _groups(tables: Document, table: str) -> Document:
    groups: Document = tables.get(table, {}).get("groups", {})
    return groups


def _seen(tables: Document, table: str, group: str, ours: str, name: str) -> Document | None:
    found: Document | None = _groups(tables, table).get(group, {}).get("methods", {}).get(ours, {}).get(name)
    return found


def _worst_control(table: str, against: Mapping[str, Document]) -> Document:
    worst = max(against, key=lambda name: against[name]["difference"]["mean"], default=None)
    seen = None if worst is None else against[worst]["difference"]
    return _bar("regret less a control's", table, ALL, seen, "<" if table == TABULAR else "<=", 0.0, worst)


def _correlation(table: str, details: Mapping[str, Figure]) -> Document:
    ceiling = details.get("ceiling", {}).get("mean", math.inf)
    limit = min(0.7, _rounded(0.95 * ceiling)) if ceiling > 0 else 0.7
    return _bar("Kendall tau", table, ALL, details.get("tau"), ">=", limit)


HOLDS: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda seen, bar: seen <= bar,
    "<": lambda seen, bar: seen < bar,
    ">=": lambda seen, bar: seen >= bar,
}


def _bar(
    measure: str, table: str, group: str, figure: Figure | None, relation: str, bar: float, worst: str | None = None
) -> Document:
    figure = figure or {}
    seen = figure.get("mean")
    return {
        "measure": measure,
        "table": table,
        "group": group,
        "seen": seen,
        "low": figure.get("low"),
        "high": figure.get("high"),
        "relation": relation,
        "bar": bar,
        "holds": None if seen is None else HOLDS[relation](seen, bar),
        "worst": worst,
    }


def markdown(document: Document) -> str:
    """Tables for a README: the bars, then regrets, pairs and rank correlations of every table."""
    parts = [_bars_table(bars(document))]
    for name, table in document["tables"].items():
        parts.append(f"**{name}**: normalized regret [95 %]\n\n{_regrets(table['groups'], document['ours'])}")
        if table["groups"][ALL]["paired"]:
            parts.append(f"**{name}**: {document['ours']} beside each control\n\n{_pairs(table['groups'][ALL])}")
        details = {key: of["details"] for key, of in table["groups"][ALL]["methods"].items() if of["details"]}
        if details:
            parts.append(f"**{name}**: supernet and alone-trained\n\n{_correlations(details)}")
    return "\n\n".join(parts) + "\n"


def _bars_table(found: list[Document]) -> str:
    holds = {None: "not measured", True: "yes", False: "**no**"}
    lines = [
        [
            f"{bar['measure']}, {bar['table']}, {bar['group']}"
            + (f" (against {bar['worst']})" if bar["worst"] else ""),
            f"{bar['relation']} {bar['bar']:.3g}",
            _shown(bar, "seen"),
            holds[bar["holds"]],
        ]
        for bar in found
    ]
    return _lines(["measure", "bar", "seen [95 %]", "holds"], lines)


def _regrets(groups: Document, ours: str) -> str:
    names = [name for name in groups if name != ALL or len(groups) > 2]
    lines = []
    for method, figures in groups[ALL]["methods"].items():
        regrets = [_shown(groups[name]["methods"].get(method, {}).get("regret")) for name in names]
        rest = [_shown(figures.get("recovered")), f"{figures['cost']['mean']:.2f}", f"{figures['seconds']:.3g}"]
        runs = f"{figures['problems']} x {figures['seeds']}"
        lines.append([f"**{method}**" if method == ours else method, *regrets, *rest, runs])
    return _lines(["method", *names, "recovered", "cost", "seconds", "problems x seeds"], lines)


def _pairs(group: Document) -> str:
    lines = [
        [name, _shown(of["difference"]), _shown(of["wins"]), f"{of['ties']:.3g}", f"{of['p']:.2g}", str(of["pairs"])]
        for name, of in group["paired"].items()
    ]
    return _lines(["control", "regret, ours less its [95 %]", "won [95 %]", "ties", "Wilcoxon p", "pairs"], lines)


def _correlations(details: Mapping[str, Document]) -> str:
    names = list(dict.fromkeys(name for of in details.values() for name in of))
    lines = [[name, *(_shown(of.get(name)) for of in details.values())] for name in names]
    return _lines(["measure [95 %]", *details], lines)


def _shown(figure: Figure | None, mean: str = "mean") -> str:
    if not figure or figure[mean] is None:
        return "-"
    return f"{figure[mean]:.3g} [{figure['low']:.3g}, {figure['high']:.3g}]"


def _lines(heading: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heading, rule, *lines))
