"""A search whose warm-up has learnt nothing says so, with the way out; its rate may be ten times another's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_models import shallow, tiny_batch
from tiny_search import BUDGET, STARTS, search, tiny_space
from tiny_training import Recorder
from torch import Tensor

from morenas.models.heads import find_head
from morenas.search import learnt
from morenas.search.engine import SearchData, search_architecture
from morenas.search.learnt import Witness, constant_loss

ALONE = replace(STARTS["spectral alone"], steps=40, warmup=40, arch_steps=1, selection="budgeted")


class FirstToken:
    """Batches whose labels can be learnt: whether the first token's number is odd."""

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        batch = tiny_batch(size=16, seed=number)
        return batch | {"labels": batch["input_ids"][:, 0] % 2}


def witness(losses: list[float], labels: Tensor) -> Witness:
    """One that has seen a batch of equal size for every loss."""
    batches = [{"labels": part, "loss": torch.tensor(loss)} for part, loss in zip(labels, losses, strict=True)]
    seen = Witness(batches, lambda batch: batch["loss"])
    for number in range(len(batches)):
        assert float(seen(number)) == pytest.approx(losses[number])
    return seen


def test_a_constant_answer_has_the_entropy_of_classes_and_the_variance_of_numbers() -> None:
    classes = torch.tensor([0, 1, 1, 1] * 16)
    logits = torch.tensor([0.25, 0.75]).log().expand(len(classes), 2)
    assert constant_loss(classes) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, classes)))
    assert constant_loss(torch.tensor([1.0, 2.0, 6.0])) == pytest.approx((4 + 1 + 9) / 3)


@pytest.mark.parametrize(("losses", "nothing"), [([0.5, 0.6], False), ([0.6, 0.8], True), ([math.log(2)] * 2, True)])
def test_a_loss_no_lower_than_a_constant_answer_s_is_nothing_learnt(losses: list[float], nothing: bool) -> None:
    said = witness(losses, torch.tensor([0, 1] * 64).view(2, 64)).said(0.002)
    assert said["warm_loss"] == pytest.approx(sum(losses) / 2) and said["constant_loss"] == pytest.approx(math.log(2))
    assert ("search.learning_rate (now 0.002)" in str(said.get("learnt_nothing"))) == nothing


def test_few_examples_and_labels_of_every_token_say_nothing() -> None:
    assert witness([1.0], torch.tensor([[0, 1] * 31])).said(0.1) == {}
    assert witness([1.0], torch.zeros(1, 64, 5, dtype=torch.long)).said(0.1) == {}


def test_a_collapsed_search_says_so_to_the_observer_and_in_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    collapsed, sound = Recorder(), Recorder()
    few = replace(ALONE, steps=12, warmup=12, learning_rate=1.0)
    monkeypatch.setattr(learnt, "FEWEST", 8)  # examples; of so few steps a batch is looked at
    found = search(shallow(), few, observer=collapsed).architecture.search
    assert found["warm_loss"] >= found["constant_loss"]
    assert any("learnt nothing" in words for words in collapsed.messages)
    assert "search.learning_rate (now 1)" in found["learnt_nothing"]
    learning = replace(ALONE, learning_rate=2e-2)
    model, data = shallow(), SearchData(FirstToken(), FirstToken())
    space, head = tiny_space(model), find_head(model)
    found = search_architecture(model, data, space, BUDGET, learning, head, observer=sound).architecture.search
    assert found["warm_loss"] < found["constant_loss"]
    assert "learnt_nothing" not in found and not any("learnt nothing" in words for words in sound.messages)
