"""The published instruction files, every one of them: read whole, answered by their choices, encoded."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from morenas.base.errors import InputError
from morenas.tasks.answers import extract_answer, same_answer
from morenas.tasks.load import RECORDS, load_task
from morenas.tasks.prompts import encode_records
from morenas.tasks.records import check_records, known_choices
from morenas.tasks.sources.tables import read_table
from morenas.tasks.spec import TaskSpec

pytestmark = pytest.mark.realdata

COMMONSENSE = ("ARC-Challenge", "ARC-Easy", "boolq", "openbookqa", "piqa", "social_i_qa", "winogrande")
MATH = ("AQuA", "AddSub", "MultiArith", "SVAMP", "SingleEq", "gsm8k", "mathqa", "mawps")
TASKS = [*(f"commonsense/{name}" for name in COMMONSENSE), *(f"math/{name}" for name in MATH)]


def spec(task: str, data: Path, **values: Any) -> TaskSpec:
    group, _, name = task.partition("/")
    given: dict[str, Any] = {"kind": "choice", "metrics": ("accuracy",), "max_length": 512}
    if group == "math":
        answer = "letter" if name in ("AQuA", "mathqa") else "number"
        given |= {"kind": "generation", "metrics": ("generated_accuracy",), "answer": answer, "max_new_tokens": 256}
    return TaskSpec(task, ("instruction", "input"), data_dir=str(data / group), folder=name, **{**given, **values})


def files(task: str, data: Path) -> list[Path]:
    if not (data / task).is_dir():
        pytest.skip(f"no {task}: {data / task} is not there")
    return sorted((data / task).glob("*.jsonl"))


def sizes(data: Path) -> dict[str, int]:
    with (data / "SUMMARY.csv").open() as file:
        return {row["file"]: int(row["examples"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def tokenizer(real_models: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(real_models / "stories260K")
    return found


@pytest.mark.parametrize("task", TASKS)
def test_every_record_of_every_file_is_sound(task: str, real_data: Path) -> None:
    for path in files(task, real_data):
        given, table, train = spec(task, real_data), read_table(path), path.stem.startswith("train")
        found = check_records(given, table, known_choices(given, table), train)
        assert len(found) == sizes(real_data)[f"{task}/{path.name}"]
        if given.kind == "choice":
            assert all(row["answer"] in row["choices"] and 2 <= len(row["choices"]) <= 5 for row in found)
            assert len({row["label"] for row in found}) == len({row["answer"] for row in found})
        else:
            assert all(row["answer"] and not row["choices"] and bool(row["output"]) == train for row in found)


@pytest.mark.parametrize("task", [task for task in TASKS if task.startswith("commonsense")])
def test_the_answer_is_read_out_of_every_published_output(task: str, real_data: Path) -> None:
    for path in files(task, real_data):
        table = read_table(path)
        rows = check_records(spec(task, real_data), table, (), train=True)
        assert all(extract_answer(row["output"], "choice", row["choices"]) == row["answer"] for row in rows)


def test_the_answer_is_read_out_of_every_published_solution_of_gsm8k(real_data: Path) -> None:
    rows = read_table(real_data / "math" / "gsm8k" / "train.jsonl").rows
    assert all(same_answer(extract_answer(row["output"], "number", []), row["answer"], "number") for row in rows)


def test_what_the_test_set_of_arc_easy_holds_is_dropped(real_data: Path) -> None:
    task = load_task(spec("commonsense/ARC-Easy", real_data), seed=0)
    assert task.provenance["dropped_in_test"] == 2
    assert len(task.final_train()) + len(task.select) == 2249 and len(task.tests["test"]) == 2376


def test_a_test_set_alone_is_read_beside_the_train_file_of_another_task(real_data: Path) -> None:
    given = spec("math/SVAMP", real_data, train_file="../gsm8k/train.jsonl", select_metric="log_likelihood")
    task = load_task(given, seed=0)
    assert task.provenance["sizes"]["test"] == 1000 and len(task.final_train()) + len(task.select) == 7473


@pytest.mark.parametrize("task", [task for task in TASKS if task != "commonsense/social_i_qa"])
def test_every_file_is_encoded_or_its_long_records_are_counted(
    task: str, real_data: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    for path in files(task, real_data):
        given, table, train = spec(task, real_data), read_table(path), path.stem.startswith("train")
        rows = check_records(given, table, known_choices(given, table), train)[:2000]
        cut = encode_records(Dataset.from_list(rows, RECORDS), tokenizer, replace(given, truncate=True), train)
        assert len(cut) == len(rows)
        assert all(row["input_ids"][0] == tokenizer.bos_token_id and len(row["input_ids"]) <= 512 for row in cut)
        assert all(row["labels"][: row["prompt_length"]] == [-100] * row["prompt_length"] for row in cut)
        try:
            whole = encode_records(Dataset.from_list(rows, RECORDS), tokenizer, given, train)
        except InputError as error:
            assert f"of {len(rows):,} records of {task}" in str(error)
        else:
            assert list(whole) == list(cut)
