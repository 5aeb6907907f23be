"""Anybody's data as numbered batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import morenas
from morenas.base.errors import InputError
from morenas.tasks.batches import DatasetBatches

ROWS = [{"x": torch.tensor([float(row)])} for row in range(10)]


def values(batches: DatasetBatches, numbers: range) -> list[list[float]]:
    return [batches[number]["x"].flatten().tolist() for number in numbers]


@pytest.mark.parametrize("size", [1, 3, 5, 10, 16])
def test_every_epoch_holds_every_example_once_in_an_order_of_its_own(size: int) -> None:
    batches = morenas.numbered_batches(ROWS, size)
    epochs = [values(batches, range(e * batches.steps_per_epoch, (e + 1) * batches.steps_per_epoch)) for e in range(3)]
    flat = [[value for batch in epoch for value in batch] for epoch in epochs]
    assert all(sorted(epoch) == list(map(float, range(10))) for epoch in flat)
    assert flat[0] != flat[1] != flat[2]
    assert [len(batch) for batch in epochs[0]][:-1] == [size] * (batches.steps_per_epoch - 1)


def test_a_batch_depends_on_its_number_and_the_seed_alone() -> None:
    numbers = range(25)
    expected = values(morenas.numbered_batches(ROWS, 3, seed=1), numbers)
    other = morenas.numbered_batches(ROWS, 3, seed=1)
    assert [values(other, range(number, number + 1))[0] for number in reversed(numbers)] == expected[::-1]
    assert values(morenas.numbered_batches(ROWS, 3, seed=2), numbers) != expected


def test_what_a_collator_draws_is_seeded_by_the_number_and_disturbs_no_one() -> None:
    def noisy(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {"x": torch.stack([row["x"] for row in rows]) + torch.rand(len(rows), 1)}

    batches = morenas.numbered_batches(ROWS, 4, noisy)
    state = torch.get_rng_state()
    first = batches[7]["x"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(batches[7]["x"], first)
    assert not torch.equal((batches[7]["x"] % 1), (batches[5]["x"] % 1))


def test_a_list_of_whole_batches_is_taken_as_it_is() -> None:
    whole = [{"x": torch.full((size,), float(size))} for size in (1, 2, 3)]
    batches = morenas.numbered_batches(whole, batch_size=None)
    assert sorted(len(batches[number]["x"]) for number in range(3)) == [1, 2, 3]
    assert batches.steps_per_epoch == 3


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(ROWS)


@pytest.mark.parametrize(
    ("dataset", "size", "said"),
    [
        ([], 2, "the data set is empty"),
        (ROWS, 0, "batch_size=0: at least 1"),
        (Stream(), 2, "Stream has no length"),
        (DataLoader(ROWS), 2, r"DataLoader has no length or no rows .*loader.dataset, loader.batch_size"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_numbered_is_refused(dataset: Any, size: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        morenas.numbered_batches(dataset, size)


def test_a_batch_that_names_no_tensors_is_refused() -> None:
    with pytest.raises(InputError, match=r"this one has or is list; give a collate_fn"):
        morenas.numbered_batches(TensorDataset(torch.zeros(4, 2)), 2)[0]
    with pytest.raises(InputError, match=r"has or is 'text' of type list"):
        morenas.numbered_batches([{"text": "a"}, {"text": "b"}], 2)[0]
