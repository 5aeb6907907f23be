"""A search small enough for a test: its settings, data and space."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from tiny_models import shallow, tiny_batch
from torch import Tensor, nn

from morenas import search_architecture
from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.search.engine import SearchOutcome, SearchSettings
from morenas.space import SearchSpace, build_space

SETTINGS = SearchSettings(
    steps=12, warmup=4, start="level", sharing="full", selection="budgeted", learning_rate=5e-3, checkpoint_every=3
)
"""A bilevel search from logits of zero."""
STARTS = {
    "level": SETTINGS,
    "spectral": SearchSettings(steps=12, warmup=8, learning_rate=5e-3, checkpoint_every=3),
    "spectral alone": SearchSettings(steps=12, warmup=12, learning_rate=5e-3, checkpoint_every=3),
}
starts = pytest.mark.parametrize("settings", STARTS.values(), ids=STARTS)
BUDGET = 300


class TinyBatches:
    """Batches that are a pure function of their number."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def __getitem__(self, number: int) -> Mapping[str, Tensor]:
        return tiny_batch(size=8, seed=self.offset + number)


def tiny_space(model: nn.Module, granularity: str = "module") -> SearchSpace:
    return build_space(target_linears(model, "all-linear", find_head(model)), [1, 2, 4], [0, 1, 2], granularity)


def search(model: nn.Module, settings: SearchSettings = SETTINGS, **given: Any) -> SearchOutcome:
    arguments = {"head": find_head(model), "space": tiny_space(model), "budget": BUDGET, **given}
    return search_architecture(model, TinyBatches(0), TinyBatches(1000), settings=settings, **arguments)


@cache
def found(settings: SearchSettings) -> SearchOutcome:
    """What a search of a tiny classifier finds, for tests that only look at it; searched once for all of them."""
    return search(shallow(), settings)
