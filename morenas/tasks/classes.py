"""What a label says, and which class that is: the same in every form of file.

A csv file holds text alone, a Parquet file numbers, JSON both. So a text counts as a number only where every text of
the column is one in its shortest spelling: 0, 1 and 10 are numbers, 007 and 7 are texts, and stay two classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from numbers import Integral, Real
from typing import Any

from morenas.base.errors import InputError, suggest
from morenas.tasks.sources.raw import Table
from morenas.tasks.spec import TaskSpec

Label = bool | int | float | str

NO_LABEL = ("nan", "null", "<na>", "#n/a")  # how pandas, R, databases and spreadsheets write a missing value
NO_NUMBER = (*NO_LABEL, "none", "na", "n/a")  # words that may name a class, but not among numbers
MOST_FRACTIONS = 20  # more distinct numbers with fractions are values to predict
PLURAL = {"truth value": "truth values", "number": "numbers", "text": "text"}
_TRUTH = {"true": True, "false": False}
_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_LONGEST_NUMBER = 40  # characters; int() of a long text takes long


@dataclass(frozen=True)
class Classes:
    """The classes of a task, and how labels name them.

    Attributes:
        names: In label order.
        reading: What labels are: "number", "truth value" or "text"; "name" where the task gives the names.
    """

    names: tuple[str, ...]
    reading: str

    def place(self, label: Label) -> int | None:
        """The class that a label names; None where it names none."""
        if isinstance(label, str) and label in self.names:
            return self.names.index(label)
        meant = typed(label)
        if self.reading != "name":
            fits = self.reading != "text" and _kind(meant) == self.reading
            return self._places.get(spelled(meant)) if fits else None
        if (named := self._places.get(spelled(meant))) is not None:
            return named
        return self._position(meant)

    def describe(self, label: Label) -> str:
        """Why a label names no class, and those there are."""
        near = suggest(label, self.names) if isinstance(label, str) else ""
        known = [
            f"{number} {name}" if self.reading == "name" and self._by_position else name
            for number, name in enumerate(self.names)
        ]
        said = f"unknown label {label!r}{near}"
        if label == -1 or label == "-1":
            said += " (-1 marks examples whose labels are hidden: use another split)"
        if self.reading not in ("name", kind := _kind(typed(label))):
            said += f", a {kind}, where the train split has {PLURAL[self.reading]}"
        return f"{said}. Known are: {', '.join(known)}."

    @cached_property
    def _places(self) -> dict[str, int]:
        return {spelled(typed(name)): index for index, name in enumerate(self.names)}

    @cached_property
    def _by_position(self) -> bool:
        """Names that are numbers are meant by labels that are numbers: then no label is a position."""
        return not any(_is_number(name) for name in self.names)

    def _position(self, label: Label) -> int | None:
        if isinstance(label, bool) and any(isinstance(typed(name), bool) for name in self.names):
            return None
        if not self._by_position or not isinstance(label, int):
            return None
        return int(label) if 0 <= label < len(self.names) else None


def classes_of(spec: TaskSpec, train: Table) -> Classes:
    """The classes that the task names, or the distinct labels of the train split, sorted.

    Raises:
        InputError: If a label is missing or none, if labels mix numbers and text, are values to predict, or if there
            is one class only.
    """
    if spec.label_names is not None:
        return _named(spec, train)
    column = spec.label_column
    labels = [read_label(train, index, column, row.get(column)) for index, row in enumerate(train.rows)]
    reading = _reading(train, column, labels)
    if reading == "text":
        _check_no_holes(train, column, labels)
    distinct: set[Any] = set(labels) if reading == "text" else {typed(label) for label in labels}
    _check_no_values(train, column, distinct)
    return _at_least_two(train, column, Classes(tuple(spelled(label) for label in sorted(distinct)), reading))


def read_label(table: Table, index: int, column: str, value: Any, names: Sequence[str] = ()) -> Label:
    """The label of a row: a text without blanks around it, a whole number, another number, or a truth value.

    Args:
        names: Of the classes, where the task gives them; one of them may be a word for a missing value.
    Raises:
        InputError: Naming the row, if its label is missing or is no label.
    """
    label = plain_value(value)
    if label is None or (isinstance(label, str) and label not in names and label.casefold() in ("", *NO_LABEL)):
        raise InputError(
            f"{table.place(index)}: the label is missing ('{column}' is {value!r}); fill it in, leave the row out, or "
            "name another split if labels are hidden."
        )
    if isinstance(label, bool | int | str) or (isinstance(label, float) and math.isfinite(label)):
        return label
    raise InputError(
        f"{table.place(index)}: '{column}' must be one label, a text or a number, this is a {type(value).__name__} "
        f"({shortened(value)}); give each row one label."
    )


def plain_value(value: Any) -> Any:
    """A text stripped, a number as int where it is whole, and None for what a file has in place of a missing value."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Decimal):
        value = int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return None if math.isnan(number) else int(number) if number.is_integer() else number
    return value


