"""Rows of public data sets become records in the form of the published instruction files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_folder import hub_folder

from morenas.base.builtin import BUILTIN
from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.tasks.answers import extract_answer, same_answer
from morenas.tasks.load import load_task
from morenas.tasks.sources.render import render_gsm8k
from morenas.tasks.spec import TaskSpec

Row = dict[str, Any]

OPTIONS = {"text": ["one", "two", "three"], "label": ["A", "B", "C"]}
ROWS: dict[str, tuple[Row, str, str]] = {
    "boolq": (
        {"question": "is it so", "answer": False, "passage": "long"},
        "Please answer the following question with true or false, question: is it so?\n\nAnswer format: true/false",
        "false",
    ),
    "piqa": (
        {"goal": "dig", "sol1": "spade", "sol2": "spoon", "label": 0},
        "Please choose the correct solution to the question: dig\n\nSolution1: spade\n\nSolution2: spoon\n\n"
        "Answer format: solution1/solution2",
        "solution1",
    ),
    "siqa": (
        {"context": "Ann left.", "question": "Why?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"},
        "Please choose the correct answer to the question: Ann left. Why?\n\nAnswer1: x Answer2: y Answer3: z\n\n"
        "Answer format: answer1/answer2/answer3",
        "answer3",
    ),
    "hellaswag": (
        {"activity_label": "Roofing", "ctx": "A man sits. He", "endings": ["a", "b", "c", "d"], "label": "2"},
        "Please choose the correct ending to complete the given sentence: Roofing: A man sits. He\n\n"
        "Ending1: a Ending2: b Ending3: c Ending4: d\n\nAnswer format: ending1/ending2/ending3/ending4",
        "ending3",
    ),
    # The first row of the published test file.
    "winogrande": (
        {
            "sentence": "Sarah was a much better surgeon than Maria so _ always got the easier cases.",
            "option1": "Sarah",
            "option2": "Maria",
            "answer": "2",
        },
        "Please choose the correct answer to fill in the blank to complete the given sentence: Sarah was a much better "
        "surgeon than Maria so _ always got the easier cases.\n\nOption1: Sarah Option2: Maria "
        "Answer format: option1/option2",
        "option2",
    ),
    "arc": (
        {"question": "Which?", "choices": OPTIONS, "answerKey": "B"},
        "Please choose the correct answer to the question: Which?\n\nAnswer1: one Answer2: two Answer3: three\n\n"
        "Answer format: answer1/answer2/answer3",
        "answer2",
    ),
    "openbookqa": (
        {"question_stem": "The sun", "choices": OPTIONS, "answerKey": "A"},
        "Please choose the correct answer to the question: The sun\n\nAnswer1: one Answer2: two Answer3: three\n\n"
        "Answer format: answer1/answer2/answer3",
        "answer1",
    ),
    "gsm8k": ({"question": "How many?", "answer": "2 * 600\n#### 1,200"}, "How many?", "1200.0"),
    "aqua": (
        {"question": "How fast?", "options": ["A)32", "B)1,000 m"], "rationale": "So B.", "correct": "B"},
        "How fast? Answer Choices: (A) 32 (B) 1,000 m",
        "B",
    ),
    "mathqa": (
        {"Problem": "sum ?", "options": "a ) 38 , b ) none of these", "Rationale": '"add"', "correct": "a"},
        "sum ? The options: A ) 38 , B ) nonE oF thEsE",
        "A",
    ),
    "mawps": ({"question": "How many?", "result": "1_000", "expression": "10 * 100"}, "How many?", "1000.0"),
    "svamp": (
        {"Body": "He has 8", "Question": "How many?", "Equation": "( 8.0 )", "Answer": "8"},
        "He has 8. How many?",
        "8.0",
    ),
    "multiarith": ({"question": " How many? ", "final_ans": "15"}, " How many? ", "15.0"),
}


@pytest.mark.parametrize("name", BUILTIN["render"])
def test_a_row_becomes_a_record(name: str) -> None:
    row, instruction, answer = ROWS[name]
    found = registry("render").get(name)(row)
    assert (found["instruction"], found["input"], found["answer"]) == (instruction, "", answer)
    assert found["output"]


def test_what_is_learnt_ends_in_the_words_that_an_answer_is_read_out_by() -> None:
    for name, kind in (("gsm8k", "number"), ("mawps", "number"), ("svamp", "number"), ("aqua", "letter")):
        record = registry("render").get(name)(ROWS[name][0])
        assert same_answer(extract_answer(record["output"], kind, []), record["answer"], kind), name


@pytest.mark.parametrize("labels", [["1", "2", "3"], ["A", "B", "C"]])
def test_arc_numbers_its_answers_however_they_are_labelled(labels: list[str]) -> None:
    row = {"question": "Which?", "choices": {"text": ["x", "y", "z"], "label": labels}, "answerKey": labels[2]}
    assert registry("render").get("arc")(row)["answer"] == "answer3"


@pytest.mark.parametrize("count", [3, 4, 5])
def test_arc_may_have_three_to_five_choices(count: int) -> None:
    row = {"question": "?", "choices": {"text": ["x"] * count, "label": list("ABCDE"[:count])}, "answerKey": "A"}
    names = "/".join(f"answer{number}" for number in range(1, count + 1))
    assert registry("render").get("arc")(row)["instruction"].endswith(f"Answer format: {names}")


@pytest.mark.parametrize(
    ("name", "change"),
    [("piqa", {"label": -1}), ("siqa", {"label": ""}), ("hellaswag", {"label": ""}), ("winogrande", {"answer": ""})],
)
def test_a_hidden_label_is_no_answer(name: str, change: Row) -> None:
    with pytest.raises(ValueError):
        registry("render").get(name)({**ROWS[name][0], **change})


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PIQA as the hub has it; the labels of its test split are hidden."""
    rows = {
        split: [
            {"goal": f"{split} {n}", "sol1": "a", "sol2": "b", "label": -1 if split == "test" else n % 2}
            for n in range(count)
        ]
        for split, count in (("train", 60), ("validation", 12), ("test", 6))
    }
    return hub_folder(tmp_path / "piqa", rows, monkeypatch)


