"""Rows of public data sets as records, in the prompt form of LLM-Adapters (Hu et al. 2023, arXiv 2304.01933).

The wording, its odd spots included, is that of the published instruction files, so that figures are comparable. A
renderer takes a row of the data set as the hub gives it and returns ``instruction``, ``input``, ``output``, ``answer``.
It raises KeyError, IndexError, TypeError or ValueError for a row of another form; labels that are hidden (-1 or an
empty text) are among them. ``TaskSpec.render`` names one; ``register("render", …)`` brings in another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.tasks.sources.raw import RawRow, Table

Record = dict[str, str]


def render_boolq(row: Mapping[str, Any]) -> Record:
    """``question``, ``answer`` (bool); the passage is left out, as in the published files."""
    if not isinstance(row["answer"], bool):
        raise ValueError(f"'answer' must be true or false, this is {row['answer']!r}")
    question = f"Please answer the following question with true or false, question: {row['question']}?"
    return _chosen(f"{question}\n\nAnswer format: true/false", "true" if row["answer"] else "false")


def render_piqa(row: Mapping[str, Any]) -> Record:
    """``goal``, ``sol1``, ``sol2``, ``label`` (0 or 1)."""
    question = f"Please choose the correct solution to the question: {row['goal']}\n\n"
    return _choose(question, "solution", [row["sol1"], row["sol2"]], int(row["label"]), between="\n\n")


def render_siqa(row: Mapping[str, Any]) -> Record:
    """``context``, ``question``, ``answerA`` to ``answerC``, ``label`` ("1" to "3")."""
    options = [row[f"answer{letter}"] for letter in "ABC"]
    return _choose(_question(f"{row['context']} {row['question']}"), "answer", options, int(row["label"]) - 1)


def render_hellaswag(row: Mapping[str, Any]) -> Record:
    """``activity_label``, ``ctx``, ``endings``, ``label`` ("0" to "3")."""
    sentence = f"{row['activity_label']}: {row['ctx']}"
    lead = f"Please choose the correct ending to complete the given sentence: {sentence}\n\n"
    return _choose(lead, "ending", row["endings"], int(row["label"]))


def render_winogrande(row: Mapping[str, Any]) -> Record:
    """``sentence`` with a blank ``_``, ``option1``, ``option2``, ``answer`` ("1" or "2")."""
    lead = (
        f"Please choose the correct answer to fill in the blank to complete the given sentence: {row['sentence']}\n\n"
    )
    return _choose(lead, "option", [row["option1"], row["option2"]], int(row["answer"]) - 1, end=" ")


def render_arc(row: Mapping[str, Any]) -> Record:
    """``question``, ``choices`` (``text`` and ``label``, by letters or numbers, three to five), ``answerKey``."""
    return _by_key(row, "question")


def render_openbookqa(row: Mapping[str, Any]) -> Record:
    """As ARC, the question being ``question_stem``."""
    return _by_key(row, "question_stem")


def render_gsm8k(row: Mapping[str, Any]) -> Record:
    """``question``, ``answer``: a solution whose last line is ``#### <number>``; it is learnt as it stands."""
    solution, mark, number = str(row["answer"]).rpartition("####")
    if not mark:
        raise ValueError(f"'answer' must end in a line '#### <number>', this is {solution + number!r}")
    return _solved(row["question"], row["answer"], _number(number))


def render_aqua(row: Mapping[str, Any]) -> Record:
    """``question``, ``options`` ("A)21" to "E)…"), ``rationale``, ``correct`` (a letter).

    The published output is the rationale alone, whose last line names the letter in any words; here one sentence in
    set words follows it, so that there is something to read an answer out of.
    """
    options = " ".join(f"({option[0]}) {option[2:]}" for option in row["options"])
    instruction = f"{row['question']} Answer Choices: {options}"
    return _lettered(instruction, row["rationale"], row["correct"])


