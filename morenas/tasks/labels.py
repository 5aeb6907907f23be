"""Check texts and labels, row by row; errors name the row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from morenas.base.errors import InputError, suggest
from morenas.tasks.sources.raw import Table
from morenas.tasks.spec import TaskSpec

Example = dict[str, Any]


def label_names(spec: TaskSpec, train: Table) -> tuple[str, ...]:
    """The names of the classes in label order; empty for regression.

    They come from the spec, or are the distinct labels of the train split, sorted.

    Raises:
        InputError: If a column is missing, labels mix numbers and text, or there is one class only.
    """
    if not train.rows:
        raise InputError(f"{train.name}: holds no examples.")
    _check_columns(spec, train)
    if spec.kind == "regression":
        return ()
    if spec.label_names is not None:
        names: Sequence[str] = spec.label_names
        if len(set(names)) < len(names):
            raise InputError(f"task.label_names={list(names)}: every class needs a name of its own.")
    else:
        values: set[Any] = {_plain(row.get(spec.label_column)) for row in train.rows} - {None}
        kinds = {type(value) for value in values}
        if len(kinds) > 1:
            some = ", ".join(repr(next(v for v in values if type(v) is kind)) for kind in kinds)
            raise InputError(
                f"{train.name}: column '{spec.label_column}' mixes numbers and text ({some}); use one of them."
            )
        names = [str(value) for value in sorted(values)]
    if len(set(names)) < 2:
        raise InputError(
            f"{train.name}: column '{spec.label_column}' holds one class only ({', '.join(names) or 'none'}); "
            "a classification task needs at least two."
        )
    return tuple(names)


def check_examples(spec: TaskSpec, table: Table, names: Sequence[str]) -> list[Example]:
    """Check a table and reduce its rows to text columns and ``label``.

    Labels become whole numbers in ``[0, len(names))``, or floats for regression.

    Raises:
        InputError: Naming the row and what is wrong with it.
    """
    if not table.rows:
        raise InputError(f"{table.name}: holds no examples.")
    _check_columns(spec, table)
    examples = []
    for index, row in enumerate(table.rows):
        texts = {column: checked_text(table, index, column, row.get(column)) for column in spec.text_columns}
        value = row.get(spec.label_column)
        label = _number(table, index, value) if spec.kind == "regression" else _class(table, index, value, names, spec)
        examples.append({**texts, "label": label})
    return examples


def require_columns(table: Table, needed: Iterable[tuple[str, Sequence[str]]], hint: str = "") -> None:
    """Refuse a table that lacks a column in every row.

    Args:
        needed: Keys of the task section, each with the columns that it names.
        hint: Words to add to the message.
    Raises:
        InputError: Naming the key, the column and the columns there are.
    """
    there = list(dict.fromkeys(column for row in table.rows for column in row))
    for key, columns in needed:
        if missing := [column for column in columns if column not in there]:
            raise InputError(
                f"{table.name}: there is no column '{missing[0]}' (task.{key}){suggest(missing[0], there)}. "
                f"There are: {', '.join(there)}.{hint}"
            )


def _check_columns(spec: TaskSpec, table: Table) -> None:
    require_columns(table, (("text_columns", spec.text_columns), ("label_column", (spec.label_column,))))


def checked_text(table: Table, index: int, column: str, value: Any) -> str:
    """The value of a column, which must be text.

    Raises:
        InputError: If it is no text, or cannot be encoded as UTF-8.
    """
    if not isinstance(value, str):
        raise InputError(f"{table.place(index)}: '{column}' must be text, this is {value!r}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{table.place(index)}: '{column}' holds an incomplete character ({value[error.start]!r}), which UTF-8 "
            "cannot encode; correct the text."
        ) from error
    return value


def _class(table: Table, index: int, value: Any, names: Sequence[str], spec: TaskSpec) -> int:
    plain = _plain(value)
    if str(plain) in names and (spec.label_names is None or isinstance(plain, str)):
        return list(names).index(str(plain))
    if isinstance(plain, int) and spec.label_names is not None and 0 <= plain < len(names):
        return plain
    unlabeled = " (-1 marks examples whose labels are hidden: use another split)" if plain == -1 else ""
    near = suggest(plain, names) if isinstance(plain, str) else ""
    raise InputError(
        f"{table.place(index)}: unknown label {value!r}{near}{unlabeled}. Known are: "
        + ", ".join(f"{number} {name}" if str(number) != name else name for number, name in enumerate(names))
        + "."
    )


def _number(table: Table, index: int, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise InputError(f"{table.place(index)}: a regression label must be a finite number, this is {value!r}.")
    return number


def _plain(value: Any) -> int | str | None:
    """A label as int or text: a CSV file gives numbers as text, a Parquet file whole numbers as floats."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else str(value)
    if isinstance(value, str):
        stripped = value.strip()
        return int(stripped) if stripped.removeprefix("-").isdecimal() else stripped
    return value if value is None or isinstance(value, int) else str(value)
