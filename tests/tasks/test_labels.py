"""Labels as numbers, words and scores: what they become, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from morenas.base.errors import InputError
from morenas.tasks.load import Task, load_task
from morenas.tasks.spec import TaskSpec


def task(folder: Path, labels: list[Any], test: list[Any] | None = None, **values: Any) -> Task:
    """A task whose rows go through the labels in turn."""
    for split, given, count in (("train", labels, 60), ("test", test or labels, 12)):
        rows = [{"text": f"{split} {index}", "label": given[index % len(given)]} for index in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    metrics = values.pop("metrics", ("accuracy",))
    return load_task(TaskSpec("task", ("text",), metrics, data_dir=str(folder), **values), seed=0)


def score(folder: Path, labels: list[Any], test: list[Any] | None = None) -> Task:
    return task(folder, labels, test, kind="regression", metrics=("pearson",))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["yes", "no"], ("no", "yes")),
        ([10, 9], ("9", "10")),
        ([-1, 1], ("-1", "1")),
        ([True, False], ("false", "true")),
        ([0.0, 1.0, 2.0], ("0", "1", "2")),
        (["1", " 0 "], ("0", "1")),
    ],
)
def test_classes_are_the_distinct_labels_in_order(labels: list[Any], names: tuple[str, ...], tmp_path: Path) -> None:
    found = task(tmp_path, labels)
    assert found.label_names == names and found.num_labels == len(names)
    for row in found.tests["test"]:
        label = labels[int(row["text"].split()[1]) % len(labels)]
        plain = (
            json.dumps(label)
            if isinstance(label, bool)
            else f"{label:g}"
            if isinstance(label, float)
            else str(label).strip()
        )
        assert names[row["label"]] == plain


def test_names_that_are_given_decide_the_order(tmp_path: Path) -> None:
    found = task(tmp_path, ["yes", "no"], label_names=("yes", "no"))
    assert {(row["text"].split()[1], row["label"]) for row in found.tests["test"]} == {
        (str(index), index % 2) for index in range(12)
    }


def test_a_label_that_only_the_test_set_has_is_refused_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test\.jsonl, line 2: unknown label 'perhaps'\. Known are: no, yes\."):
        task(tmp_path, ["yes", "no"], ["yes", "perhaps"])


def test_an_unknown_label_is_told_with_its_neighbour(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl, line 1: unknown label 'yess' \(did you mean 'yes'\?\)"):
        task(tmp_path, ["yess", "no"], ["yes", "no"], label_names=("no", "yes"))


def test_a_missing_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl, line 3: the label is missing"):
        task(tmp_path, ["yes", "no", None], ["yes", "no"])


def test_mixed_labels_are_refused_with_one_of_each(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl: column 'label' mixes numbers and text \(.*'no'") as error:
        task(tmp_path, [1, "no"])
    assert "1" in str(error.value)


def test_one_name_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl: column 'label' holds one class only \(yes\)"):
        task(tmp_path, ["yes"], label_names=("yes",))


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"task\.label_names=\['no', 'yes', 'no'\]: every class needs a name"):
        task(tmp_path, [0, 1, 2], label_names=("no", "yes", "no"))


def test_half_a_character_is_refused_by_its_place(tmp_path: Path) -> None:
    task(tmp_path, ["yes", "no"])
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('\n{"text": "a \\ud83d b", "label": "yes"}')
    with pytest.raises(InputError, match=r"train\.jsonl, line 61: 'text' holds an incomplete character \('\\ud83d'\)"):
        load_task(TaskSpec("task", ("text",), ("accuracy",), data_dir=str(tmp_path)), seed=0)


def test_a_train_set_that_is_all_in_a_test_set_is_refused(tmp_path: Path) -> None:
    task(tmp_path, ["yes", "no"])
    (tmp_path / "test.jsonl").write_bytes((tmp_path / "train.jsonl").read_bytes())
    with pytest.raises(InputError, match=r"train\.jsonl: every text is in a test set too"):
        load_task(TaskSpec("task", ("text",), ("accuracy",), data_dir=str(tmp_path)), seed=0)


def test_scores_keep_their_values(tmp_path: Path) -> None:
    found = score(tmp_path, [0.25, 3, "4.5", -1.0])
    assert found.label_names == () and found.num_labels == 1
    assert [row["label"] for row in found.tests["test"]][:4] == [0.25, 3.0, 4.5, -1.0]
    kept = [*found.search_train["label"], *found.search_val["label"], *found.select["label"]]
    assert sorted(kept) == sorted([0.25, 3.0, 4.5, -1.0] * 15)


@pytest.mark.parametrize(
    "label", [float("nan"), float("inf"), float("-inf"), "1e999", 10**400, "high", None, True, [1.0]]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_score_that_is_not_a_finite_number_is_refused_by_its_place(split: str, label: Any, tmp_path: Path) -> None:
    good, bad = [0.0, 1.0, 2.0], [0.0, 1.0, label]
    with pytest.raises(InputError, match=rf"{split}\.jsonl, line 3: a regression label must be a finite number"):
        score(tmp_path, bad if split == "train" else good, bad if split == "test" else good)


def test_scores_come_from_parquet_and_csv_alike(tmp_path: Path) -> None:
    rows = [{"text": f"t {index}", "label": index / 8} for index in range(60)]
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in rows))
    pq.write_table(pa.Table.from_pylist([{**row, "text": "c"} for row in rows]), tmp_path / "test.parquet")
    found = load_task(TaskSpec("task", ("text",), ("pearson",), kind="regression", data_dir=str(tmp_path)), seed=0)
    assert [row["label"] for row in found.tests["test"]] == [index / 8 for index in range(60)]
    assert {row["text"]: row["label"] for row in found.search_train}.items() <= {
        row["text"]: row["label"] for row in rows
    }.items()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_examples": 0}, r"task\.max_examples=0: at least 1"),
        ({"max_examples": 1}, r"task\.max_examples=1: too few"),
        ({"max_length": 0}, r"task\.max_length=0: at least 1 token"),
        ({"search_val": 0.0}, r"task\.search_val=0\.0: a fraction"),
        ({"select": 1.0}, r"task\.select=1\.0: a fraction"),
        ({"search_val": 0.001}, "The split 'search_val' is empty: 60 examples"),
        ({"metrics": ("acuracy",)}, r"'acuracy' is no metric.*\(did you mean 'accuracy'\?\)"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        task(tmp_path, ["yes", "no"], **values)


def test_a_sample_larger_than_the_data_is_all_of_it(tmp_path: Path) -> None:
    sizes = task(tmp_path, ["yes", "no"], max_examples=1000).provenance["sizes"]
    assert sizes["search_train"] + sizes["search_val"] + sizes["select"] == 60
