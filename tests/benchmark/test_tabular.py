"""The tabular bench: the problem, and the table of every architecture trained alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import build_tabular
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from morenas.base.errors import InputError
from morenas.benchmark.table import METADATA, TABLE, ArchitectureTable, Picks
from morenas.benchmark.tabular import CURVE_STEPS, RECIPE, TabularTask, train_rows
from morenas.benchmark.tasks import TASKS
from morenas.models import load_pretrained
from morenas.space import Choice, sample_architecture

PICKS = [(0, 1, 2, 0), (4, 0, 0, 1), (3, 3, 0, 2)]


@pytest.fixture(scope="module")
def table() -> ArchitectureTable:
    return ArchitectureTable()


@pytest.fixture(scope="module")
def raw() -> pa.Table:
    return pq.read_table(TABLE)


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> TabularTask:
    return TabularTask(request.param)


def test_the_table_holds_every_architecture_of_every_task_with_three_seeds_once(
    table: ArchitectureTable, raw: pa.Table
) -> None:
    keys = [(row["task"], tuple(row["architecture"]), row["seed"]) for row in raw.to_pylist()]
    everything = itertools.product(range(5), repeat=4)
    assert sorted(keys) == sorted(itertools.product(TASKS, everything, table.seeds))
    assert table.tasks == tuple(TASKS) and len(table.seeds) >= 3 and len(table.architectures()) >= 256


def test_the_table_is_small_and_says_how_it_was_made(table: ArchitectureTable) -> None:
    assert TABLE.stat().st_size < 5_000_000
    recipe = table.metadata["recipe"]
    assert recipe["steps"] == RECIPE.steps and recipe["learning_rate"] == RECIPE.learning_rate
    assert set(table.metadata) >= {"space", "choices", "groups", "data", "model", "versions", "curve"}


def test_every_number_is_finite_and_curves_have_all_points(raw: pa.Table) -> None:
    for name in ("seconds", "test_loss", "test_accuracy", "select_loss"):
        assert np.isfinite(raw[name].to_numpy()).all()
    curves = np.array(raw["curve"].to_pylist())
    assert curves.shape == (raw.num_rows, len(CURVE_STEPS)) and np.isfinite(curves).all()


def test_queries_give_the_raw_rows(table: ArchitectureTable, raw: pa.Table) -> None:
    for row in raw.take(list(range(0, raw.num_rows, 97))).to_pylist():
        key = row["task"], tuple(row["architecture"])
        seed = row["seed"]
        assert table.losses(*key)[seed] == row["test_loss"]
        assert table.accuracies(*key)[seed] == row["test_accuracy"]
        assert table.select_losses(*key)[seed] == row["select_loss"]
        assert table.seconds(*key)[seed] == row["seconds"]
        assert table.curves(*key)[seed].tolist() == row["curve"]
        assert table.params(key[1]) == row["params"]


@pytest.mark.parametrize("name", TASKS)
def test_the_best_and_the_mean_of_random_are_those_of_the_rows(
    table: ArchitectureTable, raw: pa.Table, name: str
) -> None:
    budget = 5529
    sums: dict[tuple[int, ...], list[float]] = {}
    for row in raw.to_pylist():
        if row["task"] == name and row["params"] <= budget:
            sums.setdefault(tuple(row["architecture"]), []).append(row["test_loss"])
    means = {picks: sum(values) / len(values) for picks, values in sums.items()}
    assert set(table.architectures(budget)) == set(means)
    best = table.best(name, budget)
    assert table.loss(name, best) == pytest.approx(min(means.values()))
    spent = [means[picks] for picks in means if table.params(picks) == 5184]
    assert table.random(name, budget) == pytest.approx(sum(spent) / len(spent))
    assert table.loss(name, best) < table.random(name, budget)


def test_random_search_draws_from_those_that_spend_the_budget(table: ArchitectureTable, task: TabularTask) -> None:
    generator = torch.Generator().manual_seed(0)
    spent = set(table.architectures(task.budget, spent=True))
    drawn = {task.picks(sample_architecture(task.space, task.budget, generator)) for _ in range(500)}
    assert drawn <= spent and len(drawn) > len(spent) / 2


def test_the_problem_is_the_one_that_the_table_enumerates(table: ArchitectureTable, task: TabularTask) -> None:
    assert table.architectures() == task.architectures()
    assert all(table.params(picks) == task.params(picks) for picks in task.architectures())
    assert table.metadata["groups"] == list(task.space.groups)
    assert table.metadata["choices"] == [list(choice) for choice in task.space.choices]
    assert table.metadata["model"]["sha256"] == task.fingerprint
    assert all(task.picks(task.space.shapes(picks)) == picks for picks in task.architectures()[::7])


def test_an_architecture_outside_of_the_space_is_refused(task: TabularTask, table: ArchitectureTable) -> None:
    name = next(iter(task.modules))
    with pytest.raises(InputError, match="one choice a group"):
        task.picks({name: Choice(1, 1)})
    with pytest.raises(InputError, match="one choice a group"):
        task.picks(dict.fromkeys(task.modules, Choice(2, 1)))
    with pytest.raises(InputError, match="choice index below 5"):
        table.loss(task.family, (0, 0, 0, 5))
    with pytest.raises(InputError, match=r"choose from majority, order"):
        table.loss("ordr", (0, 0, 0, 0))
    with pytest.raises(InputError, match="raise the budget"):
        table.best(task.family, -1)


def test_a_file_that_is_no_whole_table_is_refused(tmp_path: Path, raw: pa.Table) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        ArchitectureTable(tmp_path / "none.parquet")
    pq.write_table(raw.replace_schema_metadata(None), tmp_path / "plain.parquet")
    with pytest.raises(InputError, match="no table of format"):
        ArchitectureTable(tmp_path / "plain.parquet")
    pq.write_table(raw.slice(1), tmp_path / "short.parquet")
    with pytest.raises(InputError, match="are not one a task"):
        ArchitectureTable(tmp_path / "short.parquet")
    assert json.loads(raw.schema.metadata[METADATA])["format"]


def test_splits_are_disjoint_and_the_final_training_is_on_both_of_the_search(task: TabularTask) -> None:
    rows = {
        split: {tuple(ids) for ids in task.examples(split)["input_ids"].tolist()}
        for split in ("search_train", "search_val", "select", "final", "test")
    }
    assert rows["final"] == rows["search_train"] | rows["search_val"]
    apart = [rows[split] for split in ("search_train", "search_val", "select", "test")]
    assert len(set.union(*apart)) == sum(map(len, apart))


def test_batches_are_a_function_of_number_and_seed_and_an_epoch_holds_each_example_once(task: TabularTask) -> None:
    one, again, other = task.batches("final", 0), task.batches("final", 0), task.batches("final", 1)
    late = again[200]
    assert torch.equal(one[3]["input_ids"], again[3]["input_ids"])
    assert torch.equal(one[200]["input_ids"], late["input_ids"])
    assert not torch.equal(one[3]["input_ids"], other[3]["input_ids"])
    ids = torch.cat([one[number]["input_ids"] for number in range(one.steps_per_epoch)])
    assert ids.shape[0] == len(task.examples("final")["labels"])
    assert len(ids.unique(dim=0)) == ids.shape[0]


def test_the_last_layer_that_computes_one_token_gives_the_logits_of_the_whole(task: TabularTask) -> None:
    whole = load_pretrained("demo", num_labels=2, label_names=["no", "yes"]).model.eval()
    ids = task.examples("test")["input_ids"][:8]
    with torch.no_grad():
        torch.testing.assert_close(task.model(input_ids=ids).logits, whole(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


def test_the_beginning_of_a_training_is_what_the_table_says(table: ArchitectureTable, task: TabularTask) -> None:
    for picks, row in zip(PICKS, train_rows(task, PICKS, seed=1, steps=25), strict=True):
        assert row["curve"] == pytest.approx(table.curves(task.family, picks)[1][:2].tolist(), abs=2e-3)


@pytest.mark.slow
def test_a_training_made_again_alone_ends_where_the_table_says(table: ArchitectureTable, task: TabularTask) -> None:
    picks = table.best(task.family, task.budget)
    (row,) = train_rows(task, [picks], seed=2)
    assert row["test_loss"] == pytest.approx(table.losses(task.family, picks)[2], abs=0.02)
    assert row["test_accuracy"] == pytest.approx(table.accuracies(task.family, picks)[2], abs=0.02)
    assert row["select_loss"] == pytest.approx(table.select_losses(task.family, picks)[2], abs=0.02)


def test_a_build_that_was_stopped_goes_on_from_what_is_there_and_refuses_parts_of_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {"curve": [0.5] * 8, "test_loss": 0.5, "test_accuracy": 1.0, "select_loss": 0.5}

    def pretend(task: TabularTask, architectures: Sequence[Picks], seed: int) -> list[dict[str, Any]]:
        return [result for _ in architectures]

    def stopped(task: TabularTask, architectures: Sequence[Picks], seed: int) -> list[dict[str, Any]]:
        if architectures[0][:2] == (0, 3):
            raise KeyboardInterrupt
        return pretend(task, architectures, seed)

    words = ["--parts", str(tmp_path / "parts"), "--output", str(tmp_path / "table.parquet"), "--seeds", "1"]
    monkeypatch.setattr(build_tabular, "train_rows", stopped)
    with pytest.raises(KeyboardInterrupt):
        build_tabular.main(words)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    assert len(before) == 3 and not (tmp_path / "table.parquet").exists()
    monkeypatch.setattr(build_tabular, "train_rows", pretend)
    assert build_tabular.main(words) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(ArchitectureTable(tmp_path / "table.parquet").architectures()) == 625
    monkeypatch.setattr(build_tabular, "CURVE_EXAMPLES", 64)
    assert build_tabular.main(words) == 2
    assert "made with another curve" in capsys.readouterr().err
