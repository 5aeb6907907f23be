"""Starts: where the logits begin, and what a start of one's own is given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from tiny_models import shallow
from tiny_search import SETTINGS, STARTS, search
from torch import Tensor

from morenas.base.errors import InputError
from morenas.search.settings import SearchSettings
from morenas.search.start import SpectralStart, WarmedUp
from morenas.selection import Evidence, budgeted


@dataclass(frozen=True)
class LastFirst:
    """Prefers the last choice of every group, in an open warm-up or not; keeps what it was given."""

    entropy: float = 0.2
    given: list[WarmedUp] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    open_warmup: ClassVar[bool] = False

    def __call__(self, warm: WarmedUp) -> list[Tensor]:
        self.given.append(warm)
        warm.supernet.mix(torch.full(warm.mixture.costs.shape, 1 / warm.mixture.costs.shape[1]))
        self.losses.append(float(warm.loss(0).detach()))
        scores = torch.arange(warm.mixture.costs.shape[1]).expand(warm.mixture.costs.shape).double()
        warm.mixture.start_at(scores, self.entropy)
        return [-scores]


@dataclass(frozen=True)
class OpenLastFirst(LastFirst):
    open_warmup: ClassVar[bool] = True


def entropy(probs: Tensor) -> float:
    return float(torch.special.entr(probs).sum(dim=-1).mean())


@pytest.mark.parametrize("wanted", [0.8, 1.2, 1.6])
def test_a_spectral_start_is_as_sure_of_its_scores_as_it_is_told(wanted: float) -> None:
    settings = replace(STARTS["spectral alone"], start=SpectralStart(entropy=wanted), arch_steps=0)
    outcome = search(shallow(), settings, budget=10**9)
    assert entropy(torch.softmax(outcome.logits, dim=-1)) == pytest.approx(wanted, abs=0.01)
    assert outcome.architecture.search["start"] == {"name": "spectral", "entropy": wanted}


def test_named_or_given_as_an_object_a_start_is_the_same() -> None:
    named = search(shallow(), STARTS["spectral"])
    given = search(shallow(), replace(STARTS["spectral"], start=SpectralStart()))
    assert torch.equal(named.logits, given.logits) and named.shapes == given.shapes


@pytest.mark.parametrize("kind", [LastFirst, OpenLastFirst])
def test_a_start_of_ones_own_is_called_once_between_warm_up_and_descent(kind: type[LastFirst]) -> None:
    start = kind()
    settings = replace(SETTINGS, start=start, sharing="per_nblocks", selection="budgeted")
    outcome = search(shallow(), settings, budget=10**9)
    (warm,) = start.given
    assert warm.steps == SETTINGS.steps and start.losses[0] > 0
    before, after = outcome.trajectory[SETTINGS.warmup - 1], outcome.trajectory[SETTINGS.warmup]
    torch.testing.assert_close(before, torch.full_like(before, 1 / before.shape[1]))
    assert bool((after.argmax(dim=1) == after.shape[1] - 1).all()) and entropy(after) < 0.7 * entropy(before)


def test_its_further_scores_come_to_the_selection() -> None:
    priors: list[Tensor] = []

    def select(evidence: Evidence) -> list[int]:
        priors.extend(evidence.priors)
        return budgeted(evidence)

    outcome = search(shallow(), replace(SETTINGS, start=LastFirst(), selection=select), budget=10**9)
    of_logits, of_start = priors
    assert torch.equal(of_logits, outcome.logits) and of_start.tolist() == [[0, -1, -2, -3, -4, -5, -6]] * len(of_start)
    assert outcome.architecture.search["selection"]["name"].startswith(f"{__name__}:")


def test_an_open_warm_up_may_be_the_whole_search_and_another_may_not() -> None:
    search(shallow(), replace(SETTINGS, start=OpenLastFirst(), sharing="per_nblocks", warmup=12))
    with pytest.raises(InputError, match="no architecture step"):
        SearchSettings(steps=12, warmup=12, start=LastFirst())
