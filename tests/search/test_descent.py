"""Architecture steps on weights that stand still: dual averaging within the budget."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from tiny_models import shallow
from tiny_search import BUDGET, STARTS, TinyBatches, search, tiny_space
from tiny_training import Recorder
from torch import Tensor

from morenas.base.errors import InputError
from morenas.bilevel import Schedule, expected_cost
from morenas.models.heads import find_head
from morenas.search.acting import acting
from morenas.search.descent import (
    ARCH_STEPS,
    ENTROPY_END,
    FEWEST_ARCH_STEPS,
    PRIOR,
    ArchStep,
    MixtureGradient,
    arch_steps,
    usual_arch_steps,
)
from morenas.search.mixture import Mixture, mean_entropy
from morenas.search.objective import FORWARD
from morenas.search.settings import SearchSettings
from morenas.space import SearchSpace, build_space
from morenas.supernet import Supernet
from morenas.supernet.prepare import prepared

ALONE = STARTS["spectral alone"]
SPACE = build_space({"a": (16, 16), "b": (16, 16), "c": (32, 16)}, [1, 2], [0, 1, 2])
LIMIT = 100


def mixture(space: SearchSpace = SPACE, budget: int = LIMIT) -> Mixture:
    return Mixture(space, budget, ALONE, Schedule(12, 12, 1, restart=True))


def descended(worth: Tensor, steps: int = 10, unit: float = 1.0, budget: int = LIMIT) -> tuple[Mixture, list[ArchStep]]:
    """Descend the linear loss that falls by ``worth`` of what is taken."""
    mixed = mixture(budget=budget)
    return mixed, list(arch_steps(mixed, 12, lambda number: (1.0, -unit * worth), steps))


def worths(seed: int) -> Tensor:
    return torch.rand(SPACE.costs().shape, generator=torch.Generator().manual_seed(seed))


def best_by_enumeration(worth: Tensor) -> float:
    costs, groups = SPACE.costs(), range(len(SPACE.groups))
    every = product(range(len(SPACE.choices)), repeat=len(groups))
    within = [picks for picks in every if sum(int(costs[g, c]) for g, c in zip(groups, picks, strict=True)) <= LIMIT]
    return max(sum(float(worth[g, c]) for g, c in zip(groups, picks, strict=True)) for picks in within)


@pytest.mark.parametrize("seed", range(5))
def test_on_a_linear_loss_every_vertex_is_the_best_architecture(seed: int) -> None:
    worth = worths(seed)
    for step in descended(worth)[1]:
        assert sum(float(worth[g, c]) for g, c in enumerate(step.vertex)) == pytest.approx(best_by_enumeration(worth))


@pytest.mark.parametrize("seed", range(3))
def test_the_budget_is_held_and_the_entropy_falls_to_its_end_at_every_step(seed: int) -> None:
    mixed, steps = descended(worths(seed))
    entropies = [mean_entropy(step.probs) for step in steps]
    assert all(expected_cost(step.probs, mixed.costs) <= LIMIT * (1 + 1e-6) for step in steps)
    assert entropies == sorted(entropies, reverse=True)
    # what shares the budget's last parameters stays undecided
    assert 0.95 * ENTROPY_END < entropies[-1] < 2 * ENTROPY_END


def test_the_unit_of_the_loss_is_of_no_matter() -> None:
    worth = worths(0)
    for one, other in zip(descended(worth)[1], descended(worth, unit=1e4)[1], strict=True):
        torch.testing.assert_close(one.probs, other.probs, atol=1e-5, rtol=1e-4)


def test_a_gradient_that_is_large_beside_another_group_s_stays_so() -> None:
    worth = torch.zeros(SPACE.costs().shape)
    worth[0, 1], worth[1, 1] = 1.0, 0.01
    logits = descended(worth, budget=10_000)[0].logits.detach()
    odds = logits[:, 1] - logits[:, 0]
    assert float(odds[0] / odds[1]) == pytest.approx(100, rel=0.01)


def test_the_mean_of_the_gradients_decides() -> None:
    """A gradient that changes its sign every step is noise; what all of them say is followed."""
    noise, signal = 10 * worths(1), worths(2)
    *_, last = arch_steps(mixture(), 12, lambda number: (1.0, -(signal + (-1) ** number * noise)), 10)
    worth = sum(float(signal[g, c]) for g, c in enumerate(last.vertex))
    assert worth == pytest.approx(best_by_enumeration(signal))


def test_the_scores_of_the_start_count_as_a_few_gradients() -> None:
    before, mixed = worths(3), mixture()
    mixed.start_at(before, entropy=0.6)
    vertices = [step.vertex for step in arch_steps(mixed, 12, lambda number: (1.0, before), 2 * PRIOR)]
    worth = [sum(float(before[g, c]) for g, c in enumerate(vertex)) for vertex in vertices]
    assert worth[0] == pytest.approx(best_by_enumeration(before))
    assert len(set(vertices[: PRIOR - 1])) == 1 and worth[-1] < 0.5 * worth[0]


def test_few_steps_in_a_short_search() -> None:
    assert [usual_arch_steps(steps) for steps in (1, 12, 60, 160)] == [1, 1, 6, FEWEST_ARCH_STEPS]
    assert usual_arch_steps(10_000) == ARCH_STEPS * 10_000


def test_at_a_midpoint_the_gradient_tells_the_losses_of_both_ends_apart() -> None:
    """What makes a gradient worth more than a measurement, in float64 on a transformer's trained supernet."""
    torch.manual_seed(0)
    model = shallow().double()
    space, head = tiny_space(model), find_head(model)
    generator = torch.Generator().manual_seed(0)
    with prepared(model, space, "per_nblocks", 0, head) as (supernet, _):
        for layer in supernet.layers.values():
            layer.second.data.normal_(std=0.05, generator=generator)
        ends = [torch.randint(len(space.choices), (2, len(space.groups)), generator=generator) for _ in range(8)]
        pairs = torch.tensor([_by_gradient_and_by_loss(model, supernet, *pair) for pair in ends]).T
    assert torch.corrcoef(pairs)[0, 1] > 0.999
    torch.testing.assert_close(pairs[0], pairs[1], rtol=0.05, atol=0.05 * float(pairs[1].abs().max()))


