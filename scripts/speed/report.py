"""Tables of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from speed.bars import Verdict
from speed.rows import Row


def print_section(console: Console, rows: Sequence[Row]) -> None:
    """One table per measure and reference: a line per case, a column per contestant."""
    for kind in _distinct((row.section, row.measure, row.reference) for row in rows):
        console.print(_table([row for row in rows if (row.section, row.measure, row.reference) == kind]))


def _table(rows: Sequence[Row]) -> Table:
    first = rows[0]
    unit = "MiB" if first.median_ms is None else "ms"
    table = Table(title=f"{first.section}: {first.measure}, {unit} (ratio to {first.reference})", title_justify="left")
    keys, names = _distinct(key for row in rows for key in row.case), _distinct(row.contestant for row in rows)
    for heading in (*keys, *names):
        table.add_column(heading, justify="right")
    cells = {(_case(row), row.contestant): _cell(row) for row in rows}
    for case in _distinct(_case(row) for row in rows):
        table.add_row(*(dict(case).get(key, "-") for key in keys), *(cells.get((case, name), "-") for name in names))
    return table


def _case(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple((key, str(value)) for key, value in row.case.items())


def _cell(row: Row) -> str:
    value = row.median_ms if row.peak_bytes is None else row.peak_bytes / 2**20
    assert value is not None
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{shown} ({row.ratio:.2f})"


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """The bars, and what was seen of them."""
    table = Table(title="bars", title_justify="left")
    for heading in ("measure", "bar", "seen", "holds", "worst at"):
        table.add_column(heading)
    for verdict in verdicts:
        seen = "not measured" if verdict.seen is None else f"{verdict.seen:.3f}"
        holds = {None: "-", True: "yes", False: "no"}[verdict.holds]
        table.add_row(verdict.measure, f"{verdict.bar:g}", seen, holds, verdict.where or "-")
    console.print(table)


def _distinct(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))
