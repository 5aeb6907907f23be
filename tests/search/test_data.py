"""The data of a search: as one thing, and as the three that it once was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import shallow, tiny_batch
from tiny_search import BUDGET, SETTINGS, TinyBatches, tiny_space

import morenas
from morenas import SearchData, search_architecture
from morenas.base.errors import InputError
from morenas.models.heads import find_head
from morenas.search.engine import SearchOutcome


def same(one: SearchOutcome, other: SearchOutcome) -> bool:
    return torch.equal(one.logits, other.logits) and one.architecture == other.architecture


@pytest.mark.parametrize("selection", ["budgeted", "playoff"])
def test_every_way_to_give_the_data_is_the_same_search(selection: str) -> None:
    settings = morenas.SearchSettings(
        steps=8, warmup=4, start="level", selection=selection, playoff=2, playoff_steps=2, measurements=4
    )
    train, val, select = TinyBatches(0), TinyBatches(1000), TinyBatches(2000)

    def run(*given: Any, **named: Any) -> SearchOutcome:
        model = shallow()
        space, head = tiny_space(model), find_head(model)
        how: dict[str, Any] = {"space": space, "budget": BUDGET, "settings": settings, "head": head, **named}
        return search_architecture(model, *given, **how)

    found = run(SearchData(train, val, select))
    assert same(found, run(data=SearchData(train, val, select)))
    assert same(found, run(train, val, select_batches=select))
    assert same(found, run(train_batches=train, val_batches=val, select_batches=select))


def test_arguments_stand_in_the_same_order_whichever_way_the_data_is_given() -> None:
    outcomes = []
    for data in ((SearchData(TinyBatches(0), TinyBatches(1000)),), (TinyBatches(0), TinyBatches(1000))):
        model = shallow()
        arguments = (tiny_space(model), BUDGET, SETTINGS, find_head(model))
        call: Any = search_architecture
        outcomes.append(call(model, *data, *arguments))
    assert same(*outcomes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((SearchData(TinyBatches(0), TinyBatches(1)),), "missing 3 required positional arguments: 'space', 'budget'"),
        ((TinyBatches(0), TinyBatches(1)), "missing 3 required positional arguments: 'space', 'budget'"),
        ((), "missing 5 required positional arguments: 'train_batches'"),
    ],
)
def test_what_is_missing_is_named(given: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        search_architecture(shallow(), *given)


def test_without_a_select_set_val_decides() -> None:
    train, val, select = TinyBatches(0), TinyBatches(1), TinyBatches(2)
    assert SearchData(train, val).decisive is val and SearchData(train, val, select).decisive is select


@pytest.mark.parametrize("name", ["train", "val", "select"])
def test_batches_that_end_are_refused_by_name(name: str) -> None:
    given: Any = {"train": TinyBatches(0), "val": TinyBatches(0), name: [tiny_batch()]}
    with pytest.raises(InputError, match=f"{name} batches: .* a list has an end or no numbers; wrap the data"):
        SearchData(**given)
