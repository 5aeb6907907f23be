"""Fewer cases than all combinations of several parameters: most mistakes show with one value, nearly all with two."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from itertools import cycle, islice
from typing import Any

import pytest
from allpairspy import AllPairs


def pairs(**values: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrize a test so that any two values of different parameters meet at least once."""
    lists = [list(each) for each in values.values()]
    return _parametrized(values, [tuple(row) for row in AllPairs(lists)])


def in_turn(**values: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrize a test by the longest list, the values of the other parameters taking turns beside it."""
    return _parametrized(values, rows_in_turn(values.values()))


def rows_in_turn(values: Iterable[Iterable[Any]]) -> list[tuple[Any, ...]]:
    """The cases of ``in_turn``."""
    lists = [list(each) for each in values]
    longest = max(map(len, lists))
    return list(zip(*(islice(cycle(each), longest) for each in lists), strict=True))


def _parametrized(values: Iterable[str], rows: list[tuple[Any, ...]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(tuple(values), rows, ids=_name)


def _name(value: Any) -> str | None:
    """Of a value in a test's id; pytest names numbers and words by itself."""
    if isinstance(value, Enum) or value is None or isinstance(value, bool | int | float | str):
        return None
    return value.__name__ if isinstance(value, Callable) else str(value)  # type: ignore[arg-type]
