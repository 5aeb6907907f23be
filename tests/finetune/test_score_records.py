"""Records scored from a list: the same figures as in a run, and what is wrong with a record said by its number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import tiny_causal, tiny_tokenizer

import morenas
from morenas.base.errors import InputError

WORDS: dict[str, Any] = {"prompt": "plain", "continuation": "{answer}", "max_new_tokens": 3}
RECORDS = [
    {"instruction": f"is the {what} good", "input": "", "output": answer, "answer": answer}
    for what in ("cat", "dog", "bird", "fish")
    for answer in ("big", "small")
]


def score(records: list[dict[str, Any]], *metrics: str, **given: Any) -> dict[str, float]:
    return morenas.score_records(tiny_causal(), tokenizer(), records, metrics, **{**WORDS, **given})


def tokenizer() -> Any:
    found = tiny_tokenizer("llama")
    found.pad_token = found.eos_token
    return found


@torch.no_grad()
def likelihood(text: str, answer: str) -> float:
    """Of an answer and the end of the text after a prompt: nats, summed over tokens, by the definition."""
    words = tokenizer()
    ids = [words.bos_token_id] if words("a")["input_ids"][0] == words.bos_token_id else []
    ids += words(f"{text}\n", add_special_tokens=False)["input_ids"]
    after = [*words(answer, add_special_tokens=False)["input_ids"], words.eos_token_id]
    logs = tiny_causal()(input_ids=torch.tensor([ids + after])).logits[0].log_softmax(-1)
    return float(sum(logs[len(ids) - 1 + place, token] for place, token in enumerate(after)))


def test_the_choices_are_all_answers_there_are_and_the_likeliest_counts() -> None:
    right = [
        likelihood(record["instruction"], record["answer"])
        >= max(likelihood(record["instruction"], choice) for choice in ("big", "small"))
        for record in RECORDS
    ]
    found = score(RECORDS, "accuracy", "log_likelihood")
    assert found["accuracy"] == pytest.approx(sum(right) / len(right))
    told = [likelihood(record["instruction"], record["output"]) for record in RECORDS]
    assert found["log_likelihood"] == pytest.approx(sum(told) / (2 * len(told)), rel=1e-4)


def test_answers_are_read_out_of_generated_text() -> None:
    model, records = tiny_causal().train(), [{"instruction": "is it fast", "answer": "7"}]
    found = morenas.score_records(model, tokenizer(), records, ("generated_accuracy",), answer="number", **WORDS)
    assert found == {"generated_accuracy": 0.0}
    assert model.training


@pytest.mark.parametrize(
    ("records", "given", "said"),
    [
        ([], {}, "records: holds no examples"),
        ([{"instruction": "is it"}], {}, r"records: column 'answer' holds one answer only \(none\)"),
        (
            [RECORDS[0], {**RECORDS[1], "answer": ""}],
            {"choices": ("big", "small")},
            "records, row 1: the record has no answer",
        ),
        (RECORDS, {"choices": ("big", "red")}, "records, row 1: the answer 'small' is none of the record's choices"),
        (RECORDS, {"answer": "text"}, "'accuracy' is no metric of a generation task"),
        (RECORDS, {"max_length": 5}, "8 of 8 records of records to test on have more than 5 tokens"),
    ],
)
def test_a_record_that_cannot_be_scored_is_refused(
    records: list[dict[str, Any]], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        score(records, "accuracy", **given)
