"""The nine GLUE tasks as their configs give them: columns, labels, metrics, test sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as scores
from tiny_runs import composed

from morenas.run.needs import task_spec
from morenas.tasks.load import Task, load_task
from morenas.tasks.metrics import compute_metrics
from morenas.tasks.spec import TaskSpec

METRICS = {
    "cola": ("matthews_correlation",),
    "mnli": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "qnli": ("accuracy",),
    "qqp": ("accuracy", "f1"),
    "rte": ("accuracy",),
    "sst2": ("accuracy",),
    "stsb": ("pearson", "spearman"),
    "wnli": ("accuracy",),
}
# In the order of the labels 0, 1, 2 of the public files; F1 is that of label 1.
LABELS = {
    "cola": ("unacceptable", "acceptable"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qnli": ("entailment", "not_entailment"),
    "qqp": ("not_duplicate", "duplicate"),
    "rte": ("entailment", "not_entailment"),
    "sst2": ("negative", "positive"),
    "stsb": None,
    "wnli": ("not_entailment", "entailment"),
}
COLUMNS = {
    "cola": ("sentence",),
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "sst2": ("sentence",),
}
# Rows of the train and the validation split; rte's classes are 0 entailment and 1 not_entailment, wnli's the other
# way round.
SIZES = {"cola": (8551, 1043), "mrpc": (3668, 408), "rte": (2490, 277), "stsb": (5749, 1500), "wnli": (635, 71)}


def glue(name: str, folder: Path | None = None) -> TaskSpec:
    words = [f"+task=glue/{name}"] + ([f"task.data_dir={folder}"] if folder else [])
    return task_spec(composed("search", words))


def write(folder: Path, spec: TaskSpec, files: dict[str, int]) -> None:
    classes = len(spec.label_names or ())
    for stem, count in files.items():
        rows: list[dict[str, Any]] = [
            {**{column: f"{stem} {column} {i}" for column in spec.text_columns}, "label": i % classes if classes else i}
            for i in range(count)
        ]
        (folder / f"{stem}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def load(name: str, folder: Path, tests: tuple[str, ...] = ("validation",)) -> Task:
    spec = glue(name, folder)
    write(folder, spec, {"train": 90, **dict.fromkeys(tests, 12)})
    return load_task(spec, seed=0)


@pytest.mark.parametrize("name", METRICS)
def test_every_task_is_scored_by_its_official_metrics(name: str, tmp_path: Path) -> None:
    task = load(name, tmp_path)
    assert task.spec.metrics == METRICS[name] and task.metric == METRICS[name][0]
    assert task.num_labels == {"mnli": 3, "stsb": 1}.get(name, 2)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(150, task.num_labels))
    labels = rng.normal(size=150) if name == "stsb" else rng.integers(0, task.num_labels, 150)
    first, predicted = logits[:, 0], logits.argmax(-1)
    expected = {
        "accuracy": lambda: scores.accuracy_score(labels, predicted),
        "f1": lambda: scores.f1_score(labels, predicted),
        "matthews_correlation": lambda: scores.matthews_corrcoef(labels, predicted),
        "pearson": lambda: stats.pearsonr(first, labels).statistic,
        "spearman": lambda: stats.spearmanr(first, labels).statistic,
    }
    found = compute_metrics(task.spec.metrics, task.spec.kind, logits, labels)
    assert found == {metric: pytest.approx(expected[metric]()) for metric in METRICS[name]}


@pytest.mark.parametrize("name", METRICS)
def test_every_task_reads_the_columns_and_labels_of_the_public_files_and_is_tested_on_its_validation(name: str) -> None:
    spec = glue(name)
    assert spec.label_names == LABELS[name]
    assert spec.text_columns == COLUMNS.get(name, ("sentence1", "sentence2")) and spec.label_column == "label"
    assert spec.kind == ("regression" if name == "stsb" else "classification")

    assert spec.source == "hub" and (spec.hub_path, spec.hub_name) == ("nyu-mll/glue", name)
    expected = (
        {"test_matched": "validation_matched", "test_mismatched": "validation_mismatched"}
        if name == "mnli"
        else {"test": "validation"}
    )
    assert spec.test_splits == expected and spec.train_split == "train"


def test_mnli_has_two_test_sets_from_files_too(tmp_path: Path) -> None:
    task = load("mnli", tmp_path, ("validation_matched", "validation_mismatched"))
    assert list(task.tests) == ["test_matched", "test_mismatched"]
    for name, test in task.tests.items():
        assert {row["premise"].split()[0] for row in test} == {name.replace("test", "validation")}
    assert task.label_names == ("entailment", "neutral", "contradiction")


@pytest.mark.realdata
@pytest.mark.parametrize("name", SIZES)
def test_the_real_data_are_read_whole_and_split_as_asked(name: str, real_data: Path) -> None:
    task = load_task(glue(name, real_data / "glue"), seed=0)
    sizes = task.provenance["sizes"]
    kept = sizes["search_train"] + sizes["search_val"] + sizes["select"]
    assert (kept + task.provenance["dropped_in_test"], sizes["test"]) == SIZES[name]
    assert task.provenance["dropped_in_test"] <= 0.05 * SIZES[name][0]
    assert sizes["search_val"] == pytest.approx(0.30 * kept, rel=0.05)
    assert sizes["select"] == pytest.approx(0.15 * kept, rel=0.1)
    assert task.spec.metrics == METRICS[name]


@pytest.mark.realdata
@pytest.mark.parametrize("name", SIZES)
def test_no_text_of_the_real_test_set_is_in_a_split_to_train_on(name: str, real_data: Path) -> None:
    task = load_task(glue(name, real_data / "glue"), seed=0)
    columns = task.spec.text_columns

    def texts(split: Any) -> set[tuple[str, ...]]:
        return {tuple(" ".join(row[column].lower().split()) for column in columns) for row in split}

    parts = [texts(split) for split in (task.search_train, task.search_val, task.select, task.tests["test"])]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert texts(task.final_train()) == parts[0] | parts[1]
