"""Scores of causal language models: likelihood of given answers, and answers read out of what they generate."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from morenas.base import processes
from morenas.base.errors import RunError
from morenas.finetune.evaluate import by_length
from morenas.tasks.answers import extract_answer, same_answer
from morenas.tasks.load import RECORDS
from morenas.tasks.metrics import score
from morenas.tasks.prompts import IGNORED, encode_records
from morenas.tasks.records import PROMPT, check_records, known_choices
from morenas.tasks.sources.raw import Table
from morenas.tasks.spec import TaskSpec

Continuation = tuple[Sequence[int], int]
"""Token ids, and where those begin that are scored."""


@dataclass(frozen=True)
class LanguageScorer:
    """Scores records, from ``morenas.tasks.prompts.encode_records``.

    Attributes:
        metrics: "accuracy" (the most likely choice is the right one), "log_likelihood" (mean over the output's tokens),
            "generated_accuracy" (the answer read out of greedily generated text is the right one), or a registered
            metric of generated texts and expected answers.
        answer: How an answer is read: "choice", "number", "letter" or "text".
        tokenizer: That of the model, with a pad token.
        max_new_tokens: Tokens generated at most.
    """

    tokenizer: PreTrainedTokenizerBase
    metrics: Sequence[str]
    answer: str = "choice"
    max_new_tokens: int = 32

    def __call__(
        self, model: nn.Module, dataset: Dataset, batch_size: int = 64, bf16: bool = False
    ) -> dict[str, float]:
        """The metrics of a model on a data set.

        Raises:
            RunError: If a likelihood is not finite.
        """
        training = model.training
        model.eval()
        try:
            with torch.autocast(_device(model).type, torch.bfloat16, enabled=bf16):
                return self._scores(model, dataset, batch_size)
        finally:
            model.train(training)

    def _scores(self, model: nn.Module, dataset: Dataset, batch_size: int) -> dict[str, float]:
        """All metrics; those of generated text share one generation, made when the first of them is due."""
        likelihoods = {"accuracy": self._accuracy, "log_likelihood": self._log_likelihood}
        texts: list[str] | None = None
        scores = {}
        for name in self.metrics:
            if name in likelihoods:
                scores[name] = likelihoods[name](model, dataset, batch_size)
                continue
            if texts is None:
                texts = generate(model, _prompts(dataset), self.tokenizer, self.max_new_tokens, batch_size)
            generated = name == "generated_accuracy"
            scores[name] = self._read_out(texts, dataset) if generated else score(name, texts, list(dataset["answer"]))
        return scores

    def _accuracy(self, model: nn.Module, dataset: Dataset, batch_size: int) -> float:
        choices = list(dataset["choice_ids"])
        continuations = [
            ([*prompt, *ids], len(prompt))
            for prompt, own in zip(_prompts(dataset), choices, strict=True)
            for ids in own
        ]
        totals = iter(log_likelihoods(model, continuations, self.tokenizer, batch_size))
        chosen = [int(np.argmax([next(totals) for _ in own])) for own in choices]
        return float(np.mean(np.equal(chosen, dataset["correct"])))

    def _log_likelihood(self, model: nn.Module, dataset: Dataset, batch_size: int) -> float:
        continuations = list(zip(dataset["input_ids"], dataset["prompt_length"], strict=True))
        tokens = sum(len(ids) - start for ids, start in continuations)
        return float(log_likelihoods(model, continuations, self.tokenizer, batch_size).sum() / tokens)

    def _read_out(self, texts: Sequence[str], dataset: Dataset) -> float:
        """Share of the texts out of which the right answer is read."""
        right = [
            same_answer(extract_answer(text, self.answer, choices), expected, self.answer)
            for text, choices, expected in zip(texts, dataset["choices"], dataset["answer"], strict=True)
        ]
        return float(np.mean(right))


@torch.no_grad()
def log_likelihoods(
    model: nn.Module, continuations: Sequence[Continuation], tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> NDArray[np.float64]:
    """Log-likelihood of every continuation, summed over its tokens, in nats: shape ``(continuations,)``.

    Args:
        model: A causal language model, on the device to compute on.
        continuations: Token ids, of which those from the given place on are scored; it is at least 1.
        tokenizer: Of the model, with a pad token.
    Raises:
        RunError: If one is not finite.
    """
    totals, batches = np.zeros(len(continuations)), list(by_length([len(ids) for ids, _ in continuations], batch_size))

    def scored(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(_scored(model, [continuations[row] for row in rows], tokenizer).cpu())

    for rows, found in zip(batches, processes.collect(batches, scored), strict=True):
        totals[rows] = found
    if not np.isfinite(totals).all():
        raise RunError(
            f"{int((~np.isfinite(totals)).sum())} of {len(totals)} log-likelihoods are not finite; the training "
            "diverged: lower training.learning_rate."
        )
    return totals


def _scored(model: nn.Module, batch: Sequence[Continuation], tokenizer: PreTrainedTokenizerBase) -> Tensor:
    ids, mask = _padded([tokens for tokens, _ in batch], tokenizer, _device(model), "right")
    starts = torch.tensor([start for _, start in batch], device=ids.device)
    first = int(starts.min())
    logits = _logits(model, ids, mask, first - 1)[:, :-1].float()
    places = torch.arange(first, ids.shape[1], device=ids.device)
    scored = (places >= starts[:, None]) & mask[:, first:].bool()
    targets = ids[:, first:].masked_fill(~scored, IGNORED)
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
    return -losses.double().sum(dim=1) if ids.device.type != "mps" else -losses.sum(dim=1)


def _logits(model: nn.Module, ids: Tensor, mask: Tensor, start: int) -> Tensor:
    """Logits from place ``start`` on. Those before it are large and not needed; a model that can leaves them out."""
    if "logits_to_keep" not in inspect.signature(_base(model).forward).parameters:
        whole: Tensor = model(input_ids=ids, attention_mask=mask).logits
        return whole[:, start:]
    places = torch.arange(start, ids.shape[1], device=ids.device)
    kept: Tensor = model(input_ids=ids, attention_mask=mask, logits_to_keep=places).logits
    return kept


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """What a model greedily makes of every prompt of token ids, without special tokens, in the order of the prompts."""
    base, texts = _base(model), [""] * len(prompts)

    def made(rows: NDArray[np.int64]) -> list[str]:
        ids, mask = _padded([prompts[row] for row in rows], tokenizer, _device(model), "left")
        whole = base.generate(input_ids=ids, attention_mask=mask)
        return list(tokenizer.batch_decode(whole[:, ids.shape[1] :], skip_special_tokens=True))

    own, base.generation_config = base.generation_config, _greedy(base, tokenizer, max_new_tokens)
    try:
        batches = list(by_length([len(prompt) for prompt in prompts], batch_size))
        for rows, new in zip(batches, processes.collect(batches, made), strict=True):
            for row, text in zip(rows, new, strict=True):
                texts[row] = text
    finally:
        base.generation_config = own
    return texts


def _greedy(model: Any, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> GenerationConfig:
    """Greedy decoding. Of the model's own settings, which transformers would mix in, only the end tokens are kept."""
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(ends) or None,
        pad_token_id=int(tokenizer.pad_token_id),
    )


def _prompts(dataset: Dataset) -> list[list[int]]:
    return [ids[:length] for ids, length in zip(dataset["input_ids"], dataset["prompt_length"], strict=True)]


def _padded(
    rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, device: torch.device, side: str
) -> tuple[Tensor, Tensor]:
    """Token ids and their mask, both ``(rows, longest)``."""
    padded = tokenizer.pad({"input_ids": [list(row) for row in rows]}, padding_side=side, return_tensors="pt")
    return padded["input_ids"].to(device), padded["attention_mask"].to(device)


def _base(model: nn.Module) -> Any:
    """The transformers model, adapters in it: PEFT's wrapper has settings of its own."""
    return cast(Any, model).get_base_model() if hasattr(model, "get_base_model") else model


def _device(model: nn.Module) -> torch.device:
    """Where inputs go: the device of the embeddings, first of a model that is spread over several."""
    return next(model.parameters()).device


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
        records: ``{"instruction": …, "input": …, "answer": …}``. The input may be absent; ``log_likelihood`` needs an
            output too.
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
    scorer = LanguageScorer(tokenizer, task.metrics, answer, task.max_new_tokens)
    return scorer(model, encoded, batch_size, bf16)
