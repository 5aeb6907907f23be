"""Data sets loaded as those of the hub are, from a folder in the hub's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hub_folder import hub_folder

from morenas.base.errors import InputError
from morenas.tasks.load import load_task
from morenas.tasks.spec import TaskSpec


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of two splits."""
    rows = {
        split: [{"sentence": f"{split} {index}", "gold": index % 2} for index in range(count)]
        for split, count in (("train", 80), ("validation", 20))
    }
    return hub_folder(tmp_path / "repository", rows, monkeypatch)


def spec(repository: Path, **values: Any) -> TaskSpec:
    given = {"test_splits": {"test": "validation"}, "label_column": "gold", **values}
    return TaskSpec("mine", ("sentence",), ("accuracy",), source="hub", hub_path=str(repository), **given)


def test_splits_come_by_their_names(repository: Path) -> None:
    task = load_task(spec(repository), seed=0)
    sizes = task.provenance["sizes"]
    assert sizes["search_train"] + sizes["search_val"] + sizes["select"] == 80 and sizes["test"] == 20
    assert task.provenance["source"] == "hub" and set(task.provenance["fingerprints"]) == {"train", "validation"}


def test_a_split_that_is_not_there_is_refused_with_those_that_are(repository: Path) -> None:
    with pytest.raises(InputError, match=r"no split 'validatoin' \(did you mean 'validation'\?\)\. It has: train, val"):
        load_task(spec(repository, test_splits={"test": "validatoin"}), seed=0)


def test_a_data_set_that_is_not_there_is_refused_with_the_way_out(repository: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be loaded from the hub.*task\.data_dir=<folder>"):
        load_task(spec(repository / "nowhere"), seed=0)
