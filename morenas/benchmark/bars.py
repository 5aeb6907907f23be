"""The bars of the bench: what it must show, beside what it has seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from morenas.base.files import write_json
from morenas.benchmark.planted import FAMILIES
from morenas.benchmark.report import ALL, HARD, PLAIN, PLANTED, RANDOM, TABULAR, TRANSFORMER, Document, Figure, _rounded


def write(path: str | Path, document: Document) -> None:
    """Write the document and its bars as JSON, whole or not at all."""
    write_json(path, {**document, "bars": bars(document)})


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
    found += [
        _bar("right side of N", TRANSFORMER, group, _seen(tables, TRANSFORMER, group, ours, "right_side"), ">=", 0.95)
        for group in _groups(tables, TRANSFORMER)
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
