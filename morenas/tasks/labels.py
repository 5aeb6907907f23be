"""Check texts and labels, row by row; errors name the row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from morenas.base.errors import InputError, suggest
from morenas.tasks.classes import Classes, classes_of, plain_value, read_label, shortened
from morenas.tasks.sources.raw import Table
from morenas.tasks.spec import TaskSpec

Example = dict[str, Any]


def find_classes(spec: TaskSpec, train: Table) -> Classes | None:
    """The classes of a task, from its spec or its train split; None for regression.

    Raises:
        InputError: If a column is missing, or as ``classes_of``.
    """
    _check_columns(spec, train)
    return None if spec.kind == "regression" else classes_of(spec, train)


def check_examples(spec: TaskSpec, table: Table, classes: Classes | None) -> list[Example]:
    """Check a table and reduce its rows to text columns and ``label``.

    Args:
        classes: None for regression.
    Returns:
        Examples whose labels are whole numbers in ``[0, len(classes.names))``, or floats for regression.
    Raises:
        InputError: Naming the row and what is wrong with it.
    """
    _check_columns(spec, table)
    examples = []
    for index, row in enumerate(table.rows):
        texts = {column: checked_text(table, index, column, row.get(column)) for column in spec.text_columns}
        value = row.get(spec.label_column)
        label = _number(table, index, value) if classes is None else _class(table, index, value, classes, spec)
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


def check_spread(spec: TaskSpec, table: Table, examples: Sequence[Example], test: bool) -> str | None:
    """Notice labels that are all the same, as hidden ones are.

    Returns:
        What to say of a test set of one class; None where there is nothing to say.
    Raises:
        InputError: If all numbers of a regression are the same: there is nothing to learn, or nothing to measure.
    """
    labels = {example["label"] for example in examples}
    if len(labels) > 1 or len(examples) < 2:
        return None
    value = table.rows[0].get(spec.label_column)
    if spec.kind == "regression":
        way_out = "name another split or file to test on" if test else "name other data to train on"
        raise InputError(
            f"{table.name}: every label is {value!r}, as where labels are hidden, so there is nothing to "
            f"{'measure' if test else 'learn'}; {way_out}."
        )
    return (
        f"{table.name}: every label is {value!r}; if labels are hidden there, name another split or file to test on."
        if test
        else None
    )


def _check_columns(spec: TaskSpec, table: Table) -> None:
    if not table.rows:
        raise InputError(f"{table.name}: holds no examples.")
    require_columns(table, (("text_columns", spec.text_columns), ("label_column", (spec.label_column,))))


def checked_text(table: Table, index: int, column: str, value: Any) -> str:
    """The value of a column, which must be text.

    Raises:
        InputError: If it is no text, or cannot be encoded as UTF-8.
    """
    if not isinstance(value, str):
        raise InputError(f"{table.place(index)}: '{column}' must be text, this is {shortened(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{table.place(index)}: '{column}' holds an incomplete character ({value[error.start]!r}), which UTF-8 "
            "cannot encode; correct the text."
        ) from error
    return value


def _class(table: Table, index: int, value: Any, classes: Classes, spec: TaskSpec) -> int:
    label = read_label(table, index, spec.label_column, value, spec.label_names or ())
    if (place := classes.place(label)) is None:
        raise InputError(f"{table.place(index)}: {classes.describe(label)}")
    return place


def _number(table: Table, index: int, value: Any) -> float:
    plain = plain_value(value)
    try:
        number = float(plain) if isinstance(plain, int | float | str) and "_" not in str(plain) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise InputError(
            f"{table.place(index)}: a regression label must be a finite number, this is {shortened(value)}."
        )
    return number
