"""Mixed tasks: trained on together, tested one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from morenas.base.errors import InputError
from morenas.tasks.load import Task, load_task
from morenas.tasks.spec import TaskSpec

SIZES = {"one": 60, "two": 120}


def write(folder: Path, part: str, train: int, test: int = 6, **values: Any) -> None:
    (folder / part).mkdir(exist_ok=True)
    for split, count in (("train", train), ("test", test)):
        rows = [
            {"instruction": f"{part} {split} {n}", "output": str(n % 3), "answer": str(n % 3), **values}
            for n in range(count)
        ]
        if rows:
            (folder / part / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def spec(folder: Path, mix: Any = None, **values: Any) -> TaskSpec:
    given: dict[str, Any] = {"kind": "choice", "metrics": ("accuracy",), **values}
    mix = dict.fromkeys(SIZES) if mix is None else mix
    return TaskSpec("mixed", ("instruction", "input"), data_dir=str(folder), mix=mix, **given)


def load(folder: Path, mix: Any = None, **values: Any) -> Task:
    for part, size in SIZES.items():
        write(folder, part, size)
    return load_task(spec(folder, mix, **values), seed=0)


def kept(task: Task) -> list[dict[str, Any]]:
    return [*task.search_train, *task.search_val, *task.select]


def test_parts_are_trained_on_together_and_tested_one_by_one(tmp_path: Path) -> None:
    task = load(tmp_path)
    assert len(kept(task)) == 180 and {name: len(test) for name, test in task.tests.items()} == {"one": 6, "two": 6}
    assert {name: given.name for name, given in task.test_specs.items()} == {"one": "one", "two": "two"}
    assert {row["instruction"].split()[0] for row in task.tests["two"]} == {"two"}
    assert list(task.provenance["parts"]) == ["one", "two"]


def test_every_split_has_its_share_of_every_part(tmp_path: Path) -> None:
    for split in (load(tmp_path).search_train, load(tmp_path).search_val):
        parts = [text.split()[0] for text in split["instruction"]]
        assert parts.count("one") / len(parts) == pytest.approx(1 / 3, abs=0.02)


def test_a_record_that_any_parts_test_set_holds_is_dropped(tmp_path: Path) -> None:
    load(tmp_path)
    rows = (tmp_path / "two" / "test.jsonl").read_text()
    with (tmp_path / "one" / "train.jsonl").open("a") as file:
        file.write("\n" + rows)
    task = load_task(spec(tmp_path), seed=0)
    assert task.provenance["dropped_in_test"] == 6 and len(kept(task)) == 180


def test_a_sample_is_one_of_the_whole_and_a_parts_own_is_one_of_the_part(tmp_path: Path) -> None:
    assert len(kept(load(tmp_path, max_examples=90))) == 90
    parts = [row["instruction"].split()[0] for row in kept(load(tmp_path, {"one": {}, "two": {"max_examples": 30}}))]
    assert (parts.count("one"), parts.count("two")) == (60, 30)


def test_a_part_may_be_tested_only(tmp_path: Path) -> None:
    write(tmp_path, "three", 0)
    task = load(tmp_path, {"one": None, "three": {"train_split": None, "choices": ["0", "1", "2"]}})
    assert len(kept(task)) == 60 and list(task.tests) == ["one", "three"]


def test_a_part_with_more_than_one_test_set_names_them_by_both(tmp_path: Path) -> None:
    task = load(tmp_path, {"one": {"test_files": {"a": "test.jsonl", "b": "test.jsonl"}}, "two": None})
    assert list(task.tests) == ["one_a", "one_b", "two"]


def test_parts_may_have_their_answers_read_in_their_own_way(tmp_path: Path) -> None:
    write(tmp_path, "letters", 40, answer="B")
    values: dict[str, Any] = {"kind": "generation", "answer": "number", "metrics": ("generated_accuracy",)}
    mix = {"one": None, "letters": {"answer": "letter"}}
    task = load(tmp_path, mix, select_metric="log_likelihood", **values)
    assert {name: given.answer for name, given in task.test_specs.items()} == {"one": "number", "letters": "letter"}
    with pytest.raises(InputError, match=r"more than one way \(letter, number\).*select_metric=log_likelihood"):
        spec(tmp_path, mix, **values)


@pytest.mark.parametrize(
    ("mix", "values", "said"),
    [
        (
            {"one": {"fodler": "x"}},
            {},
            r"task\.mix\.one\.fodler: .*no such field of their own \(did you mean 'folder'\?\)",
        ),
        ({"one": {"kind": "generation"}}, {}, r"task\.mix\.one\.kind: .*They may differ in text_columns, source"),
        ({"one": {"answer": "numbr"}}, {}, r"task\.mix\.one: task\.mix\.one\.answer=numbr: choose from"),
        ({"select": None}, {}, r"task\.mix\.select: in the results this name stands for the select split"),
        ({"one": 3}, {}, r"task\.mix\.one=3: must be a mapping"),
        ({}, {}, r"task\.mix=\{\}: must be a mapping"),
        ({"one": None}, {"kind": "classification"}, r"task\.mix: a classification task cannot be mixed"),
        ({"one": {"train_file": "x.jsonl"}}, {}, r"task\.mix\.one: .*x\.jsonl: there is no such file"),
        ({"none": {}}, {}, r"task\.mix\.none: .*no file called train.*name it by task\.mix\.none\.train_file"),
        ({"one": {"train_split": None}}, {"choices": ("0", "1", "2")}, r"no part of mixed has a train split"),
    ],
)
def test_a_wrong_part_is_refused_by_its_key(mix: Any, values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        load(tmp_path, mix, **values)


def test_parts_that_are_read_from_the_same_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ".", 60)
    with pytest.raises(InputError, match=r"task\.mix: three and four are read from the same files"):
        load(tmp_path, {"three": None, "four": None})


def test_a_mix_needs_the_hub_where_a_part_does(tmp_path: Path) -> None:
    mix = {"one": {"hub_path": "a/b"}, "two": {"hub_path": "c/d"}}
    needy = TaskSpec("mixed", ("instruction",), ("accuracy",), kind="choice", source="hub", mix=mix)
    need = needy.hub_need()
    assert need is not None and need.name == "a/b" and spec(tmp_path).hub_need() is None
