"""Controls that share ranks out by one ranking: PARA, EVA's ranks and Fisher ranks, against closed forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from peft.utils.incremental_pca import IncrementalPCA
from torch import Tensor, nn

from morenas.benchmark.alone import mean_loss
from morenas.benchmark.methods import para
from morenas.benchmark.methods.eva import SAMPLED, eva_ranks, explained
from morenas.benchmark.methods.fisher import fisher_ranks
from morenas.benchmark.methods.para import cut_lora, shortened, spectrum
from morenas.benchmark.methods.ranked import cut
from morenas.benchmark.planted import PlantedProblem
from morenas.benchmark.problem import Problem, cost
from morenas.benchmark.tabular import TabularTask
from morenas.search.objective import FORWARD

WIDTHS = {"wide": 12, "narrow": 4}


class Apart(nn.Module):
    """Two linear layers, each of its own part of the input, that share an output."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = (nn.Linear(width, 4, bias=False) for width in WIDTHS.values())

    def forward(self, x: Tensor) -> Tensor:
        wide, narrow = x.split(list(WIDTHS.values()), dim=-1)
        out: Tensor = self.wide(wide) + self.narrow(narrow)
        return out


def apart(x: Tensor, y: Tensor, budget: int) -> Problem:
    """A problem of ``Apart`` with these examples in every batch."""

    def losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return (model(batch["x"]) - batch["y"]).square().mean(dim=1)

    modules = {name: (width, 4) for name, width in WIDTHS.items()}
    batches = [{"x": x, "y": y}] * SAMPLED
    given: dict[str, Any] = dict(model=Apart().requires_grad_(False), head=(), budget=budget, losses=losses)
    return cast(Problem, SimpleNamespace(space=SimpleNamespace(modules=modules), batches=lambda *_: batches, **given))


def test_one_threshold_keeps_the_largest_of_all_modules_until_one_does_not_fit() -> None:
    values, costs = {"a": [9.0, 5.0, 1.0], "b": [7.0, 6.0, 0.5]}, {"a": 10, "b": 4}
    assert cut(values, costs, 18) == {"a": 1, "b": 2}
    assert cut(values, costs, 28) == {"a": 2, "b": 2}
    # b's 0.5 would still fit, but a's 1.0 comes first and does not.
    assert cut(values, costs, 33) == {"a": 2, "b": 2}
    assert cut(values, costs, 9) == {}


def test_a_lora_is_written_by_singular_values_and_cut_to_its_best_approximation() -> None:
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(1, 5, 12, generator=generator), torch.randn(1, 9, 5, generator=generator)
    dense = pair[1][0] @ pair[0][0]
    values, ordered = spectrum(pair)
    u, expected, vt = torch.linalg.svd(dense)
    torch.testing.assert_close(values, expected[:5], atol=1e-5, rtol=1e-5)
    for rank in (2, 5):
        first, second = shortened(ordered, rank)
        best = u[:, :rank] * expected[:rank] @ vt[:rank]
        torch.testing.assert_close(second[0] @ first[0], best, atol=1e-5, rtol=1e-5)


@pytest.fixture
def small() -> PlantedProblem:
    problem = PlantedProblem("plain", 8)
    problem.recipe = replace(problem.recipe, steps=60, batch_size=32)
    return problem


def test_para_keeps_the_directions_above_one_singular_value_and_goes_on_from_them(
    small: PlantedProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, Tensor] = {}

    def noting(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        values, ordered = spectrum(pair)
        seen[len(seen)] = values
        return values, ordered

    monkeypatch.setattr(para, "spectrum", noting)
    found = cut_lora(small, 0)
    spent = cost(small.space, found.shapes)
    assert small.budget - max(map(sum, small.space.modules.values())) < spent <= small.budget
    ranks = [found.shapes[name].blk_r if name in found.shapes else 0 for name in small.space.modules]
    kept = min(float(values[rank - 1]) for values, rank in zip(seen.values(), ranks, strict=True) if rank)
    cut_off = max(float(values[rank]) for values, rank in zip(seen.values(), ranks, strict=True) if rank < len(values))
    assert kept >= cut_off
    assert found.finish is not None
    untrained = mean_loss(small, "test")
    at_once, later = found.finish(1), found.finish(30)
    # What was cut off starts well below the frozen net, which a fresh LoRA is at its first step.
    assert at_once < 0.9 * untrained and later < at_once


def test_para_carries_the_head_over_and_gives_the_model_back() -> None:
    task = TabularTask("order")
    task.recipe = replace(task.recipe, steps=10, learning_rate=1e-2)
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    found = cut_lora(task, 0)
    fresh = mean_loss(task, "test")
    assert found.finish is not None and found.finish(1) != pytest.approx(fresh, abs=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in task.model.state_dict().items())


def test_explained_variance_is_that_of_a_direct_pca_and_of_pefts() -> None:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.arange(6.0)) + 3
    values = torch.linalg.eigvalsh(torch.cov(x.T.double())).flip(0)
    torch.testing.assert_close(explained(x), values / values.sum(), atol=1e-6, rtol=1e-6)
    theirs = IncrementalPCA(n_components=6, copy=True, lowrank=False).fit(x)
    torch.testing.assert_close(explained(x).float(), theirs.explained_variance_ratio_.float(), atol=1e-4, rtol=1e-4)


def test_eva_gives_ranks_to_layers_whose_inputs_vary_in_few_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(64, 2, generator=generator) @ torch.linalg.qr(torch.randn(12, 2, generator=generator))[0].T
    narrow = torch.randn(64, 4, generator=generator)
    x = torch.cat([wide, narrow], dim=1)
    # Of 40 parameters the two directions of the wide layer take 32; the first of the narrow one takes the rest.
    found = eva_ranks(apart(x, torch.zeros(64, 4), 40), 0)
    assert {name: choice.blk_r for name, choice in found.shapes.items()} == {"wide": 2, "narrow": 1}
    assert all(choice.nblocks == 1 for choice in found.shapes.values()) and found.passes == SAMPLED * FORWARD


def test_fisher_ranks_are_in_proportion_to_the_squared_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 16, generator=generator), torch.randn(64, 4, generator=generator)
    problem = apart(x * torch.tensor([0.1] * 12 + [3.0] * 4), y, 32)
    inputs = x * torch.tensor([0.1] * 12 + [3.0] * 4)
    error = problem.model(inputs) - y
    grads = {"wide": error.T @ inputs[:, :12] / 128, "narrow": error.T @ inputs[:, 12:] / 128}
    traces = {name: float(grad.square().sum()) for name, grad in grads.items()}
    values = {name: [trace / k for k in range(1, 5)] for name, trace in traces.items()}
    expected = cut(values, {"wide": 16, "narrow": 8}, 32)
    assert {name: choice.blk_r for name, choice in fisher_ranks(problem, 0).shapes.items()} == expected == {"narrow": 4}
