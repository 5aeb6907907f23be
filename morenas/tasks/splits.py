"""Disjoint splits of the examples to train on: stratified, seeded, and never two copies of a text in two splits."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from morenas.base.errors import InputError

BINS = 10  # strata of a regression task, by quantile of the label


def content(example: Mapping[str, Any], text_columns: Sequence[str]) -> str:
    """The texts of an example without regard to white space, case and Unicode form: equal for copies of a text."""
    return "\x1f".join(" ".join(unicodedata.normalize("NFKC", example[c]).casefold().split()) for c in text_columns)


def split_examples(
    examples: Sequence[Mapping[str, Any]],
    text_columns: Sequence[str],
    fractions: Mapping[str, float],
    rest: str,
    seed: int,
    regression: bool = False,
) -> dict[str, list[int]]:
    """Split examples by content.

    The split of an example depends on the seed, the fractions and the set of texts in its stratum, not on the order
    of rows. Invariants: every example is in exactly one split; examples of equal content are in the same one.

    Args:
        examples: With the text columns and ``label``.
        fractions: Split to its share of each stratum.
        rest: Name of the split that takes the remaining examples.
    Returns:
        Split to row numbers, ascending.
    Raises:
        InputError: If a split would be empty.
    """
    rows = defaultdict(list)
    for index, example in enumerate(examples):
        rows[content(example, text_columns)].append(index)
    splits: dict[str, list[int]] = {name: [] for name in (*fractions, rest)}
    strata = _strata(examples, rows, regression)
    for texts in strata.values():
        texts.sort(key=lambda text: hashlib.sha256(f"{seed}\x1e{text}".encode()).digest())
        for name, share in _cut(texts, fractions, rest).items():
            splits[name].extend(index for text in share for index in rows[text])
    for name, indices in splits.items():
        if not indices:
            raise InputError(f"The split '{name}' is empty: {_why_empty(examples, strata, fractions, regression)}")
    return {name: sorted(indices) for name, indices in splits.items()}


def sample_examples(
    examples: Sequence[Mapping[str, Any]], text_columns: Sequence[str], size: int, seed: int, regression: bool = False
) -> list[int]:
    """Row numbers of a stratified sample of about ``size`` examples, ascending."""
    if size >= len(examples):
        return list(range(len(examples)))
    share = size / len(examples)
    try:
        return split_examples(examples, text_columns, {"sample": share}, "rest", seed, regression)["sample"]
    except InputError as error:
        raise InputError(
            f"task.max_examples={size}: too few to have an example of every class; ask for more."
        ) from error


def _why_empty(
    examples: Sequence[Mapping[str, Any]],
    strata: Mapping[Any, Sequence[str]],
    fractions: Mapping[str, float],
    regression: bool,
) -> str:
    """What is too little: classes of so few texts that none of them reaches the split, or texts in all."""
    distinct, least = sum(map(len, strata.values())), min(fractions.values())
    counted = f"{len(examples)} examples with {distinct} distinct texts"
    largest = max(map(len, strata.values()), default=0)
    if not regression and len(strata) > 1 and distinct * least >= 1 and round(largest * least) < 1:
        needed = next(count for count in range(1, distinct + 1) if round(count * least) >= 1)
        return (
            f"{counted} are in {len(strata)} classes, the largest of {largest}. Each class is split by itself, and one "
            f"of fewer than {needed} texts leaves nothing for a fraction of {least:g}; give more examples of each "
            "class, join rare classes, or ask for larger fractions (task.search_val, task.select)."
        )
    return f"{counted} are too few for fractions {dict(fractions)}; give more examples or other fractions."


def _strata(
    examples: Sequence[Mapping[str, Any]], rows: Mapping[str, list[int]], regression: bool
) -> dict[Any, list[str]]:
    """Texts by label, or by quantile bin of the label; where copies disagree, by the smallest of their labels."""
    labels = {text: min(examples[index]["label"] for index in indices) for text, indices in rows.items()}
    if regression:
        order = sorted(labels, key=lambda text: (labels[text], text))
        labels = {text: rank * BINS // len(order) for rank, text in enumerate(order)}
    strata = defaultdict(list)
    for text, stratum in labels.items():
        strata[stratum].append(text)
    return dict(sorted(strata.items()))


def _cut(texts: list[str], fractions: Mapping[str, float], rest: str) -> dict[str, list[str]]:
    cut, start = {}, 0
    for name, fraction in fractions.items():
        size = round(fraction * len(texts))
        cut[name] = texts[start : start + size]
        start += size
    return {**cut, rest: texts[start:]}
