from __future__ import annotations

import pytest

from morenas.base.errors import InputError
from morenas.space import Budget, build_space, lora_parameters

MODULES = {"a": (100, 50), "b": (100, 150)}
SPACE = build_space(MODULES, [1, 2], [0, 1, 2])


@pytest.mark.parametrize(
    ("request_", "params"),
    [
        ({"params": 500}, 500),
        ({"fraction": 0.01}, 1000),
        ({"lora_rank": 32, "fraction": 0.05}, 640),
        ({"lora_rank": 4}, 1600),
    ],
)
def test_the_three_ways_to_state_a_budget(request_: dict[str, float], params: int) -> None:
    budget = Budget.resolve(SPACE, 100_000, **request_)  # type: ignore[arg-type]
    assert budget.params == params
    assert budget.request == request_


def test_lora_parameters_are_rank_times_all_widths() -> None:
    assert lora_parameters(MODULES, 3) == 3 * (100 + 50 + 100 + 150)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "No budget was given"),
        ({"params": 0}, r"budget\.params=0: a budget must be greater than 0"),
        ({"fraction": -0.1}, r"budget\.fraction=-0\.1"),
        ({"params": 5, "fraction": 0.1}, "already says the whole budget"),
        ({"params": 149}, r"149 parameters are below the smallest architecture of this search space \(150\)"),
    ],
)
def test_bad_budgets_are_refused_with_a_way_out(request_: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget.resolve(SPACE, 100_000, **request_)  # type: ignore[arg-type]


def test_without_rank_zero_every_module_must_be_paid() -> None:
    space = build_space(MODULES, [1], [1, 2])
    with pytest.raises(InputError, match=r"\(400\)"):
        Budget.resolve(space, 100_000, params=399)
    assert Budget.resolve(space, 100_000, params=400).params == 400


def test_a_share_of_the_model_alone_needs_the_models_size() -> None:
    assert Budget.resolve(SPACE, lora_rank=32, fraction=0.05).params == 640
    assert Budget.resolve(SPACE, params=500).params == 500
    with pytest.raises(InputError, match=r"budget.fraction=0.01: a share of the model's parameters, whose number"):
        Budget.resolve(SPACE, fraction=0.01)
