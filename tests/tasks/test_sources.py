"""Local files in every form, and what is wrong with them told in one sentence."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from morenas.base.errors import InputError
from morenas.tasks.load import load_task
from morenas.tasks.read import read_examples
from morenas.tasks.sources.tables import read_table
from morenas.tasks.spec import TaskSpec

ROWS: list[dict[str, Any]] = [{"one": f"a, {i}", "two": f"b {i}", "gold": ("no", "yes")[i % 2]} for i in range(60)]


def separated(separator: str) -> Callable[[Path, list[dict[str, Any]]], object]:
    def write(path: Path, rows: list[dict[str, Any]]) -> object:
        quote = '"' if separator == "," else ""
        lines = [list(rows[0]), *([f"{quote}{value}{quote}" for value in row.values()] for row in rows)]
        return path.write_text("\n".join(separator.join(line) for line in lines))

    return write


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    "jsonl": lambda path, rows: path.write_text("\n".join(map(json.dumps, rows))),
    "json": lambda path, rows: path.write_text(json.dumps(rows)),
    "csv": separated(","),
    "tsv": separated("\t"),
    "parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
}


def spec(folder: Path, **values: Any) -> TaskSpec:
    given = {"text_columns": ("one", "two"), "metrics": ("accuracy",), "label_column": "gold", **values}
    return TaskSpec("task", data_dir=str(folder), **given)


@pytest.mark.parametrize("ending", WRITERS)
def test_every_form_gives_the_same_examples(ending: str, tmp_path: Path) -> None:
    WRITERS[ending](tmp_path / f"train.{ending}", ROWS)
    WRITERS[ending](tmp_path / f"validation.{ending}", ROWS[:0] + [{**row, "one": "c"} for row in ROWS[:10]])
    task = load_task(spec(tmp_path), seed=0)
    assert task.label_names == ("no", "yes")
    examples = [*task.search_train, *task.search_val, *task.select]
    assert {(e["one"], e["two"], e["label"]) for e in examples} == {
        (row["one"], row["two"], int(row["gold"] == "yes")) for row in ROWS
    }
    assert task.provenance["files"][f"train.{ending}"]["rows"] == 60
    assert len(task.provenance["files"][f"train.{ending}"]["sha256"]) == 64


def test_a_folder_of_tasks_gives_the_one_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "rte").mkdir()
    for name in ("train", "validation"):
        WRITERS["jsonl"](tmp_path / "rte" / f"{name}.jsonl", [{**row, "one": f"{name} {row['one']}"} for row in ROWS])
    found = TaskSpec("glue/rte", ("one", "two"), ("accuracy",), label_column="gold", data_dir=str(tmp_path))
    assert len(load_task(found, seed=0).tests["test"]) == 60


def test_files_can_be_named(tmp_path: Path) -> None:
    WRITERS["csv"](tmp_path / "mine.csv", ROWS)
    WRITERS["tsv"](tmp_path / "held_out.tsv", [{**row, "one": "c"} for row in ROWS[:10]])
    task = load_task(spec(tmp_path, train_file="mine.csv", test_files={"held": "held_out.tsv"}), seed=0)
    assert list(task.tests) == ["held"]


def test_labels_given_by_name_or_by_number_are_the_same(tmp_path: Path) -> None:
    numbered: list[dict[str, Any]] = [{**row, "gold": int(row["gold"] == "yes")} for row in ROWS]
    for form, rows in (("names", ROWS), ("numbers", numbered)):
        (tmp_path / form).mkdir()
        WRITERS["jsonl"](tmp_path / form / "train.jsonl", rows)
        WRITERS["jsonl"](tmp_path / form / "test.jsonl", [{**row, "one": "c"} for row in rows[:10]])
    names, numbers = (load_task(spec(tmp_path / f, label_names=("no", "yes")), seed=0) for f in ("names", "numbers"))
    assert list(names.search_train) == list(numbers.search_train)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train.jsonl", '{"a": 1}\n{"a": \n', r"train\.jsonl, line 2: not JSON"),
        ("train.jsonl", "[1]\n", "line 1: a row must be a JSON object, this is a list"),
        ("train.json", '{"rows": []}', "must hold a list of objects"),
        ("train.csv", "a,b\n1,2\n1,2,3\n", "line 3: has another number of fields than the header"),
        ("train.tsv", "a\tb\n1\n", "line 2: has another number of fields"),
        ("train.parquet", "PAR1", "not a whole Parquet file"),
        ("train.jsonl", "\n\n", "holds no examples"),
        ("train.jsonl", '{"a": 1}\n{"a": 1, "b": 2, "a": 3}\n', r"line 2: there are two columns 'a'"),
        ("train.json", '[{"a": 1, "a": 3}]', r"train\.json: there are two columns 'a'"),
        ("train.csv", "text,label,label\n1,2,3\n", r"line 1: there are two columns 'label'"),
        ("train.tsv", "text\tlabel\ttext\n1\t2\t3\n", r"line 1: there are two columns 'text'"),
        ("train.jsonl", "[" * 100_000, r"line 1: not JSON \(nested too deeply\)"),
        ("train.jsonl", f'{{"a": {"9" * 5000}}}', r"line 1: not JSON \(Exceeds the limit"),
        ("train.csv.gz", "text,label\n", r"train\.csv\.gz: cannot be read"),
        ("train.xlsx", "x", r"must end in one of \.jsonl, \.json, \.csv, \.tsv, \.parquet"),
    ],
)
def test_a_broken_file_is_told_with_its_place(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        read_table(tmp_path / name)


def test_a_column_named_twice_in_parquet_is_refused_by_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array([0]), pa.array([1])], names=["text", "label", "label"])
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"train\.parquet: there are two columns 'label'"):
        read_table(tmp_path / "train.parquet")


def test_columns_without_a_name_at_the_right_are_let_be(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label,,\na,0,,\n")
    assert read_table(tmp_path / "train.csv").rows == [{"text": "a", "label": "0", "": ""}]


@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
def test_a_field_may_be_of_any_length(name: str, tmp_path: Path) -> None:
    long, limit = "long " * 100_000, csv.field_size_limit()
    separator = "," if name.endswith("csv") else "\t"
    (tmp_path / name).write_text(f"text{separator}label\n{long}{separator}0\n")
    assert read_table(tmp_path / name).rows == [{"text": long, "label": "0"}]
    assert csv.field_size_limit() == limit


TEXTS = ['z said "hi"', "a\tb", '"quoted"', "plain", 'open "quote', "two\nlines", '""']


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_quotes_that_a_program_put_round_the_fields_of_a_tsv_are_taken_off(
    quoting: Any, line_end: str, tmp_path: Path
) -> None:
    texts = [text for text in TEXTS if line_end == "\n" or "\n" not in text]
    frame = pd.DataFrame({"text": texts, "label": range(len(texts))})
    frame.to_csv(tmp_path / "train.tsv", sep="\t", index=False, quoting=quoting, lineterminator=line_end)
    assert [row["text"] for row in read_table(tmp_path / "train.tsv").rows] == texts


@pytest.mark.parametrize("text", ['"quoted"', 'he said "hi" twice', '"open', 'a "" b'])
def test_quotes_of_a_tsv_without_marks_are_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(f"text\tlabel\n{text}\t0\nplain\t1\n")
    assert read_table(tmp_path / "train.tsv").rows[0]["text"] == text


def test_pieces_of_a_file_are_read_as_one_and_told_apart_by_row(tmp_path: Path) -> None:
    for index in range(2):
        WRITERS["parquet"](tmp_path / f"train-0000{index}-of-00002.parquet", ROWS[30 * index : 30 * index + 30])
    WRITERS["csv"](tmp_path / "dev.CSV", [{**row, "one": "c"} for row in ROWS[:10]])
    checked = read_examples(spec(tmp_path), seed=0)
    assert [row["one"] for row in checked.train] == [row["one"] for row in ROWS]
    assert len(checked.provenance["files"]) == 3 and list(checked.tests) == ["test"]
    WRITERS["parquet"](tmp_path / "train-00001-of-00002.parquet", [{**ROWS[0], "gold": None}])
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet, row 0: the label is missing"):
        read_examples(spec(tmp_path), seed=0)
    (tmp_path / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(InputError, match="train is in 2 pieces, and there are 1"):
        read_examples(spec(tmp_path), seed=0)


def test_several_files_can_be_named_at_once(tmp_path: Path) -> None:
    for index in range(2):
        WRITERS["jsonl"](tmp_path / f"mine{index}.jsonl", ROWS[30 * index : 30 * index + 30])
    (tmp_path / "held.csv.gz").write_bytes(gzip.compress(b"one,two,gold\nc,d,no\nc,e,yes\n"))
    checked = read_examples(spec(tmp_path, train_file="mine*.jsonl", test_files={"held": "held.csv.gz"}), seed=0)
    assert len(checked.train) == 60 and len(checked.tests["held"]) == 2


def test_text_that_is_not_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"a,b\n1,2\n1,caf\xe9\n")
    with pytest.raises(InputError, match=r"train\.csv, line 3: not UTF-8 \(byte 0xe9\)"):
        read_table(tmp_path / "train.csv")


@pytest.mark.parametrize(
    ("changes", "values", "said"),
    [
        ({"gold": "maybe"}, {"label_names": ("no", "yes")}, "unknown label 'maybe'.*0 no, 1 yes"),
        ({"gold": -1}, {"label_names": ("no", "yes")}, "labels are hidden"),
        ({"gold": 1}, {}, "mixes numbers and text"),
        ({"one": None}, {}, "'one' must be text, this is None"),
        ({"one": 3}, {}, "'one' must be text, this is 3"),
        (
            {},
            {"label_column": "golden"},
            r"no column 'golden' \(task.label_column\) \(did you mean 'gold'\?\)",
        ),
        ({}, {"text_columns": ("one", "tow")}, r"no column 'tow' \(task.text_columns\) \(did you mean 'two'\?\)"),
        ({}, {"kind": "regression", "metrics": ("pearson",)}, "must be a finite number, this is 'yes'|'no'"),
        ({}, {"metrics": ("pearson",)}, "'pearson' is no metric of a classification task"),
        ({}, {"metrics": ()}, "task.metrics is empty"),
        ({}, {"text_columns": ()}, "name one or two columns"),
        ({}, {"search_val": 0.7, "select": 0.4}, "leave nothing for search_train"),
        ({}, {"train_file": "trian.jsonl"}, r"no such file \(did you mean 'train.jsonl'\?\)"),
    ],
)
def test_a_broken_row_or_a_wrong_name_is_refused(
    changes: dict[str, Any], values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    WRITERS["jsonl"](tmp_path / "train.jsonl", [{**ROWS[0], **changes}, *ROWS[1:]])
    WRITERS["jsonl"](tmp_path / "test.jsonl", [{**row, "one": "c"} for row in ROWS[:10]])
    with pytest.raises(InputError, match=said):
        load_task(spec(tmp_path, **values), seed=0)


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        WRITERS["jsonl"](tmp_path / f"{name}.jsonl", [{**row, "gold": "yes", "one": name} for row in ROWS])
    with pytest.raises(InputError, match=r"holds one class only \(yes\)"):
        load_task(spec(tmp_path), seed=0)


@pytest.mark.parametrize("there", [[], ["train.jsonl"], ["train.jsonl", "train.csv", "test.csv"]])
def test_missing_and_doubled_files_are_refused(there: list[str], tmp_path: Path) -> None:
    for name in there:
        WRITERS[name.rpartition(".")[2]](tmp_path / name, ROWS)
    with pytest.raises(InputError, match=r"there is no file called|more than one file|neither validation"):
        load_task(spec(tmp_path), seed=0)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        load_task(spec(tmp_path / "nowhere"), seed=0)


SIZES = {"rte": (2490, 277), "mrpc": (3668, 408), "cola": (8551, 1043), "stsb": (5749, 1500), "wnli": (635, 71)}


@pytest.mark.realdata
@pytest.mark.parametrize("name", SIZES)
def test_real_glue_files_are_read_whole(name: str, real_data: Path) -> None:
    columns = ("sentence",) if name == "cola" else ("sentence1", "sentence2")
    regression = name == "stsb"
    found = load_task(
        TaskSpec(
            f"glue/{name}",
            columns,
            ("pearson",) if regression else ("accuracy",),
            kind="regression" if regression else "classification",
            data_dir=str(real_data / "glue"),
            test_files={"test": "validation.jsonl"},
        ),
        seed=0,
    )
    sizes = found.provenance["sizes"]
    train = sum(sizes[split] for split in ("search_train", "search_val", "select"))
    assert (train + found.provenance["dropped_in_test"], sizes["test"]) == SIZES[name]
