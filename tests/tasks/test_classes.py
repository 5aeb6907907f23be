"""Labels are what the file says, in every form of file."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from morenas.base.errors import InputError
from morenas.tasks.classes import typed
from morenas.tasks.read import Checked, read_examples
from morenas.tasks.spec import TaskSpec


def spec(folder: Path, **values: Any) -> TaskSpec:
    metrics = ("pearson",) if values.get("kind") == "regression" else ("accuracy",)
    return TaskSpec("task", ("text",), metrics, data_dir=str(folder), **values)


def column(labels: list[Any], split: str, rows: int = 12) -> list[dict[str, Any]]:
    return [{"text": f"{split} {index}", "label": labels[index % len(labels)]} for index in range(rows)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of rows, in the form that its ending names, as pandas writes it."""
    frame = pd.DataFrame(rows)
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def read(
    folder: Path,
    labels: list[Any],
    form: str = "jsonl",
    test: list[Any] | None = None,
    test_form: str | None = None,
    **values: Any,
) -> Checked:
    write(folder / f"train.{form}", column(labels, "train"))
    write(folder / f"test.{test_form or form}", column(test or labels, "test"))
    return read_examples(spec(folder, **values), seed=0)


TABLES: list[tuple[list[Any], tuple[str, ...]]] = [
    (["ham", "spam"], ("ham", "spam")),
    (["007", "7", "08"], ("007", "08", "7")),
    ([0, 1], ("0", "1")),
    ([10, 9, 2], ("2", "9", "10")),
    ([float(number) for number in range(11)], tuple(map(str, range(11)))),
    ([0.5, 1.0, 1.5], ("0.5", "1", "1.5")),
    ([True, False], ("false", "true")),
    (["1e3", "1_000", "1,000"], ("1,000", "1_000", "1e3")),
]


@pytest.mark.parametrize(("labels", "names"), TABLES)
@pytest.mark.parametrize("form", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("test_form", ["jsonl", "csv", "parquet"])
def test_the_same_table_has_the_same_classes_in_every_form(
    form: str, test_form: str, labels: list[Any], names: tuple[str, ...], tmp_path: Path
) -> None:
    found = read(tmp_path, labels, form, test_form=test_form)
    assert found.label_names == names
    for rows in (found.train, found.tests["test"]):
        for index, row in enumerate(rows):
            assert typed(names[row["label"]]) == typed(str(labels[index % len(labels)]))


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("names", "labels", "meant"),
    [
        (("1", "0"), [0, 1], ["0", "1"]),
        (("1", "2", "3"), [1, 2, 3], ["1", "2", "3"]),
        (("2", "1", "0"), [0, 1, 2], ["0", "1", "2"]),
        (("01", "02", "03"), ["01", "02"], ["01", "02"]),
        (("true", "false"), [True, False], ["true", "false"]),
        (("False", "True"), [True, False], ["True", "False"]),
        (("no", "yes"), [0, 1], ["no", "yes"]),
        (("no", "yes"), [0.0, 1.0], ["no", "yes"]),
        (("no", "yes"), [False, True], ["no", "yes"]),
        (("0.0", "1.0"), [1.0, 0.0], ["1.0", "0.0"]),
        (("none", "nan"), ["none", "nan"], ["none", "nan"]),
    ],
)
def test_a_label_that_is_a_name_takes_that_name(
    form: str, names: tuple[str, ...], labels: list[Any], meant: list[str], tmp_path: Path
) -> None:
    found = read(tmp_path, labels, form, label_names=names)
    assert [names[row["label"]] for row in found.tests["test"][: len(labels)]] == meant