def hub(path: Path, **values: Any) -> TaskSpec:
    given: dict[str, Any] = {"test_splits": {"test": "validation"}, "render": "piqa", "kind": "choice", **values}
    return TaskSpec("piqa", ("instruction", "input"), ("accuracy",), source="hub", hub_path=str(path), **given)


def test_a_hub_data_set_is_read_as_records(repository: Path) -> None:
    task = load_task(hub(repository), seed=0)
    assert task.tests["test"][0]["answer"] == "solution1" and len(task.final_train()) + len(task.select) == 60
    assert task.search_train[0]["choices"] == ["solution1", "solution2"]


def test_a_split_of_hidden_labels_is_refused_with_the_way_out(repository: Path) -> None:
    said = r"test, row 0: cannot be read as piqa: .*Splits whose labels are hidden cannot be used: .*task\.test_splits"
    with pytest.raises(InputError, match=said):
        load_task(hub(repository, test_splits={"test": "test"}), seed=0)


def test_a_data_set_of_another_form_is_refused_with_its_columns(repository: Path) -> None:
    said = (
        r"row 0: cannot be read as boolq: there is no column '\w+'\. There are: goal, sol1, sol2, label.*task\.render"
    )
    with pytest.raises(InputError, match=said):
        load_task(hub(repository, render="boolq"), seed=0)


def fields(pattern: str, text: str) -> Row:
    match = re.fullmatch(pattern, text, re.DOTALL)
    assert match, text
    return match.groupdict()


def options(word: str, text: str) -> list[str]:
    return re.split(rf"\s?{word}\d: ", text)[1:]


