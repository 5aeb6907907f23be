"""Records of instruction, input, output and answer: what they become, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morenas.base.errors import InputError
from morenas.tasks.load import Task, load_task
from morenas.tasks.records import check_records, known_choices
from morenas.tasks.sources.raw import Table
from morenas.tasks.spec import TaskSpec
from morenas.tasks.splits import content

PROMPT = ("instruction", "input")


def spec(data_dir: Path | str = ".", **values: Any) -> TaskSpec:
    given: dict[str, Any] = {"kind": "choice", "metrics": ("accuracy",), **values}
    return TaskSpec("task", PROMPT, data_dir=str(data_dir), **given)


def record(number: int, answer: str = "true", **values: Any) -> dict[str, Any]:
    said = {"instruction": f"is {number} so?", "input": "", "output": f"the correct answer is {answer}"}
    return {**said, "answer": answer, **values}


def number_spec(**values: Any) -> TaskSpec:
    return spec(**{"kind": "generation", "answer": "number", "metrics": ("generated_accuracy",), **values})


def check(
    given: TaskSpec, *rows: dict[str, Any], train: bool = True, known: tuple[str, ...] = ("false", "true")
) -> Any:
    table = Table("some.jsonl", list(rows), list(range(1, len(rows) + 1)))
    return check_records(given, table, known, train)


def write(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> None:
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def load(folder: Path, **values: Any) -> Task:
    rows = [record(number, ("true", "false")[number % 2]) for number in range(80)]
    write(folder, rows, [record(number + 1000, "true") for number in range(10)])
    return load_task(spec(folder, **values), seed=0)


def test_a_record_has_its_texts_its_choices_and_its_stratum() -> None:
    (found,) = check(spec(), record(1, input="a hint"))
    expected = {**record(1, input="a hint"), "choices": ["false", "true"], "label": 1}
    assert found == expected


def test_choices_are_the_records_own_before_those_of_the_task() -> None:
    own = record(1, "answer2", instruction="which? Answer format: answer1/answer2/answer3")
    (found,) = check(spec(choices=("true", "false")), own)
    assert found["choices"] == ["answer1", "answer2", "answer3"]


def test_choices_are_those_of_the_task_before_those_of_the_train_split() -> None:
    table = Table("train", [record(1, "true"), record(2, "false")])
    assert known_choices(spec(choices=("no", "yes")), table) == ("no", "yes")
    assert known_choices(spec(), table) == ("false", "true")
    assert known_choices(number_spec(), table) == ()


def test_the_input_may_be_absent_or_null() -> None:
    bare = {key: value for key, value in record(1).items() if key != "input"}
    assert [row["input"] for row in check(spec(), bare, record(2, input=None))] == ["", ""]


@pytest.mark.parametrize(("answer", "text"), [(True, "true"), (" true ", "true"), ("TRUE", "true"), (False, "false")])
def test_an_answer_is_spelled_as_its_choice(answer: Any, text: str) -> None:
    assert check(spec(), record(1, answer=answer) | {"answer": answer})[0]["answer"] == text


@pytest.mark.parametrize("answer", [72, 72.0, "72.0", "1,234", "-3"])
def test_a_number_may_be_written_in_any_usual_way(answer: Any) -> None:
    (found,) = check(number_spec(), record(1) | {"answer": answer})
    assert found["answer"] == str(answer) and found["choices"] == [] and found["label"] == 0


def test_the_output_of_a_test_record_is_left_out_where_no_metric_reads_it() -> None:
    wrong = record(1) | {"answer": "7", "output": "The answer is 9."}
    assert check(number_spec(), wrong, train=False)[0]["output"] == ""
    assert check(number_spec(), wrong, train=True)[0]["output"] == wrong["output"]
    read = number_spec(metrics=("generated_accuracy", "log_likelihood"))
    assert check(read, wrong, train=False)[0]["output"] == wrong["output"]


def test_the_answer_of_a_plain_instruction_is_its_output() -> None:
    plain = {"instruction": "greet", "output": " Hello. "}
    free = spec(kind="generation", answer="text", metrics=("log_likelihood",))
    assert check(free, plain, train=False)[0]["answer"] == "Hello."


def without(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {key: value for key, value in row.items() if key not in keys}


@pytest.mark.parametrize(
    ("values", "change", "train", "said"),
    [
        ({}, lambda row: {**row, "answer": ""}, True, r"some\.jsonl, line 2: the record has no answer \(''\)"),
        ({}, lambda row: {**row, "answer": None}, False, r"line 2: the record has no answer \(None\)"),
        ({}, lambda row: {**row, "output": " "}, True, r"line 2: the record has no output .*leave the record out"),
        ({}, lambda row: {**row, "output": 3}, True, r"line 2: 'output' must be text, this is 3"),
        ({}, lambda row: {**row, "instruction": " "}, True, "line 2: 'instruction' is empty"),
        ({}, lambda row: {**row, "instruction": None}, True, "line 2: 'instruction' must be text, this is None"),
        ({}, lambda row: {**row, "output": "a \ud83d"}, True, "line 2: 'output' holds an incomplete character"),
        (
            {},
            lambda row: {**row, "answer": "ture"},
            True,
            r"line 2: the answer 'ture' is none of the record's choices \(did you mean 'true'\?\): false, true\.",
        ),
        (
            {},
            lambda row: {**row, "instruction": "Answer format: a/b"},
            False,
            "the answer 'true' is none of the record's choices: a, b",
        ),
        (
            {"kind": "generation", "answer": "number", "metrics": ("generated_accuracy",)},
            lambda row: row,
            False,
            r"line 1: the answer 'true' is no number; write one such as 72",
        ),
        (
            {"kind": "generation", "answer": "letter", "metrics": ("generated_accuracy",)},
            lambda row: {**row, "answer": "F"},
            False,
            "is none of the letters A to E",
        ),
        (
            {"kind": "generation", "answer": "text", "metrics": ("log_likelihood",)},
            lambda row: {**row, "output": ""},
            False,
            "line 2: the record has no output",
        ),
        (
            {"metrics": ("accuracy", "log_likelihood")},
            lambda row: {**row, "output": ""},
            False,
            "line 2: the record has no output",
        ),
    ],
)
def test_a_broken_record_is_refused_by_its_place(
    values: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]], train: bool, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        check(spec(**values), record(1), change(record(2)), train=train)


@pytest.mark.parametrize("missing", ["instruction", "output", "answer"])
def test_a_missing_column_is_told_with_those_that_are_there(missing: str) -> None:
    with pytest.raises(InputError, match=rf"some\.jsonl: there is no column '{missing}'.*There are: .*A record has"):
        check(spec(), without(missing)(record(1)))


def test_a_test_record_needs_no_output() -> None:
    assert check(spec(), without("output")(record(1)), train=False)[0]["output"] == ""


@pytest.mark.parametrize(("answers", "said"), [(1, r"one answer only \(0\)"), (70, "70 distinct answers")])
def test_answers_that_are_no_choice_between_a_few_are_refused(answers: int, said: str) -> None:
    table = Table("train.jsonl", [record(number, str(number % answers)) for number in range(140)])
    with pytest.raises(InputError, match=rf"train\.jsonl: column 'answer' holds {said}.*task\.choices"):
        known_choices(spec(), table)


def test_records_are_split_by_content_and_stratified_by_answer(tmp_path: Path) -> None:
    task = load(tmp_path)
    splits = [task.search_train, task.search_val, task.select]
    texts = [{content(row, PROMPT) for row in split} for split in splits]
    assert sum(map(len, texts)) == len(set().union(*texts)) == 80
    assert all(abs(split["answer"].count("true") / len(split) - 0.5) < 0.05 for split in map(Task.final_train, [task]))
    assert (task.label_names, task.num_labels, task.metric, task.select_metric) == ((), 1, "accuracy", "accuracy")


def test_a_train_record_whose_prompt_is_in_a_test_set_is_dropped(tmp_path: Path) -> None:
    rows = [record(number, ("true", "false")[number % 2]) for number in range(80)]
    write(tmp_path, rows, [{**row, "answer": "true", "output": ""} for row in rows[:5]])
    task = load_task(spec(tmp_path), seed=0)
    assert task.provenance["dropped_in_test"] == 5 and len(task.final_train()) + len(task.select) == 75


@pytest.mark.parametrize("key", ["output", "answer"])
def test_the_fingerprint_changes_with_an_output_and_with_an_answer(key: str, tmp_path: Path) -> None:
    before = load(tmp_path).provenance["fingerprint"]
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    rows[0][key] = "false"
    write(tmp_path, rows, [record(number + 1000, "true") for number in range(10)])
    assert load_task(spec(tmp_path), seed=0).provenance["fingerprint"] != before


def test_columns_of_other_names_make_up_the_prompt(tmp_path: Path) -> None:
    rows = [{"question": f"{number}?", "output": "x", "answer": ("a", "b")[number % 2]} for number in range(60)]
    write(tmp_path, rows, [{**row, "question": f"new {row['question']}"} for row in rows[:4]])
    task = load_task(TaskSpec("task", ("question",), ("accuracy",), kind="choice", data_dir=str(tmp_path)), seed=0)
    assert task.tests["test"][0]["instruction"] == "new 0?" and task.tests["test"][0]["input"] == ""


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"metrics": ("acuracy",)}, r"'acuracy' is no metric of a choice task \(did you mean 'accuracy'\?\)"),
        ({"select_metric": "f1"}, r"task\.select_metric: 'f1' is no metric of a choice task"),
        (
            {"kind": "generation", "answer": "number"},
            "'accuracy' is no metric of a generation task.*There are: generated_accuracy, log_likelihood",
        ),
        ({"choices": ("a",)}, r"task\.choices=\['a'\]: name at least two"),
        ({"choices": ("a", "a")}, "every choice needs a text of its own"),
        ({"continuation": "so:"}, r"task\.continuation='so:': must hold \{answer\}"),
        ({"kind": "chioce"}, r"task\.kind=chioce: choose from .*\(did you mean 'choice'\?\)"),
        ({"answer": "numbr"}, r"task\.answer=numbr: .*did you mean 'number'"),
        ({"prompt": "alpacca"}, r"task\.prompt=alpacca: .*did you mean 'alpaca'"),
        ({"render": "bolq"}, r"task\.render=bolq: .*did you mean 'boolq'"),
        ({"max_new_tokens": 0}, r"task\.max_new_tokens=0: at least 1 token"),
        ({"train_split": None}, r"task\.train_split: must be set"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        load(tmp_path, **values)


def test_the_folder_of_a_task_is_looked_into_where_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "ARC-Easy").mkdir()
    load(tmp_path / "ARC-Easy")
    (tmp_path / "train.jsonl").write_text("{}")
    assert len(load_task(spec(tmp_path, folder="ARC-Easy"), seed=0).tests["test"]) == 10
    assert len(load_task(spec(tmp_path / "ARC-Easy", folder="ARC-Easy"), seed=0).tests["test"]) == 10
