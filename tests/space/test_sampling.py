"""Random architectures against all that a tiny space holds."""

from __future__ import annotations

import itertools

import pytest
import torch

from morenas.benchmark.problem import Shapes, cost
from morenas.space import Choice, SearchSpace, build_space, sample_architecture

MODULES = {"a": (8, 8), "b": (8, 16), "c": (12, 4), "d": (16, 16)}
SPACES = {
    "with none": build_space(MODULES, [1, 2], [0, 1, 2]),
    "without none": build_space(MODULES, [1, 2], [1, 3]),
    "padded": build_space({"a": (7, 9), "b": (5, 11), "c": (13, 6)}, [1, 3], [0, 1, 2]),
    "without padding": build_space({"a": (8, 8), "b": (6, 9), "c": (12, 4)}, [1, 3, 4], [0, 1, 2], pad=False),
    "too few features": build_space({"a": (8, 8), "b": (3, 9), "c": (12, 2)}, [1, 4], [0, 1, 2]),
    "by type": build_space(
        {"x.0.k": (8, 8), "x.0.v": (8, 4), "x.1.k": (8, 8), "x.1.v": (8, 4)}, [1, 2], [0, 1], "type"
    ),
}


def picks_of(space: SearchSpace, shapes: Shapes) -> tuple[int, ...]:
    return tuple(space.choices.index(shapes.get(names[0], Choice(1, 0))) for names in space.groups.values())


def maximal(space: SearchSpace, budget: int) -> set[tuple[int, ...]]:
    """Every admissible architecture within the budget of which no single choice can be dearer and still fit."""
    costs, admissible = space.costs(), space.admissible()
    options = [row.nonzero().flatten().tolist() for row in admissible]

    def total(picks: tuple[int, ...]) -> int:
        return sum(int(costs[group, pick]) for group, pick in enumerate(picks))

    def grows(picks: tuple[int, ...]) -> bool:
        others = ((*picks[:g], pick, *picks[g + 1 :]) for g in range(len(picks)) for pick in options[g])
        return any(total(picks) < total(other) <= budget for other in others)

    within = (picks for picks in itertools.product(*options) if total(picks) <= budget)
    return {picks for picks in within if not grows(picks)}


def budgets(space: SearchSpace) -> list[int]:
    costs = space.costs().masked_fill(~space.admissible(), 0)
    least = int(space.costs().masked_fill(~space.admissible(), 10**9).min(dim=1).values.sum())
    most = int(costs.max(dim=1).values.sum())
    return [least, least + (most - least) // 7, (least + most) // 2, most - 1, most, 2 * most]


@pytest.mark.parametrize("name", SPACES)
def test_draws_are_maximal_within_the_budget(name: str) -> None:
    space, generator = SPACES[name], torch.Generator().manual_seed(0)
    for budget in budgets(space):
        known = maximal(space, budget)
        for _ in range(60):
            shapes = sample_architecture(space, budget, generator)
            assert cost(space, shapes) <= budget
            assert picks_of(space, shapes) in known


@pytest.mark.parametrize("name", ["padded", "without padding", "by type"])
def test_every_maximal_architecture_is_reached_and_no_other(name: str) -> None:
    space, generator = SPACES[name], torch.Generator().manual_seed(0)
    for budget in budgets(space)[1:4]:
        known, drawn = maximal(space, budget), set[tuple[int, ...]]()
        for _ in range(3000):
            drawn.add(picks_of(space, sample_architecture(space, budget, generator)))
            if drawn >= known:
                break
        assert drawn == known


def test_inadmissible_choices_are_never_drawn() -> None:
    space, generator = SPACES["without padding"], torch.Generator().manual_seed(1)
    admissible = space.admissible()
    for budget in budgets(space):
        for _ in range(100):
            picks = picks_of(space, sample_architecture(space, budget, generator))
            assert all(bool(admissible[group, pick]) for group, pick in enumerate(picks))


@pytest.mark.parametrize("name", SPACES)
def test_a_budget_below_the_cheapest_choices_is_refused(name: str) -> None:
    space, generator = SPACES[name], torch.Generator().manual_seed(0)
    least = budgets(space)[0]
    assert cost(space, sample_architecture(space, least, generator)) == least
    with pytest.raises(ValueError, match="costs at most"):
        sample_architecture(space, least - 1, generator)


def test_modules_of_a_group_take_one_choice_and_none_is_left_out() -> None:
    space = SPACES["by type"]
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        shapes = sample_architecture(space, 30, generator)
        assert all(shape.blk_r for shape in shapes.values())
        assert all(len({shapes.get(name) for name in names}) == 1 for names in space.groups.values())


def test_a_draw_is_a_function_of_the_generator_alone() -> None:
    space = SPACES["with none"]

    def draws(seed: int) -> list[Shapes]:
        generator = torch.Generator().manual_seed(seed)
        torch.rand(seed + 1)  # the global generator has no say
        return [sample_architecture(space, 100, generator) for _ in range(20)]

    assert draws(0) == draws(0) != draws(1)
