"""From texts to token ids."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset
from transformers import PreTrainedTokenizerBase


def encode(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, text_columns: Sequence[str], max_length: int
) -> Dataset:
    """Tokenize a data set, in its order.

    Args:
        dataset: With the text columns and ``label``.
        max_length: Tokens an example is cut to, the longer text of a pair first; the tokenizer's own limit holds too.
    Returns:
        Columns of the model's inputs (``input_ids``, ``attention_mask``, …) and ``labels``, not padded.
    """
    texts = [list(dataset[column]) for column in text_columns]
    limit = min(max_length, tokenizer.model_max_length)
    encoded = tokenizer(*texts, truncation=True, max_length=limit, padding=False, verbose=False)
    return Dataset.from_dict({**encoded, "labels": list(dataset["label"])})