def as_boolq(row: Row) -> Row:
    found = fields(r".*true or false, question: (?P<question>.*)\?\n\nAnswer format: true/false", row["instruction"])
    return {**found, "answer": row["answer"] == "true"}


def as_piqa(row: Row) -> Row:
    pattern = r"[^:]*: (?P<goal>.*?)\n\nSolution1: (?P<sol1>.*?)\n\nSolution2: (?P<sol2>.*)\n\nAnswer format: \S+"
    return {**fields(pattern, row["instruction"]), "label": int(row["answer"][-1]) - 1}


def as_siqa(row: Row) -> Row:
    pattern = r"[^:]*: (?P<context>.*) (?P<question>\S*)\n\n(?P<all>Answer1: .*)\n\nAnswer format: \S+"
    found = fields(pattern, row["instruction"])
    given = options("Answer", found.pop("all"))
    return {**found, **{f"answer{x}": t for x, t in zip("ABC", given, strict=True)}, "label": row["answer"][-1]}


def by_key(column: str) -> Callable[[Row], Row]:
    def unmade(row: Row) -> Row:
        found = fields(r"[^:]*: (?P<question>.*)\n\n(?P<all>Answer1: .*)\n\nAnswer format: \S+", row["instruction"])
        texts = options("Answer", found["all"])
        key = "ABCDE"[int(row["answer"][-1]) - 1]
        return {column: found["question"], "choices": {"text": texts, "label": list("ABCDE")}, "answerKey": key}

    return unmade


UNMADE = {
    "boolq": ("boolq", as_boolq),
    "piqa": ("piqa", as_piqa),
    "social_i_qa": ("siqa", as_siqa),
    "ARC-Easy": ("arc", by_key("question")),
    "ARC-Challenge": ("arc", by_key("question")),
    "openbookqa": ("openbookqa", by_key("question_stem")),
}


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.realdata
@pytest.mark.parametrize("folder", UNMADE)
def test_every_published_record_is_rendered_again_from_its_parts(folder: str, real_data: Path) -> None:
    name, unmake = UNMADE[folder]
    paths = sorted((real_data / "commonsense" / folder).iterdir())
    assert paths
    for path in paths:
        assert [registry("render").get(name)(unmake(row)) for row in rows(path)] == rows(path)


@pytest.mark.realdata
def test_published_gsm8k_records_are_rendered_again(real_data: Path) -> None:
    published = rows(real_data / "math" / "gsm8k" / "train.jsonl")
    assert [render_gsm8k({"question": r["instruction"], "answer": r["output"]}) for r in published] == published


@pytest.mark.realdata
@pytest.mark.parametrize("split", ["validation", "test"])
def test_published_aqua_prompts_are_rendered_again(split: str, real_data: Path) -> None:
    for row in rows(real_data / "math" / "AQuA" / f"{split}.jsonl"):
        question, _, listed = row["instruction"].partition(" Answer Choices: ")
        given = [f"{letter}){text}" for letter, text in re.findall(r"\(([A-E])\) (.*?)(?= \([A-E]\) |$)", listed, re.S)]
        found = registry("render").get("aqua")(
            {"question": question, "options": given, "rationale": row["output"], "correct": row["answer"]}
        )
        assert (found["instruction"], found["answer"]) == (row["instruction"], row["answer"])


@pytest.mark.realdata
def test_published_mathqa_options_are_as_rendered(real_data: Path) -> None:
    for row in rows(real_data / "math" / "mathqa" / "test.jsonl"):
        problem, _, listed = row["instruction"].rpartition(" The options: ")
        given = listed.translate(str.maketrans("ABCDEF", "abcdef"))
        found = registry("render").get("mathqa")(
            {"Problem": problem, "options": given, "Rationale": "x", "correct": row["answer"].lower()}
        )
        assert (found["instruction"], found["answer"]) == (row["instruction"], row["answer"])
