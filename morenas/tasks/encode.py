"""From texts to token ids, and from those to batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from morenas.base.errors import InputError
from morenas.base.seeds import derive
from morenas.tasks.batches import Epochs
from morenas.tasks.prompts import IGNORED
from morenas.tasks.spelling import check_spelling, marks_of

POOL = 50  # batches whose examples are sorted by length together


def encode(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, text_columns: Sequence[str], max_length: int
) -> Dataset:
    """Tokenize a data set, in its order. Between the texts of a pair stands a special token, or a line end without one.

    Args:
        dataset: With the text columns and ``label``.
        max_length: Tokens an example is cut to, the longer text of a pair first; never above the tokenizer's limit.
    Returns:
        Columns of the model's inputs (``input_ids``, ``attention_mask``, …) and ``labels``, not padded.
    Raises:
        InputError: If the tokenizer's special tokens alone fill ``max_length``, or a text spells one of them.
    """
    texts = [list(dataset[column]) for column in text_columns]
    check_spelling(marks_of(tokenizer), *texts)
    limit = min(max_length, tokenizer.model_max_length)
    special = tokenizer.num_special_tokens_to_add(pair=len(texts) == 2)
    if limit <= special:
        raise InputError(
            f"task.max_length={max_length}: the tokenizer adds {special} tokens of its own to an example, so no text "
            f"would be left; set at least {special + 1}."
        )
    if len(texts) == 2 and not _marks_pairs(tokenizer):
        texts[1] = ["\n" + text for text in texts[1]]
    encoded = tokenizer(*texts, truncation=True, max_length=limit, padding=False, verbose=False)
    return Dataset.from_dict({**encoded, "labels": list(dataset["label"])})


class EncodedBatches(Epochs[NDArray[np.int64]]):
    """Batches of an encoded data set, shuffled anew each epoch and grouped by length.

    Invariants: ``batches[number]`` depends on the data, the batch size, the seed and the number alone, so a resumed
    run needs no other state; every epoch of ``steps_per_epoch`` batches holds every example once, its last examples
    in a smaller batch where the batch size does not divide their number.
    """

    def __init__(self, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, batch_size: int, seed: int) -> None:
        """Keep the examples of ``dataset``, from ``morenas.tasks.encode``, in memory."""
        padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        self._columns = {
            name: ([np.asarray(row, dtype=np.int64) for row in dataset[name]], padding.get(name, 0))
            for name in tokenizer.model_input_names
            if name in dataset.column_names
        }
        labels = list(dataset["labels"])
        self._label_of_example = None if isinstance(labels[0], list) else torch.tensor(labels)
        if self._label_of_example is None:
            self._columns["labels"] = ([np.asarray(row, dtype=np.int64) for row in labels], IGNORED)
        self._lengths = np.array([len(row) for row in self._columns["input_ids"][0]])
        self._batch_size, self._seed = batch_size, seed
        super().__init__(math.ceil(len(self._lengths) / batch_size))

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """The model's inputs, each ``(examples, longest)`` and padded on the right, and ``labels``.

        Labels are ``(examples,)``, or of tokens ``(examples, longest)``.
        """
        rows = self.rows(number)
        batch = {name: _pad([values[row] for row in rows], fill) for name, (values, fill) in self._columns.items()}
        if self._label_of_example is not None:
            batch["labels"] = self._label_of_example[torch.from_numpy(rows)]
        return batch

    def order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Batches of like lengths, in random order."""
        generator = np.random.default_rng(derive(self._seed, "epoch", epoch))
        shuffled = generator.permutation(len(self._lengths))
        pool = POOL * self._batch_size
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(shuffled), pool):
            part = shuffled[start : start + pool]
            part = part[np.argsort(-self._lengths[part], kind="stable")]
            batches.extend(part[at : at + self._batch_size] for at in range(0, len(part), self._batch_size))
        return [batches[index] for index in generator.permutation(len(batches))]


def _marks_pairs(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a special token stands between the texts of a pair; GPT-2's and Qwen2's tokenizers put none there."""
    return tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False)


def _pad(rows: list[NDArray[np.int64]], fill: int) -> Tensor:
    padded = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(padded)
