"""Check records of instruction, input, output and answer, row by row; errors name the row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from morenas.base.errors import InputError, suggest
from morenas.tasks.answers import as_number
from morenas.tasks.classes import plain_value, shortened
from morenas.tasks.labels import Example, checked_text, require_columns
from morenas.tasks.metrics import needs_generation
from morenas.tasks.sources.raw import RawRow, Table
from morenas.tasks.spec import TaskSpec

PROMPT = ("instruction", "input")
"""Fields that make up the prompt; examples of equal instruction and input are copies of each other."""
RECORD_TEXTS = (*PROMPT, "output", "answer")
LETTERS = "ABCDE"
MOST_CHOICES = 64  # a column with more distinct answers is taken for free text
_FORMAT = re.compile(r"Answer format:[ \t]*([^\n]*/[^\n]*)$", re.MULTILINE)
_FORM = "a record has instruction, input, output and answer"


def known_choices(spec: TaskSpec, train: Table | None) -> tuple[str, ...]:
    """The choices of records that name none: those of the spec, or the distinct answers of the train split, sorted.

    Raises:
        InputError: If the train split has one answer only, or too many for a choice.
    """
    if spec.choices is not None:
        return tuple(choice.strip() for choice in spec.choices)
    if not _chosen(spec) or train is None:
        return ()
    rows = [row for row in train.rows if not _own_choices(row.get(spec.text_columns[0]))]
    found = sorted({_answer(row.get("answer")) for row in rows} - {""})
    if rows and not 2 <= len(found) <= MOST_CHOICES:
        few = ", ".join(found) or "none"
        counted = f"{len(found)} distinct answers" if len(found) > 1 else f"one answer only ({few})"
        raise InputError(
            f"{train.name}: column 'answer' holds {counted}, and a choice needs 2 to {MOST_CHOICES}; name the choices "
            "by task.choices, or read answers out of free text: task.kind=generation task.answer=number."
        )
    return tuple(found)


def check_records(spec: TaskSpec, table: Table, known_choices: Sequence[str], train: bool) -> list[Example]:
    """Check a table of records.

    A record to train on needs an output. A record to test on needs an answer, and an output only where a metric uses
    it. Outputs that no metric uses are left out: those of LLM-Adapters' math tests were written by a model, and many
    are wrong.

    Args:
        known_choices: Choices of records that name none, from ``known_choices``.
        train: Whether the table is trained on.
    Returns:
        For every row ``instruction``, ``input``, ``output``, ``answer`` (texts, "" where there is none), ``choices``
        (texts, [] where there are none) and ``label`` (the answer's place among the task's answers, for
        stratification; 0 of a generation).
    Raises:
        InputError: Naming the row and what is wrong.
    """
    if not table.rows:
        raise InputError(f"{table.name}: holds no examples.")
    needed = [("text_columns", spec.text_columns[:1])]
    needed += [("kind", (name,)) for name in ("output", "answer") if _needs(spec, name, train)]
    require_columns(table, needed, f" {_FORM.capitalize()}.")
    examples = [_record(spec, table, index, known_choices, train) for index in range(len(table.rows))]
    order = sorted({*known_choices, *(example["answer"] for example in examples)})
    place = {answer: index for index, answer in enumerate(order)}
    return [{**e, "label": place[e["answer"]] if spec.kind == "choice" else 0} for e in examples]


def _chosen(spec: TaskSpec) -> bool:
    """Whether answers are taken from a few choices."""
    return spec.kind == "choice" or spec.answer == "choice"


def _needs(spec: TaskSpec, name: str, train: bool) -> bool:
    """Whether every record needs an output, or an answer."""
    free = spec.kind == "generation" and spec.answer == "text"
    if name == "output":
        return train or free or "log_likelihood" in spec.metrics
    read = not train or spec.kind == "choice" or needs_generation(spec.select_metric or spec.metrics[0])
    return read and not free


def _record(spec: TaskSpec, table: Table, index: int, known: Sequence[str], train: bool) -> Example:
    row = table.rows[index]
    instruction, given = _prompt(spec, table, index)
    output, answer = (_value(table, index, name, row, _needs(spec, name, train)) for name in ("output", "answer"))
    if spec.kind == "generation" and spec.answer == "text":
        answer = answer or output.strip()
    choices: list[str] = []
    if _chosen(spec):
        choices = list(_own_choices(row.get(spec.text_columns[0])) or known)
        answer = answer and _right_choice(table, index, answer, choices)
    if spec.answer in ("number", "letter") and answer:
        answer = _readable(table, index, answer, spec.answer)
    return {
        "instruction": instruction,
        "input": given,
        "output": output if train or _needs(spec, "output", train) else "",
        "answer": answer,
        "choices": choices,
    }


def _prompt(spec: TaskSpec, table: Table, index: int) -> tuple[str, str]:
    """Instruction and input; an input that is absent or null is empty."""
    row = table.rows[index]
    texts = [
        checked_text(table, index, column, "" if number and row.get(column) is None else row.get(column))
        for number, column in enumerate(spec.text_columns)
    ]
    if not "".join(texts).strip():
        raise InputError(
            f"{table.place(index)}: '{spec.text_columns[0]}' is empty, so there is no question to answer; {_FORM}."
        )
    return texts[0], "".join(texts[1:])


def _value(table: Table, index: int, name: str, row: RawRow, needed: bool) -> str:
    value = row.get(name)
    if name == "answer":
        text = _checked_answer(table, index, value)
    else:
        text = checked_text(table, index, name, "" if plain_value(value) is None else value)
    if not text.strip():
        if needed:
            raise InputError(
                f"{table.place(index)}: the record has no {name} ({value!r}); write one, or leave the record out."
            )
        return ""
    return text


def _checked_answer(table: Table, index: int, value: Any) -> str:
    """The text of an answer.

    Raises:
        InputError: If it is no text, number or truth value.
    """
    plain = plain_value(value)
    if plain is not None and not isinstance(plain, bool | int | float | str):
        raise InputError(
            f"{table.place(index)}: 'answer' must be one answer, a text or a number, this is a {type(value).__name__} "
            f"({shortened(value)}); give each record one answer."
        )
    return checked_text(table, index, "answer", _answer(value))


def _answer(value: Any) -> str:
    """An answer as text; in JSON it may be a number or a truth value."""
    plain = plain_value(value)
    return "" if plain is None else str(value).lower() if isinstance(value, bool) else str(value).strip()


def _own_choices(instruction: Any) -> list[str]:
    """The choices in the last line "Answer format: a/b/c" of an instruction; none where there is no such line."""
    found = _FORMAT.findall(instruction) if isinstance(instruction, str) else []
    return list(dict.fromkeys(name for part in found[-1].split("/") if (name := part.strip()))) if found else []


def _right_choice(table: Table, index: int, answer: str, choices: Sequence[str]) -> str:
    """The answer in the spelling of its choice."""
    if answer in choices:
        return answer
    same = [choice for choice in choices if choice.casefold() == answer.casefold()]
    if len(same) == 1:
        return same[0]
    raise InputError(
        f"{table.place(index)}: the answer {answer!r} is none of the record's choices{suggest(answer, choices)}: "
        f"{', '.join(choices)}. Choices come from the record's line 'Answer format: a/b', or from task.choices, or are "
        "the answers of the train split; correct the answer or the choices."
    )


def _readable(table: Table, index: int, answer: str, kind: str) -> str:
    if kind == "number" and as_number(answer) is None:
        raise InputError(
            f"{table.place(index)}: the answer {answer!r} is no number; write one such as 72 or 1,234.5, or read "
            "answers otherwise: task.answer=letter, choice or text."
        )
    if kind == "letter" and (len(answer) != 1 or answer.upper() not in LETTERS):
        raise InputError(
            f"{table.place(index)}: the answer {answer!r} is none of the letters A to E; write one, or read answers "
            "otherwise: task.answer=number, choice or text."
        )
    return answer.upper() if kind == "letter" else answer