def _by_gradient_and_by_loss(model: torch.nn.Module, supernet: Supernet, a: Tensor, b: Tensor) -> tuple[float, float]:
    batch = TinyBatches(0)[0]
    ends = [torch.nn.functional.one_hot(picks, len(supernet.space.choices)).double() for picks in (a, b)]
    losses = []
    for end in ends:
        supernet.mix(end)
        losses.append(float(model(**batch).loss.detach()))
    middle = ((ends[0] + ends[1]) / 2).requires_grad_(True)
    supernet.mix(middle)
    (grad,) = torch.autograd.grad(model(**batch).loss, [middle])
    return float((grad * (ends[1] - ends[0])).sum()), losses[1] - losses[0]


def test_a_gradient_is_taken_halfway_between_the_best_architecture_and_a_new_one() -> None:
    mixed = mixture()
    mixed.start_at(worths(0), 0.5)
    best = mixed.vertex(worths(0))
    drawn = set()
    for seed in range(20):
        probs = mixed.mixing_probs(12, torch.Generator().manual_seed(seed)).detach()
        other = 2 * probs
        other[range(len(best)), list(best)] -= 1
        assert set(other.flatten().tolist()) == {0.0, 1.0} and torch.equal(other.sum(dim=1), torch.ones(len(best)))
        assert expected_cost(other, mixed.costs) <= LIMIT
        drawn.add(tuple(other.argmax(dim=1).tolist()))
    assert len(drawn) > 5


