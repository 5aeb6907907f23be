"""Scores of a model on a data set; predictions of a classifier, in the data set's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from morenas.base import processes
from morenas.base.errors import RunError

Metrics = Callable[[NDArray[Any], NDArray[Any]], Mapping[str, float]]
"""From logits ``(examples, num_labels)`` and labels ``(examples,)`` to named metrics, higher is better."""


class Scorer(Protocol):
    """From a model, an encoded data set, a batch size and whether to autocast to bfloat16, to named metrics."""

    def __call__(
        self, model: nn.Module, dataset: Dataset, batch_size: int = ..., bf16: bool = ...
    ) -> dict[str, float]: ...


@dataclass(frozen=True)
class ClassifierScorer:
    """Scores of a sequence classifier."""

    tokenizer: PreTrainedTokenizerBase
    metrics: Metrics

    def __call__(
        self, model: nn.Module, dataset: Dataset, batch_size: int = 64, bf16: bool = False
    ) -> dict[str, float]:
        """The metrics of a model on a data set.

        Raises:
            RunError: If a prediction is not finite.
        """
        logits = predict(model, dataset, self.tokenizer, batch_size, bf16)
        finite = np.asarray(np.isfinite(logits).all(axis=1))
        if not finite.all():
            raise RunError(
                f"{int((~finite).sum())} of {len(finite)} predictions are not finite (the first is row "
                f"{int(np.argmin(finite))}); the training diverged: lower training.learning_rate."
            )
        return {name: float(value) for name, value in self.metrics(logits, np.asarray(dataset["labels"])).items()}


@torch.no_grad()
def predict(
    model: nn.Module,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int = 64,
    bf16: bool = False,
) -> NDArray[np.float32]:
    """Return the logits of every example, ``(examples, num_labels)``.

    Examples of like length share a batch, so that little is padding. The model is left in the mode it was in. Several
    processes share the batches.

    Args:
        model: On the device to compute on.
        dataset: From ``morenas.tasks.encode``.
        batch_size: Examples per batch.
        bf16: Autocast to bfloat16.
    """
    device = next(model.parameters()).device
    columns = [column for column in tokenizer.model_input_names if column in dataset.column_names]
    inputs = dataset.select_columns(columns)
    training = model.training
    model.eval()
    rows = list(by_length([len(ids) for ids in dataset["input_ids"]], batch_size))

    def logits_of(batch_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        batch = tokenizer.pad(inputs[batch_rows.tolist()], return_tensors="pt").to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return np.asarray(model(**batch).logits.float().cpu())

    logits = processes.collect(rows, logits_of)
    model.train(training)
    return np.concatenate(logits)[np.argsort(np.concatenate(rows), kind="stable")]


def by_length(lengths: Sequence[int], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers in batches of similar length, longest first, so that too little memory shows at once."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    yield from (order[start : start + batch_size] for start in range(0, len(order), batch_size))