def render_mathqa(row: Mapping[str, Any]) -> Record:
    """``Problem``, ``options`` (one text), ``Rationale``, ``correct`` (a letter).

    The published files put every a to f of the options in capitals, so here as well. Output as in ``render_aqua``.
    """
    options = row["options"].translate(str.maketrans("abcdef", "ABCDEF"))
    return _lettered(f"{row['Problem']} The options: {options}", row["Rationale"].strip().strip('"'), row["correct"])


def render_mawps(row: Mapping[str, Any]) -> Record:
    """``question`` and ``result`` (``MU-NLPC/Calc-mawps``), ``expression`` where there is one; "1_000" is 1000."""
    expression, result = (str(row.get(key) or "").replace("_", "") for key in ("expression", "result"))
    return _solved(row["question"], _worked(expression, result), _number(result))


def render_svamp(row: Mapping[str, Any]) -> Record:
    """``Body``, ``Question``, ``Equation``, ``Answer``."""
    body = row["Body"].strip()
    question = f"{body}{'' if body.endswith(('.', '?', '!')) else '.'} {row['Question'].strip()}"
    return _solved(question, _worked(row.get("Equation"), row["Answer"]), _number(row["Answer"]))


def render_multiarith(row: Mapping[str, Any]) -> Record:
    """``question``, ``final_ans``; nothing but the answer can be learnt from it."""
    return _solved(row["question"], _worked(None, row["final_ans"]), _number(row["final_ans"]))


def render_table(table: Table, render: Any) -> Table:
    """A table of a data set's own rows as records, made by a renderer; as it is where there is none.

    Raises:
        InputError: Naming a row that has another form than the renderer reads.
    """
    if render is None:
        return table
    write, name = registry("render").build(render), registry("render").chosen_by(render)
    return Table(table.name, [_record(table, index, write, name) for index in range(len(table.rows))])


def _record(table: Table, index: int, write: Callable[[RawRow], Mapping[str, str]], render: str) -> RawRow:
    row = table.rows[index]
    try:
        return dict(write(row))
    except KeyError as error:
        raise InputError(
            f"{table.place(index)}: cannot be read as {render}: there is no column {error}. There are: "
            f"{', '.join(row)}. Name another data set by task.hub_path, or its form by task.render."
        ) from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{table.place(index)}: cannot be read as {render}: {error}. Splits whose labels are hidden cannot be "
            "used: name another by task.test_splits."
        ) from error


def _question(text: str) -> str:
    return f"Please choose the correct answer to the question: {text}\n\n"


def _by_key(row: Mapping[str, Any], column: str) -> Record:
    choices = row["choices"]
    index = list(choices["label"]).index(row["answerKey"])
    return _choose(_question(row[column]), "answer", choices["text"], index)


def _choose(lead: str, word: str, options: Sequence[str], index: int, between: str = " ", end: str = "\n\n") -> Record:
    """Number the options as ``Word1: … Word2: …`` and say what an answer looks like; ``index`` is the right one."""
    if not 0 <= index < len(options):
        raise ValueError(f"the right option is number {index} from 0, and there are {len(options)}")
    names = [f"{word}{number}" for number in range(1, len(options) + 1)]
    listed = between.join(f"{name.capitalize()}: {text}" for name, text in zip(names, options, strict=True))
    return _chosen(f"{lead}{listed}{end}Answer format: {'/'.join(names)}", names[index])


def _chosen(instruction: str, answer: str) -> Record:
    return {"instruction": instruction, "input": "", "output": f"the correct answer is {answer}", "answer": answer}


def _solved(question: str, solution: str, answer: str) -> Record:
    return {"instruction": question, "input": "", "output": solution, "answer": answer}


def _lettered(instruction: str, rationale: str, letter: str) -> Record:
    return _solved(instruction, f"{rationale}\nThe answer is ({letter.upper()}).", letter.upper())


def _worked(equation: Any, answer: Any) -> str:
    """The equation, where there is one, and the answer in the words that it is read out by."""
    return f"{f'{equation}'.strip()}\nThe answer is {answer}." if equation else f"The answer is {answer}."


def _number(text: Any) -> str:
    return str(float(str(text).replace(",", "").strip().removeprefix("$")))