@pytest.mark.parametrize(
    ("names", "labels"),
    [(("1", "2", "3"), [0, 1, 2]), (("01", "02"), [1, 2]), (("true", "false"), ["true", "0.5"])],
)
def test_a_label_that_could_be_a_name_or_a_position_is_refused(
    names: tuple[str, ...], labels: list[Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"line [12]: unknown label"):
        read(tmp_path, labels, label_names=names)


@pytest.mark.parametrize("missing", ["", "  ", "nan", "NaN", "null", "<NA>", "#N/A"])
@pytest.mark.parametrize("labels", [["spam", "ham"], ["0.0", "1.0"], ["0", "1"], ["007", "08"]])
@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_a_missing_label_is_refused_by_line(form: str, labels: list[str], missing: str, tmp_path: Path) -> None:
    for names in (None, tuple(labels)):
        with pytest.raises(InputError, match=r"train\.\w+, line [34]: the label is missing \('label' is '"):
            read(tmp_path, [*labels, missing], form, label_names=names)


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize("names", [None, ("no", "yes")])
def test_a_missing_value_is_refused_by_row(missing: Any, names: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.parquet, row 2: the label is missing"):
        read(tmp_path, [0.0, 1.0, missing], "parquet", label_names=names)


def test_a_word_for_a_missing_value_is_one_among_numbers_and_a_class_among_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.csv, line 4: the label is missing \('label' is 'None' among numbers"):
        read(tmp_path, ["0", "1", "None"], "csv")
    assert read(tmp_path, ["for", "against", "none"], "csv").label_names == ("against", "for", "none")


def test_empty_rows_at_the_end_are_refused_by_line(tmp_path: Path) -> None:
    rows = "".join(f"train {index},{index % 2}\n" for index in range(6))
    (tmp_path / "train.csv").write_text(f"text,label\n{rows},\n,\n")
    write(tmp_path / "test.csv", column([0, 1], "test"))
    with pytest.raises(InputError, match=r"train\.csv, line 8: the label is missing"):
        read_examples(spec(tmp_path), seed=0)


@pytest.mark.parametrize("label", [["a", "b"], ["a"], [], {"a": 1}])
@pytest.mark.parametrize("values", [{}, {"label_names": ("a", "b")}, {"kind": "regression"}])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_is_no_label_is_refused_by_row(form: str, label: Any, values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(line 1|row 0).*(one label, a text or a number|a finite number), this is"):
        read(tmp_path, [label], form, test=[label], **values)


@pytest.mark.parametrize("label", [b"a", float("inf"), pd.Timestamp(0)])
def test_bytes_dates_and_infinity_are_no_labels(label: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.parquet, row 0: 'label' must be one label"):
        read(tmp_path, [label], "parquet")


def test_decimals_and_dictionaries_are_what_they_hold(tmp_path: Path) -> None:
    assert read(tmp_path, [Decimal("1.00"), Decimal("0.00")], "parquet").label_names == ("0", "1")
    for split in ("train", "test"):
        table = pa.table({"text": [f"{split} {i}" for i in range(12)], "label": pa.array(["a", "b"] * 6)})
        encoded = table.set_column(1, "label", table["label"].dictionary_encode())
        pq.write_table(encoded, tmp_path / f"{split}.parquet")
    assert read_examples(spec(tmp_path), seed=0).label_names == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1, "no"], "mixes numbers and text"),
        ([True, 0], "mixes truth values and numbers"),
        ([True, "no"], "mixes truth values and text"),
    ],
)
def test_labels_of_two_kinds_are_refused(labels: list[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        read(tmp_path, labels)


def test_a_number_in_a_test_set_is_not_taken_for_one_of_several_codes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown label 7, a number, where the train split has text"):
        read(tmp_path, ["007", "7"], test=[7])


@pytest.mark.parametrize("labels", [[index / 8 for index in range(30)], [f"{index / 8:.3f}" for index in range(30)]])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_many_fractions_are_values_to_predict(form: str, labels: list[Any], tmp_path: Path) -> None:
    write(tmp_path / f"train.{form}", column(labels, "train", 60))
    write(tmp_path / f"test.{form}", column(labels, "test"))
    with pytest.raises(InputError, match=r"holds 30 distinct numbers .*values to predict.*task\.kind=regression"):
        read_examples(spec(tmp_path), seed=0)


@pytest.mark.parametrize("hidden", [-1.0, 0.0, "-1"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_regression_on_hidden_labels_is_refused(split: str, hidden: Any, tmp_path: Path) -> None:
    scores = [0.5, 1.0, 4.2]
    train, test = ([hidden], scores) if split == "train" else (scores, [hidden])
    with pytest.raises(InputError, match=rf"{split}\.jsonl: every label is .*hidden, so there is nothing to"):
        read(tmp_path, train, test=test, kind="regression")


def test_a_test_set_of_one_class_is_said(tmp_path: Path) -> None:
    assert read(tmp_path, [0, 1]).notes == ()
    (note,) = read(tmp_path, [0, 1], test=[0]).notes
    assert note.startswith("test.jsonl: every label is 0; if labels are hidden")


@pytest.mark.parametrize("label", ["1_0", b"1.5", "nan", "1,5", None, "", [1.0]])
def test_what_only_looks_like_a_number_is_none(label: Any, tmp_path: Path) -> None:
    form = "parquet" if isinstance(label, bytes) else "jsonl"
    with pytest.raises(InputError, match=r"train.*(line 1|row 0): a regression label must be a finite number"):
        read(tmp_path, [label], form, kind="regression")


@pytest.mark.parametrize("wrong", [(False, True), ("a", 1000.0), (None, "a"), (1, 2)])
@pytest.mark.parametrize("field", ["label_names", "choices", "text_columns"])
def test_a_name_that_is_no_text_is_refused_with_the_way_out(field: str, wrong: Any) -> None:
    with pytest.raises(InputError, match=rf"task\.{field}: .* is no text.*quote"):
        TaskSpec("task", **{"text_columns": ("text",), "metrics": ("accuracy",), "data_dir": "d", field: wrong})
