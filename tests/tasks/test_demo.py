"""The demo: its language, its task, and the packaged encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

import morenas
from morenas.tasks.sources.demo import DATA_SEED, TEST, TRAIN, WORD_KINDS, WORDS, demo_examples

ASSETS = Path(morenas.__file__).parent / "assets" / "demo"


def test_the_same_seed_gives_the_same_examples_and_another_gives_others() -> None:
    assert demo_examples(DATA_SEED) == demo_examples(DATA_SEED)
    assert demo_examples(DATA_SEED, 10, 10) != demo_examples(DATA_SEED + 1, 10, 10)


def test_labels_are_balanced_and_say_whether_the_premise_states_the_hypothesis() -> None:
    train, test = demo_examples(DATA_SEED)
    assert (len(train), len(test)) == (TRAIN, TEST)
    for rows in (train, test):
        assert sum(row["label"] for row in rows) * 2 == len(rows)
        assert all((row["hypothesis"] in row["premise"]) == bool(row["label"]) for row in rows)


def test_no_premise_occurs_twice() -> None:
    train, test = demo_examples(DATA_SEED)
    assert len({row["premise"] for row in [*train, *test]}) == TRAIN + TEST


def test_a_hypothesis_alone_tells_nothing() -> None:
    """Every word is about as frequent in true hypotheses as in false ones."""
    train, _ = demo_examples(DATA_SEED, 20_000, 2)
    for word in (word for kind in WORD_KINDS for word in kind):
        counts = [sum(word in row["hypothesis"].split() for row in train if row["label"] == label) for label in (0, 1)]
        assert counts[0] == pytest.approx(counts[1], abs=5 * sum(counts) ** 0.5)


def test_the_packaged_encoder_is_small_and_knows_every_word() -> None:
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) <= 3_000_000
    tokenizer = AutoTokenizer.from_pretrained(ASSETS)
    assert tokenizer.unk_token_id not in tokenizer(" ".join(WORDS))["input_ids"]


def test_the_packaged_encoder_holds_finite_half_precision_weights() -> None:
    model = AutoModelForMaskedLM.from_pretrained(ASSETS, dtype="auto")
    weights = list(model.roberta.parameters())
    assert {weight.dtype for weight in weights} == {torch.float16}
    assert all(torch.isfinite(weight).all() and weight.float().std() > 0 for weight in weights if weight.ndim > 1)
