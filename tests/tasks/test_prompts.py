"""Records as token ids: prompt, output, choices, and what is too long."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset
from tiny_models import tiny_tokenizer
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from morenas.base.errors import InputError
from morenas.tasks.load import RECORDS
from morenas.tasks.prompts import alpaca_prompt, encode_records, leading_tokens, prompt_texts
from morenas.tasks.spec import TaskSpec

CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}bird {% endif %}"
)


def spec(**values: Any) -> TaskSpec:
    given: dict[str, Any] = {
        "kind": "choice",
        "metrics": ("accuracy",),
        "prompt": "plain",
        "continuation": "a {answer}",
        "max_new_tokens": 2,
        "max_length": 20,
        **values,
    }
    return TaskSpec("mine", ("instruction", "input"), data_dir=".", **given)


def records(*rows: dict[str, Any]) -> Dataset:
    base = {"instruction": "", "input": "", "output": "", "answer": "", "choices": [], "label": 0}
    return Dataset.from_list([{**base, **row} for row in rows], RECORDS)


def with_bos() -> PreTrainedTokenizerFast:
    """Puts [CLS] before a text and [SEP] after it."""
    tokenizer = tiny_tokenizer("llama")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


ROW = {"instruction": "the cat sees", "output": "a dog", "answer": "dog", "choices": ["bird", "dog"]}


def words(ids: list[int]) -> str:
    return " ".join(with_bos().convert_ids_to_tokens(ids))


def test_the_prompt_carries_no_loss_and_the_output_does_with_its_end() -> None:
    (row,) = encode_records(records(ROW), with_bos(), spec(), train=True)
    assert words(row["input_ids"]) == "[CLS] the cat sees a dog [SEP]"
    assert row["labels"] == [-100] * 4 + row["input_ids"][4:] and row["prompt_length"] == 4
    assert row["attention_mask"] == [1] * 7
    assert [words(ids) for ids in row["choice_ids"]] == ["a bird [SEP]", "a dog [SEP]"]
    assert (row["correct"], row["answer"], row["choices"]) == (1, "dog", ["bird", "dog"])


def test_training_and_evaluation_read_the_same_prompt_and_the_same_output() -> None:
    data = records(ROW, {**ROW, "instruction": "a", "input": "red bird"})
    trained, tested = (encode_records(data, with_bos(), spec(), train) for train in (True, False))
    assert list(trained) == list(tested)


def test_without_an_output_the_prompt_stands_alone() -> None:
    (row,) = encode_records(records({**ROW, "output": ""}), with_bos(), spec(), train=False)
    assert words(row["input_ids"]) == "[CLS] the cat sees" and row["labels"] == [-100] * 4


def test_a_record_without_choices_has_none_that_is_correct() -> None:
    data = records({**ROW, "choices": []})
    (row,) = encode_records(data, with_bos(), spec(), train=True)
    assert (row["choice_ids"], row["correct"], row["choices"]) == ([], -1, [])


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_tokenizers_that_add_nothing_get_nothing_at_the_start(family: str) -> None:
    tokenizer = tiny_tokenizer(family)
    assert leading_tokens(tokenizer) == []
    (row,) = encode_records(records(ROW), tokenizer, spec(max_length=64), train=True)
    assert row["input_ids"][-1] == tokenizer.eos_token_id and row["labels"][-1] == tokenizer.eos_token_id


def test_a_tokenizer_without_an_end_puts_none() -> None:
    tokenizer = with_bos()
    tokenizer.eos_token = None
    (row,) = encode_records(records(ROW), tokenizer, spec(), train=True)
    assert words(row["input_ids"]) == "[CLS] the cat sees a dog"


def test_the_alpaca_prompt_has_an_input_section_only_where_there_is_an_input() -> None:
    assert alpaca_prompt("Greet.", "") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nGreet.\n\n### Response:\n"
    )
    assert alpaca_prompt("Greet.", "Ann") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nGreet.\n\n### Input:\nAnn\n\n"
        "### Response:\n"
    )


def test_auto_is_the_chat_template_where_there_is_one_else_alpaca() -> None:
    tokenizer, data = with_bos(), records({**ROW, "input": "red"})
    assert prompt_texts(data, tokenizer, spec(prompt="auto")) == ([alpaca_prompt("the cat sees", "red")], False)
    tokenizer.chat_template = CHAT
    assert prompt_texts(data, tokenizer, spec(prompt="auto"))[0] == ["[CLS]user the cat sees\n\nred bird "]


def test_a_chat_template_brings_its_own_special_tokens_once() -> None:
    tokenizer = with_bos()
    tokenizer.chat_template = CHAT
    (row,) = encode_records(records(ROW), tokenizer, spec(prompt="chat"), train=True)
    assert words(row["input_ids"]) == "[CLS] [UNK] the cat sees bird a dog [SEP]" and row["prompt_length"] == 6


def test_a_template_that_dates_its_prompts_gives_the_same_every_day() -> None:
    tokenizer = with_bos()
    tokenizer.chat_template = "{{ date_string if date_string is defined else strftime_now('%f') }}"
    texts, _ = prompt_texts(records(ROW), tokenizer, spec(prompt="chat"))
    assert texts == ["26 Jul 2024"]


def test_a_chat_without_a_template_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"task\.prompt=chat: the model's tokenizer has no chat template; use .*alpaca"
    ):
        encode_records(records(ROW), with_bos(), spec(prompt="chat"), train=True)


def test_a_template_that_refuses_a_user_is_told() -> None:
    tokenizer = with_bos()
    tokenizer.chat_template = "{{ raise_exception('no users here') }}"
    with pytest.raises(InputError, match=r"chat template refuses a user's message \(no users here\)"):
        encode_records(records(ROW), tokenizer, spec(prompt="chat"), train=True)


LONG = [{**ROW, "instruction": " ".join(["cat"] * size)} for size in (3, 6, 9)]


def test_records_that_are_too_long_are_counted_in_one_error() -> None:
    said = r"2 of 3 records of mine to train on have more than 9 tokens.*the longest: 13\).*task\.max_length, or cut"
    with pytest.raises(InputError, match=said):
        encode_records(records(*LONG), with_bos(), spec(max_length=9), train=True)


def test_the_models_own_limit_holds_too() -> None:
    tokenizer = with_bos()
    tokenizer.model_max_length = 9
    with pytest.raises(InputError, match=r"2 of 3 .*the model takes no more than 9; cut prompts .*task\.truncate=true"):
        encode_records(records(*LONG), tokenizer, spec(max_length=512), train=True)


@pytest.mark.parametrize(("new", "long"), [(2, 1), (5, 2), (6, 3)])
def test_a_test_record_needs_room_for_its_choices_and_for_what_is_generated(new: int, long: int) -> None:
    data = records(*({**row, "output": ""} for row in LONG))
    given = spec(max_length={2: 10, 5: 10, 6: 9}[new], max_new_tokens=new)
    with pytest.raises(InputError, match=rf"{long} of 3 records of mine to test on .*room for its answer"):
        encode_records(data, with_bos(), given, train=False)


@pytest.mark.parametrize("train", [True, False])
def test_truncation_takes_tokens_from_the_left_and_the_first_stays(train: bool) -> None:
    row = {**ROW, "instruction": "the cat sees red blue"}
    (found,) = encode_records(records(row), with_bos(), spec(max_length=6, truncate=True), train=train)
    assert words(found["input_ids"]) == "[CLS] red blue a dog [SEP]" and found["prompt_length"] == 3


def test_truncation_leaves_room_for_what_is_generated() -> None:
    row = {**ROW, "instruction": "the cat sees red blue", "output": ""}
    given = spec(max_length=6, truncate=True, max_new_tokens=4)
    (found,) = encode_records(records(row), with_bos(), given, train=False)
    assert words(found["input_ids"]) == "[CLS] blue"


def test_an_output_that_is_too_long_alone_is_cut_at_its_end() -> None:
    row = {**ROW, "output": "a red bird eats a small fish"}
    (found,) = encode_records(records(row), with_bos(), spec(max_length=6, truncate=True), train=True)
    assert words(found["input_ids"]) == "[CLS] sees a red bird eats" and found["prompt_length"] == 2


def test_the_first_token_of_a_chat_stays_too() -> None:
    tokenizer = with_bos()
    tokenizer.chat_template = CHAT
    given = spec(max_length=6, truncate=True, prompt="chat")
    (found,) = encode_records(records(ROW), tokenizer, given, train=True)
    assert words(found["input_ids"]) == "[CLS] sees bird a dog [SEP]"


def test_a_limit_that_leaves_no_prompt_is_refused() -> None:
    given = spec(max_length=5, truncate=True, max_new_tokens=4)
    with pytest.raises(InputError, match=r"mine: 5 tokens leave no room for a prompt.*lower task\.max_new_tokens"):
        encode_records(records(ROW), with_bos(), given, train=False)


def test_an_empty_data_set_stays_empty() -> None:
    assert len(encode_records(records(ROW).select([]), with_bos(), spec(), train=False)) == 0
