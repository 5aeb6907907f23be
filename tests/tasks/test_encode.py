"""Texts become token ids, and those batches, each a pure function of its number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tiny_models import tiny_tokenizer
from tiny_training import tiny_dataset

from morenas.base.errors import InputError
from morenas.run.data import EncodedTask
from morenas.tasks.encode import EncodedBatches, encode
from morenas.tasks.load import RECORDS, load_task
from morenas.tasks.prompts import encode_records
from morenas.tasks.read import read_examples
from morenas.tasks.spec import TaskSpec
from morenas.tasks.spelling import SpelledToken


def batches(rows: int = 50, size: int = 8, seed: int = 0) -> EncodedBatches:
    return EncodedBatches(tiny_dataset(rows), tiny_tokenizer(), size, seed)


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


def test_labels_of_records_are_their_outputs_and_nothing_of_prompts_or_padding() -> None:
    tokenizer = tiny_tokenizer("llama")
    tokenizer.pad_token = tokenizer.eos_token  # padding looks like the end of an output
    prompts, outputs = ["a cat", "the big dog sees it", "is it"], ["red", "it is blue", "not red"]
    rows = [
        {"instruction": prompt, "input": "", "output": output, "answer": output, "choices": [], "label": 0}
        for prompt, output in zip(prompts, outputs, strict=True)
    ]
    spec = TaskSpec("t", ("instruction",), ("log_likelihood",), kind="generation", source="demo", prompt="plain")
    found = EncodedBatches(encode_records(Dataset.from_list(rows), tokenizer, spec, train=True), tokenizer, 3, seed=0)
    (batch,) = [found[number] for number in range(found.steps_per_epoch)]
    for place, row in enumerate(found.rows(0)):
        prompt, output = (tokenizer(text).input_ids for text in (prompts[row] + "\n", outputs[row]))
        learnt = [*output, tokenizer.eos_token_id]
        padding = batch["labels"].shape[1] - len(prompt) - len(learnt)
        assert batch["labels"][place].tolist() == [-100] * len(prompt) + learnt + [-100] * padding
        assert batch["attention_mask"][place].tolist() == [1] * (len(prompt) + len(learnt)) + [0] * padding
        assert batch["input_ids"][place, : len(prompt) + len(learnt)].tolist() == prompt + learnt


@pytest.mark.parametrize("mark", ["[SEP]", "[CLS]", "[PAD]"])
def test_a_text_that_spells_a_mark_is_refused(mark: str) -> None:
    data = Dataset.from_dict({"a": ["a cat", f"a cat {mark} the dog", mark], "label": [0, 1, 0]})
    with pytest.raises(SpelledToken, match=rf"spells the special token '\{mark[:-1]}\]' \(so do 1 more\)") as error:
        encode(data, tiny_tokenizer(), ("a",), 12)
    assert error.value.text == f"a cat {mark} the dog"


@pytest.mark.parametrize("column", ["instruction", "input", "output"])
def test_a_record_that_spells_a_mark_is_refused(column: str) -> None:
    record = {"instruction": "a cat", "input": "", "output": "it is", "answer": "", "choices": [], "label": 0}
    records = Dataset.from_list([record | {column: "it [SEP] is"}], RECORDS)
    spec = TaskSpec("task", ("instruction",), ("log_likelihood",), kind="generation", answer="text", data_dir="d")
    with pytest.raises(SpelledToken, match="spells the special token"):
        encode_records(records, tiny_tokenizer(), spec, train=True)


def test_words_for_what_is_unknown_or_masked_are_let_be() -> None:
    data = Dataset.from_dict({"a": ["a [MASK] cat", "a [UNK]"], "label": [0, 1]})
    assert len(encode(data, tiny_tokenizer(), ("a",), 12)) == 2


def test_the_row_that_spells_a_mark_is_named(tiny_task: Path, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text((tiny_task / f"{split}.jsonl").read_text())
    with (tmp_path / "validation.jsonl").open("a") as file:
        file.write('{"text": "a cat [SEP]", "label": 1}\n')
    spec = TaskSpec("task", ("text",), ("accuracy",), data_dir=str(tmp_path))
    checked = read_examples(spec, seed=0)
    task = load_task(spec, 0, checked)
    with pytest.raises(InputError, match=r"^validation\.jsonl, line 41: 'a cat \[SEP\]' spells"):
        EncodedTask(task, tiny_tokenizer()).check_texts(checked)