def typed(label: Label) -> Label:
    """A text that is a number in its shortest spelling, or true or false in any case, as that; others as they are."""
    if not isinstance(label, str):
        return label
    if len(label) <= _LONGEST_NUMBER and _WHOLE.fullmatch(label):
        return int(label)
    number = _float(label)
    if number is not None and repr(number) == label:
        return int(number) if number.is_integer() else number
    return _TRUTH.get(label.casefold(), label)


def spelled(label: Label) -> str:
    """A label as the name of its class."""
    return str(label).lower() if isinstance(label, bool) else label if isinstance(label, str) else repr(label)


def _named(spec: TaskSpec, train: Table) -> Classes:
    names = spec.label_names or ()
    classes = Classes(names, "name")
    if len(classes._places) < len(names) or not all(name.strip() for name in names):
        raise InputError(f"task.label_names={list(names)}: every class needs a name of its own.")
    return _at_least_two(train, spec.label_column, classes)


def _at_least_two(train: Table, column: str, classes: Classes) -> Classes:
    if len(classes.names) < 2:
        raise InputError(
            f"{train.name}: column '{column}' holds one class only ({', '.join(classes.names) or 'none'}); "
            "a classification task needs at least two."
        )
    return classes


def _reading(train: Table, column: str, labels: Sequence[Label]) -> str:
    """What all labels of a column can be read as."""
    distinct = list({(type(label), label): label for label in labels}.values())
    for reading in ("number", "truth value", "text"):
        if all(_fits(label, reading) for label in distinct):
            return reading
    some = {PLURAL[kind]: label for kind in PLURAL for label in distinct if _kind(label) == kind}
    raise InputError(
        f"{train.name}: column '{column}' mixes {' and '.join(some)} ({', '.join(map(repr, some.values()))}); use one "
        "of them."
    )


def _fits(label: Label, reading: str) -> bool:
    if reading == "text":
        return isinstance(label, str)
    return _kind(typed(label)) == reading


def _kind(label: Label) -> str:
    return "truth value" if isinstance(label, bool) else "text" if isinstance(label, str) else "number"


def _check_no_holes(train: Table, column: str, labels: Sequence[Label]) -> None:
    """Refuse a word for a missing value in a column of numbers."""
    words = [index for index, label in enumerate(labels) if str(label).casefold() in NO_NUMBER]
    if words and all(_is_number(str(label)) for label in labels if str(label).casefold() not in NO_NUMBER):
        raise InputError(
            f"{train.place(words[0])}: the label is missing ('{column}' is {labels[words[0]]!r} among numbers); fill "
            "it in, or leave the row out."
        )


def _check_no_values(train: Table, column: str, distinct: set[Any]) -> None:
    """Refuse numbers that are to be predicted rather than to be chosen from."""
    numbers = [_float(spelled(label)) for label in distinct]
    if None in numbers or len(distinct) <= MOST_FRACTIONS:
        return
    if any(number is not None and not number.is_integer() for number in numbers):
        some = ", ".join(sorted(map(spelled, distinct))[:3])
        raise InputError(
            f"{train.name}: column '{column}' holds {len(distinct)} distinct numbers ({some}, …): values to predict, "
            "not classes. Set task.kind=regression 'task.metrics=[pearson,spearman]', or name the classes by "
            "task.label_names."
        )


def _is_number(text: str) -> bool:
    return _float(text) is not None


def _float(text: str) -> float | None:
    try:
        number = float(text) if len(text) <= _LONGEST_NUMBER and "_" not in text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def shortened(value: Any, most: int = 60) -> str:
    """A value as it is shown in a message."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
