"""Four disjoint splits, and nothing of the test set in any of them."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from morenas.base.errors import InputError
from morenas.tasks.load import Task, load_task
from morenas.tasks.spec import TaskSpec
from morenas.tasks.splits import content, split_examples


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [{"text": f"text {rng.randrange(10**9)}", "label": index % 4 // 3} for index in range(count)]


def write(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> TaskSpec:
    for name, examples in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, examples)))
    return TaskSpec("task", ("text",), ("accuracy",), data_dir=str(folder))


def texts(task: Task) -> dict[str, list[str]]:
    splits = {name: getattr(task, name) for name in ("search_train", "search_val", "select")} | task.tests
    return {name: [content(example, ("text",)) for example in split] for name, split in splits.items()}


def test_splits_are_disjoint_by_content_and_lose_nothing(tmp_path: Path) -> None:
    train = rows(400)
    copies = [{**row, "text": f"  {row['text'].upper()} "} for row in train[:60]]
    found = texts(load_task(write(tmp_path, train + copies, rows(50, seed=1)), seed=0))
    for one in found:
        for other in found:
            assert one == other or not set(found[one]) & set(found[other])
    kept = Counter(found["search_train"] + found["search_val"] + found["select"])
    assert kept == Counter(content(row, ("text",)) for row in train + copies)


def test_the_final_finetune_trains_on_neither_select_nor_test(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, rows(400), rows(50, seed=1)), seed=0)
    final = [content(row, ("text",)) for row in task.final_train()]
    found = texts(task)
    assert final == found["search_train"] + found["search_val"]
    assert not set(final) & set(found["select"] + found["test"])


def test_what_the_test_set_holds_never_reaches_the_search(tmp_path: Path) -> None:
    train = rows(200)
    task = load_task(write(tmp_path, train, [{**row, "text": row["text"].title()} for row in train[:30]]), seed=0)
    assert task.provenance["dropped_in_test"] == 30
    assert not {text for name, part in texts(task).items() if name != "test" for text in part} & set(
        texts(task)["test"]
    )


def test_splits_are_stratified_and_as_large_as_asked(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, rows(1000), rows(50, seed=1)), seed=0)
    sizes = task.provenance["sizes"]
    assert (sizes["search_val"], sizes["select"], sizes["search_train"]) == (300, 150, 550)
    for split in (task.search_train, task.search_val, task.select):
        assert sum(split["label"]) / len(split) == pytest.approx(0.25, abs=0.01)


def test_the_seed_decides_the_splits_and_the_order_of_rows_does_not(tmp_path: Path) -> None:
    train = rows(300)
    spec = write(tmp_path, train, rows(20, seed=1))
    task = load_task(spec, seed=0)
    again = load_task(write(tmp_path, train[::-1], rows(20, seed=1)), seed=0)
    other = load_task(spec, seed=1)
    assert {k: set(v) for k, v in texts(task).items()} == {k: set(v) for k, v in texts(again).items()}
    assert task.provenance["fingerprint"] == again.provenance["fingerprint"] != other.provenance["fingerprint"]


def test_copies_that_disagree_go_where_they_go_whatever_their_order() -> None:
    examples = [{"text": f"text {index % 30}", "label": int(index >= 30)} for index in range(60)]
    fractions = {"search_val": 0.3, "select": 0.2}

    def split(rows: list[dict[str, Any]]) -> dict[str, set[str]]:
        indices = split_examples(rows, ("text",), fractions, "search_train", seed=1)
        return {name: {rows[index]["text"] for index in chosen} for name, chosen in indices.items()}

    assert split(examples) == split(examples[::-1])


def test_the_fingerprint_changes_with_a_label(tmp_path: Path) -> None:
    train = rows(300)
    before = load_task(write(tmp_path, train, rows(20, seed=1)), seed=0).provenance["fingerprint"]
    train[0]["label"] = 1 - train[0]["label"]
    assert load_task(write(tmp_path, train, rows(20, seed=1)), seed=0).provenance["fingerprint"] != before


def test_a_sample_is_stratified_and_of_the_size_asked(tmp_path: Path) -> None:
    task = load_task(replace(write(tmp_path, rows(1000), rows(20, seed=1)), max_examples=200), seed=0)
    sizes = task.provenance["sizes"]
    assert sizes["search_train"] + sizes["search_val"] + sizes["select"] == 200


def test_a_regression_is_stratified_by_quantile() -> None:
    examples: list[dict[str, Any]] = [{"text": str(index), "label": index / 7} for index in range(500)]
    found = split_examples(examples, ("text",), {"a": 0.3}, "rest", seed=0, regression=True)
    labels = sorted(examples[index]["label"] for index in found["a"])
    assert labels[75] == pytest.approx(500 / 7 / 2, rel=0.1)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(InputError, match=r"The split '.*' is empty"):
        split_examples([{"text": "a", "label": 0}], ("text",), {"a": 0.3, "b": 0.1}, "rest", seed=0)


def test_many_rare_classes_are_named_as_the_cause() -> None:
    rows = [{"text": f"text {index}", "label": index % 150} for index in range(300)]
    with pytest.raises(InputError, match=r"'select' is empty: 300 .* in 150 classes, the largest of 2.* fewer than 4"):
        split_examples(rows, ("text",), {"search_val": 0.3, "select": 0.15}, "search_train", seed=0)