@pytest.mark.parametrize("relaxation", [None, "midpoint", "softmax"])
def test_what_is_not_asked_for_is_midpoint_where_the_weights_stand_still(relaxation: str | None) -> None:
    assert acting(replace(ALONE, relaxation=relaxation))["relaxation"] == (relaxation or "midpoint")
    assert acting(replace(STARTS["level"], relaxation=relaxation))["relaxation"] == (relaxation or "softmax")
    assert "relaxation" not in acting(replace(ALONE, relaxation=relaxation, arch_steps=0))


def test_the_default_search_takes_architecture_steps_and_they_decide() -> None:
    watching = Recorder()
    found = search(shallow(), replace(ALONE, arch_steps=6), observer=watching)
    upper = [step for step, metrics in watching.logged.items() if "search/upper_loss" in metrics]
    assert upper == [*range(13, 19)]
    assert found.architecture.search["arch_steps_taken"] == 6
    assert found.trajectory_steps == [*range(19)]
    assert not torch.allclose(found.trajectory[-7], found.trajectory[-1], atol=0.05)


def test_with_the_gradient_turned_round_another_architecture_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(ALONE, arch_steps=6, selection="budgeted")
    found = search(shallow(), settings)
    right = MixtureGradient.__call__

    def wrong(self: MixtureGradient, number: int) -> tuple[float, Tensor]:
        loss, grad = right(self, number)
        return loss, -grad

    monkeypatch.setattr(MixtureGradient, "__call__", wrong)
    assert search(shallow(), settings).shapes != found.shapes


def test_without_steps_the_start_decides() -> None:
    found = search(shallow(), replace(ALONE, arch_steps=0, selection="budgeted"))
    assert found.architecture.search["arch_steps_taken"] == 0
    torch.testing.assert_close(found.trajectory[-1], found.probs)


@pytest.mark.parametrize("relaxation", [None, "softmax", "gumbel", "dirichlet"])
def test_cut_off_after_the_warm_up_it_ends_with_the_same(tmp_path: Path, relaxation: str | None) -> None:
    settings = replace(ALONE, relaxation=relaxation)
    whole = search(shallow(), settings)
    search(shallow(), settings, checkpoint=tmp_path / "state")  # leaves the warm-up's last state behind
    again = search(shallow(), settings, checkpoint=tmp_path / "state")
    assert again.shapes == whole.shapes and torch.equal(again.logits, whole.logits)
    assert again.architecture == whole.architecture


def test_passes_are_counted() -> None:
    found = search(shallow(), replace(ALONE, arch_steps=3, selection="budgeted"))
    # 12 weight steps, a batch of scores, 3 architecture steps; LoRA and the found, forward on 4 batches
    assert found.architecture.search["passes"] == pytest.approx(12 + 1 + 3 + 8 * FORWARD, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hypergradient": "unrolled"}, "hypergradient=unrolled would do nothing.*stand still"),
        ({"stop": "entropy"}, "stop=entropy would do nothing"),
        ({"warmup": 8, "arch_steps": 3}, r"arch_steps=3 would do nothing.*search\.every"),
        ({"arch_steps": -1}, "arch_steps=-1: must be at least 0"),
    ],
)
def test_what_would_do_nothing_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(ALONE, **changes)  # type: ignore[arg-type]


def test_only_what_acted_is_recorded() -> None:
    alone, alternating = acting(ALONE), acting(STARTS["spectral"])
    silent = {"every", "arch_learning_rate", "temperature_start", "temperature_end", "hypergradient", "playoff"}
    assert not silent & set(alone)
    assert {"relaxation", "start", "selection", "arch_steps", "steps"} <= set(alone)
    assert silent - {"playoff"} <= set(alternating) and "arch_steps" not in alternating
    assert "stop_entropy" in acting(SearchSettings(steps=9, warmup=3, stop="entropy"))


def test_the_search_stays_within_its_budget() -> None:
    assert search(shallow(), ALONE).params <= BUDGET
