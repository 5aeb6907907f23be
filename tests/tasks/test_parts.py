"""The parts of a batch add up to it, whatever their sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from morenas.tasks.batches import Batch
from morenas.tasks.parts import Parts, size
from morenas.tasks.prompts import IGNORED


def batch(examples: int, labels: Tensor) -> Batch:
    return {"input_ids": torch.arange(examples * 3).view(examples, 3), "labels": labels}


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
@pytest.mark.parametrize("examples", [1, 4, 7])
def test_the_weighted_mean_over_the_parts_is_the_mean_over_the_batch(examples: int, parts: int) -> None:
    whole = batch(examples, torch.arange(examples).double())
    cut = Parts([whole, whole], parts)
    for number in range(2):
        places = range(number * parts, (number + 1) * parts)
        assert torch.equal(torch.cat([cut[place]["input_ids"] for place in places]), whole["input_ids"])
        there = [place for place in places if size(cut[place])]
        mean = sum(cut.weight(place) * float(cut[place]["labels"].mean()) for place in there) / parts
        assert mean == pytest.approx(float(whole["labels"].mean()), rel=1e-15)


def test_tokens_without_a_label_do_not_count() -> None:
    labels = torch.tensor([[1, 2, 0], [IGNORED, IGNORED, 2], [0, IGNORED, 1], [IGNORED, 1, IGNORED]])
    logits = torch.randn(4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = {**batch(4, labels), "logits": logits}
    cut = Parts([whole], 2)

    def loss(one: Batch) -> Tensor:
        return cross_entropy(one["logits"].flatten(0, 1), one["labels"].flatten(), ignore_index=IGNORED)

    mean = (cut.weight(0) * loss(cut[0]) + cut.weight(1) * loss(cut[1])) / 2
    torch.testing.assert_close(mean, loss(whole))
