"""Batches are a pure function of their number."""

from __future__ import annotations

import torch
from datasets import Dataset
from tiny_models import tiny_tokenizer
from tiny_training import tiny_dataset

from morenas.tasks.batches import Batches
from morenas.tasks.encode import encode


def batches(rows: int = 50, size: int = 8, seed: int = 0) -> Batches:
    return Batches(tiny_dataset(rows), tiny_tokenizer(), size, seed)


def test_the_same_number_gives_the_same_batch_in_any_order_of_asking() -> None:
    one, other = batches(), batches()
    forward = [one[number] for number in range(20)]
    for number in reversed(range(20)):
        assert all(torch.equal(value, forward[number][name]) for name, value in other[number].items())


def test_an_epoch_holds_every_example_once_and_the_next_is_shuffled_anew() -> None:
    found = batches()
    epochs = [[found.rows(epoch * 7 + index).tolist() for index in range(7)] for epoch in range(3)]
    assert found.steps_per_epoch == 7
    for epoch in epochs:
        assert sorted(row for batch in epoch for row in batch) == list(range(50))
    assert epochs[0] != epochs[1] != epochs[2]


def test_another_seed_gives_another_order() -> None:
    assert batches(seed=0).rows(0).tolist() != batches(seed=1).rows(0).tolist()


def test_padding_is_masked_and_small() -> None:
    found = batches(200)
    for number in range(found.steps_per_epoch):
        batch = found[number]
        lengths = batch["attention_mask"].sum(-1)
        assert int(lengths.max()) == batch["input_ids"].shape[1]
        assert (batch["input_ids"][batch["attention_mask"] == 0] == 0).all()
    spread = [
        int(found[n]["attention_mask"].sum(-1).max() - found[n]["attention_mask"].sum(-1).min()) for n in range(20)
    ]
    assert sorted(spread)[10] <= 1  # grouped by length


def test_pairs_are_cut_to_the_limit_longer_text_first() -> None:
    data = Dataset.from_dict({"a": ["cat " * 30], "b": ["dog bird"], "label": [1]})
    encoded = encode(data, tiny_tokenizer(), ("a", "b"), 12)
    assert len(encoded["input_ids"][0]) == 12 and list(encoded["labels"]) == [1]
    words = tiny_tokenizer().convert_ids_to_tokens(encoded["input_ids"][0])
    assert "dog" in words and "bird" in words


def test_the_texts_of_a_pair_are_kept_apart_whatever_the_tokenizer() -> None:
    data = Dataset.from_dict({"a": ["cat"], "b": ["dog"], "label": [1]})
    letters = tiny_tokenizer("qwen2")
    (ids,) = encode(data, letters, ("a", "b"), 12)["input_ids"]
    assert letters.decode(ids) == "cat\ndog"
    (ids,) = encode(data, tiny_tokenizer("bert"), ("a", "b"), 12)["input_ids"]
    assert tiny_tokenizer("bert").convert_ids_to_tokens(ids) == ["[CLS]", "cat", "[SEP]", "dog", "[SEP]"]
