"""From texts to token ids."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from morenas.base.errors import InputError


def encode(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, text_columns: Sequence[str], max_length: int
) -> Dataset:
    """Tokenize a data set, in its order; the texts of a pair are kept apart by a special token, else by a line end.

    Args:
        dataset: With the text columns and ``label``.
        max_length: Tokens an example is cut to, the longer text of a pair first; the tokenizer's own limit holds too.
    Returns:
        Columns of the model's inputs (``input_ids``, ``attention_mask``, …) and ``labels``, not padded.
    Raises:
        InputError: If the tokenizer's special tokens alone fill ``max_length``.
    """
    texts = [list(dataset[column]) for column in text_columns]
    limit = min(max_length, tokenizer.model_max_length)
    special = tokenizer.num_special_tokens_to_add(pair=len(texts) == 2)
    if limit <= special:
        raise InputError(
            f"task.max_length={max_length}: the tokenizer adds {special} tokens of its own to an example, so no text "
            f"would be left; at least {special + 1}."
        )
    if len(texts) == 2 and not _marks_pairs(tokenizer):
        texts[1] = ["\n" + text for text in texts[1]]
    encoded = tokenizer(*texts, truncation=True, max_length=limit, padding=False, verbose=False)
    return Dataset.from_dict({**encoded, "labels": list(dataset["label"])})


def _marks_pairs(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a special token stands between the texts of a pair; GPT-2's and Qwen2's tokenizers put none there."""
    return tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False)
