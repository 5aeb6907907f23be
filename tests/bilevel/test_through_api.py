"""Hypergradients in a whole search, as ``morenas.search_architecture`` sets it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from bilevel.estimators import HYPERGRADIENTS
from grids import in_turn
from tiny_models import shallow, tiny_batch
from tiny_training import Recorder
from torch import Tensor, nn

from morenas import search_architecture
from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.search.engine import SearchOutcome, SearchSettings
from morenas.space import build_space

SETTINGS = SearchSettings(
    steps=12, warmup=4, start="level", sharing="full", selection="budgeted", learning_rate=5e-3, checkpoint_every=3
)
AHEAD = ["unrolled", "neumann"]


class TinyBatches:
    def __init__(self, offset: int) -> None:
        self.offset = offset

    def __getitem__(self, number: int) -> Mapping[str, Tensor]:
        return tiny_batch(size=8, seed=self.offset + number)


def plain_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    loss: Tensor = model(**batch).loss
    return loss


class Search:
    """A search of a tiny classifier whose loss notes, of every pass, whether it is of weights and under autocast.

    Passes that measure alone, without gradients, are left out.
    """

    def __init__(self) -> None:
        self.passes: list[tuple[bool, bool]] = []

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        if torch.is_grad_enabled():
            self.passes.append((model.training, torch.is_autocast_enabled("cpu")))
        return plain_loss(model, batch)

    def run(
        self, settings: SearchSettings, checkpoint: Path | None = None, observer: Recorder | None = None
    ) -> SearchOutcome:
        model = shallow()
        space = build_space(target_linears(model, "all-linear", find_head(model)), [1, 2, 4], [0, 1, 2])
        return search_architecture(
            model,
            TinyBatches(0),
            TinyBatches(1000),
            space,
            300,
            settings,
            head=find_head(model),
            loss=self.loss,
            checkpoint=checkpoint,
            observer=observer or Recorder(),
        )


@cache
def whole_search(settings: SearchSettings) -> SearchOutcome:
    """What a search that was never stopped finds, once for all tests."""
    return Search().run(settings)


@in_turn(name=sorted(HYPERGRADIENTS), relaxation=["softmax", "gumbel"])
def test_a_search_by_each_moves_all_logits_and_not_as_first_order_does(name: str, relaxation: str) -> None:
    usual = replace(SETTINGS, relaxation=relaxation, gradient_accumulation=2)
    found = Search().run(replace(usual, hypergradient=name))
    assert torch.isfinite(found.logits).all() and (found.logits != 0).all()
    assert torch.equal(found.logits, whole_search(usual).logits) == (name == "first_order")


@pytest.mark.parametrize("name", ["mixed_level", *AHEAD])
def test_stopped_and_resumed_it_finds_the_same_bit_for_bit(name: str, tmp_path: Path) -> None:
    class Stopping(Recorder):
        def step(self, phase: str, step: int, metrics: Mapping[str, float] | None = None) -> None:
            if step == 8:
                raise KeyboardInterrupt

    settings, checkpoint = replace(SETTINGS, hypergradient=name), tmp_path / "search.safetensors"
    with pytest.raises(KeyboardInterrupt):
        Search().run(settings, checkpoint, Stopping())
    whole, parts = Search().run(settings), Search().run(settings, checkpoint)
    assert torch.equal(parts.logits, whole.logits) and torch.equal(parts.trajectory, whole.trajectory)
    for adapter in whole.factors:
        pairs = zip(parts.factors[adapter], whole.factors[adapter], strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("name", "precise"), [("first_order", 0), ("mixed_level", 0), ("unrolled", 2), ("neumann", 16)]
)
def test_under_bfloat16_only_the_probes_of_finite_differences_leave_autocast(name: str, precise: int) -> None:
    search = Search()
    search.run(replace(SETTINGS, hypergradient=name, bf16=True))
    upper_steps = 4
    assert search.passes.count((True, False)) == precise * upper_steps
    assert search.passes.count((False, False)) == 0
    assert search.passes.count((False, True)) == upper_steps
