"""Scores of language models, against passes of one record at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_models import CAUSAL, tiny_causal, tiny_tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from morenas.base.errors import RunError
from morenas.finetune.language import LanguageScorer, generate, log_likelihoods
from morenas.tasks.prompts import encode_records
from morenas.tasks.spec import TaskSpec

ANSWERS = ("red", "blue", "cat or dog")
SPEC = TaskSpec(
    "colors",
    ("instruction", "input"),
    ("accuracy", "generated_accuracy", "log_likelihood"),
    kind="choice",
    source="demo",
    choices=ANSWERS,
    continuation="it is {answer}",
    prompt="plain",
)


def records(count: int = 7) -> Dataset:
    """Records whose prompts have one to seven words."""
    words = ["the", "cat", "sees", "a", "red", "bird", "and"]
    return Dataset.from_list(
        [
            {
                "instruction": " ".join(words[: number + 1]),
                "input": "",
                "output": f"it is {ANSWERS[number % 3]}",
                "answer": ANSWERS[number % 3],
                "choices": list(ANSWERS),
                "label": number % 3,
            }
            for number in range(count)
        ]
    )


def tokenizer(family: str) -> PreTrainedTokenizerBase:
    made = tiny_tokenizer(family)
    made.pad_token = made.pad_token or made.eos_token
    return made


def by_hand(model: PreTrainedModel, prompt: list[int], continuation: list[int]) -> float:
    ids = torch.tensor([[*prompt, *continuation]])
    with torch.no_grad():
        logs = model(input_ids=ids).logits.double().log_softmax(-1)[0]
    return sum(float(logs[len(prompt) - 1 + place, token]) for place, token in enumerate(continuation))


@pytest.mark.parametrize("family", CAUSAL)
def test_likelihoods_are_those_of_each_record_alone(family: str) -> None:
    model, encoded = tiny_causal(family), encode_records(records(), tokenizer(family), SPEC, train=False)
    scorer = LanguageScorer(tokenizer(family), ("accuracy", "log_likelihood"))
    expected, total, tokens = [], 0.0, 0
    for row in encoded:
        prompt, output = row["input_ids"][: row["prompt_length"]], row["input_ids"][row["prompt_length"] :]
        scores = [by_hand(model, prompt, ids) for ids in row["choice_ids"]]
        expected.append(int(np.argmax(scores)) == row["correct"])
        total, tokens = total + by_hand(model, prompt, output), tokens + len(output)
    found = scorer(model, encoded, batch_size=3)
    assert found["accuracy"] == np.mean(expected)
    assert found["log_likelihood"] == pytest.approx(total / tokens, abs=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_what_is_generated_in_batches_is_what_is_generated_alone(family: str) -> None:
    model, words = tiny_causal(family), tokenizer(family)
    prompts = [row["input_ids"][: row["prompt_length"]] for row in encode_records(records(), words, SPEC, train=False)]
    together = generate(model, prompts, words, 5, batch_size=3)
    alone = [generate(model, [prompt], words, 5, batch_size=1)[0] for prompt in prompts]
    assert together == alone
    assert len(set(alone)) > 1


def test_the_answer_read_out_of_generated_text_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["it is red", "it is red", "well cat or dog", "no answer", "BLUE.", "it is", "it is red or blue"]
    monkeypatch.setattr("morenas.finetune.language.generate", lambda *given: said)
    encoded = encode_records(records(), tokenizer("llama"), SPEC, train=False)
    scorer = LanguageScorer(tokenizer("llama"), ("generated_accuracy",))
    assert scorer(tiny_causal("llama"), encoded) == {"generated_accuracy": pytest.approx(4 / 7)}


def test_the_mode_of_the_model_and_the_random_state_are_kept() -> None:
    model, encoded = tiny_causal("gpt2").train(), encode_records(records(), tokenizer("gpt2"), SPEC, train=False)
    state = torch.random.get_rng_state()
    scorer = LanguageScorer(tokenizer("gpt2"), SPEC.metrics, max_new_tokens=3)
    first, second = scorer(model, encoded), scorer(model, encoded)
    assert first == second and set(first) == set(SPEC.metrics)
    assert model.training and torch.equal(state, torch.random.get_rng_state())


def test_generation_is_greedy_whatever_the_model_was_saved_with() -> None:
    model, words = tiny_causal("llama"), tokenizer("llama")
    plain = generate(model, [[5, 6, 7]], words, 6, 1)
    model.generation_config.update(do_sample=True, temperature=3.0, num_beams=4, max_new_tokens=1)
    assert generate(model, [[5, 6, 7]], words, 6, 1) == plain


def test_likelihoods_that_are_not_finite_are_refused() -> None:
    model = tiny_causal("llama")
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(RunError, match="2 of 2 log-likelihoods are not finite"):
        log_likelihoods(model, [([5, 6, 7], 1), ([5, 6], 1)], tokenizer("llama"), 2)


def test_logits_before_the_first_that_is_read_are_not_made() -> None:
    model: Any = tiny_causal("llama")
    widths: list[int] = []
    model.lm_head.register_forward_hook(lambda module, given, output: widths.append(output.shape[1]))
    log_likelihoods(model, [([5, 6, 7, 8, 9, 10], 4), ([5, 6, 7, 8, 9], 4)], tokenizer("llama"), 2)
    assert widths == [3]
