"""The open supernet bears the learning rates that an adapter bears."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from morenas.benchmark.planted import PlantedProblem
from morenas.search.acting import acting
from morenas.search.settings import SearchSettings
from morenas.search.start import open_weight
from morenas.space import Choice, build_space
from morenas.supernet import Supernet
from morenas.supernet.prepare import prepared

STEPS, RANK = 30, 4
PROBLEM = PlantedProblem("plain", 0)
ADAPTER = {name: Choice(1, RANK) for name in PROBLEM.space.modules}


def trained(rate: float, arrange: Callable[[Supernet], None], weight: float = 1.0) -> tuple[float, float]:
    """Loss before and after some steps of a supernet."""
    losses, batches = list[float](), PROBLEM.batches("search_train", 0)
    with prepared(PROBLEM.model, PROBLEM.space, "per_nblocks", 0, PROBLEM.head, weight) as (supernet, _):
        arrange(supernet)
        optimizer = torch.optim.AdamW(supernet.weights().values(), lr=rate)
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = PROBLEM.losses(PROBLEM.model, batches[step]).mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses[0], sum(losses[-5:]) / 5


@pytest.mark.parametrize("rate", [0.015, 0.15])
def test_over_a_tenfold_range_of_rates_it_learns_as_an_adapter_does(rate: float) -> None:
    before, after = trained(rate, Supernet.open, open_weight(PROBLEM.space, RANK))
    _, alone = trained(rate, lambda supernet: supernet.draw(ADAPTER))
    assert after < 0.5 * before and after < 1.1 * alone


def test_with_every_slot_at_weight_1_the_highest_of_these_rates_ruins_it() -> None:
    before, after = trained(0.15, Supernet.open)
    assert after > before


def test_all_slots_together_weigh_as_much_as_one_adapter_s() -> None:
    modules = {"a": (16, 16), "b": (16, 16)}
    assert open_weight(build_space(modules, [1, 2, 4, 8], [0, 1, 2, 4]), 4) == 4 / 16
    assert open_weight(build_space(modules, [1, 4], [0, 1]), 4) == 1.0


def test_what_is_opened_at_a_weight_is_written_out_with_it() -> None:
    changes = []
    for weight in (1.0, 0.25):
        with prepared(PROBLEM.model, PROBLEM.space, "per_nblocks", 0, PROBLEM.head, weight) as (supernet, _):
            layer = next(iter(supernet.layers.values()))
            torch.nn.init.normal_(layer.second, generator=torch.Generator().manual_seed(0))
            supernet.open()
            changes.append(layer.change())
            x = torch.ones(3, layer.first.shape[1])
            torch.testing.assert_close(layer(x) - layer.base(x), x @ layer.change().T, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(changes[1], 0.25 * changes[0])


def test_it_is_recorded_where_there_is_an_open_supernet() -> None:
    assert acting(SearchSettings(steps=12, warmup=8, open_rank=4.0))["open_rank"] == 4.0
    assert "open_rank" not in acting(SearchSettings(steps=12, warmup=4, start="level"))
