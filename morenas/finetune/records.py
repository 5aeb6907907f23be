"""Scores of anybody's causal language model on records: no files, no task, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from morenas.finetune.language import LanguageScorer
from morenas.tasks.load import RECORDS
from morenas.tasks.prompts import encode_records
from morenas.tasks.records import PROMPT, check_records, known_choices
from morenas.tasks.sources.raw import Table
from morenas.tasks.spec import TaskSpec


def score_records(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Mapping[str, Any]],
    metrics: Sequence[str] = ("accuracy",),
    answer: str = "choice",
    batch_size: int = 16,
    bf16: bool = False,
    **spec: Any,
) -> dict[str, float]:
    """Score a causal language model, with an adapter or without, on records of instruction, input, output and answer.

    Args:
        model: On the device to compute on; its mode is left as it was.
        tokenizer: Of the model, with a pad token.
        records: ``{"instruction": …, "input": …, "answer": …}``, the input where there is one, and an output where
            ``log_likelihood`` is asked for.
        metrics: "accuracy" (the likeliest of the choices is the right one), "generated_accuracy" (the answer read out
            of greedily generated text is) and "log_likelihood" (of the output, nats a token).
        answer: How an answer is read: "choice", "number", "letter" or "text".
        batch_size: Texts scored at once.
        bf16: Compute in bfloat16 autocast.
        spec: Any other field of ``morenas.tasks.TaskSpec``: ``choices`` (default: all answers there are),
            ``continuation``, ``prompt``, ``max_length`` and ``max_new_tokens`` (tokens), ``truncate``.
    Returns:
        Metric to value.
    Raises:
        InputError: If a record is wrong or too long, naming it, or a metric does not fit the answer.
    """
    kind = "choice" if answer == "choice" else "generation"
    # Of a source that reads nothing: the records are here.
    task = TaskSpec("records", PROMPT, tuple(metrics), kind=kind, source="demo", answer=answer, **spec)
    table = Table("records", [dict(record) for record in records])
    rows = check_records(task, table, known_choices(task, table), train=False)
    encoded = encode_records(Dataset.from_list(rows, RECORDS), tokenizer, task, train=False)
    score = LanguageScorer(tokenizer, task.metrics, answer, task.max_new_tokens)
    return score(model, encoded, batch_size, bf16)
