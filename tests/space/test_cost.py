"""Costs of one's own: what the budget is counted in, and what stays parameters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import in_turn
from jsonschema import Draft202012Validator
from tiny_models import shallow
from tiny_search import STARTS, search, tiny_space
from tiny_training import Recorder

from morenas.base.documents import validator
from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.models import target_linears
from morenas.monarch import num_parameters
from morenas.space import Architecture, Budget, Choice, LinearLayer, SearchSpace, build_space

MODULES = {"block.0.wide": (100, 50), "block.1.narrow": (10, 30)}


@dataclass(frozen=True)
class Latency:
    """Microseconds: what a call costs, and a part that grows with the rank and falls with the number of blocks."""

    call: int = 7

    def __call__(self, layer: LinearLayer, choice: Choice) -> int:
        if not choice.blk_r:
            return 0
        return self.call + choice.blk_r * (layer.in_features + layer.out_features) // choice.nblocks


def uneven(layer: LinearLayer, choice: Choice) -> int:
    """A dear choice for every layer: even "no adapter" costs something, and one layer more than others."""
    return (3 if layer.name.endswith("narrow") else 1) * (1 + choice.blk_r * 5)


COSTS: dict[str, Callable[[LinearLayer, Choice], int]] = {"latency": Latency(), "uneven": uneven}


def space(cost: Any, **given: Any) -> SearchSpace:
    return build_space(MODULES, [1, 2], [0, 1, 2], cost=cost, **given)


def spent(space: SearchSpace, shapes: dict[str, Choice], cost: Callable[[LinearLayer, Choice], int]) -> int:
    layers = [LinearLayer(name, *features) for name, features in space.modules.items()]
    return sum(cost(layer, shapes.get(layer.name, Choice(1, 0))) for layer in layers)


@pytest.mark.parametrize("granularity", ["module", "all"])
def test_costs_are_the_sum_over_a_groups_layers_and_params_stay_parameters(granularity: str) -> None:
    built = space(Latency(), granularity=granularity)
    for row, names in enumerate(built.groups.values()):
        for column, choice in enumerate(built.choices):
            costs = [Latency()(LinearLayer(name, *MODULES[name]), choice) for name in names]
            assert built.costs()[row, column] == sum(costs)
            assert built.params()[row, column] == sum(num_parameters(*MODULES[name], *choice) for name in names)
    plain = build_space(MODULES, [1, 2], [0, 1, 2], granularity)
    assert torch.equal(plain.costs(), plain.params()) and torch.equal(plain.params(), built.params())


def test_a_cost_model_is_asked_once_a_layer_and_choice() -> None:
    asked: list[tuple[str, Choice]] = []

    def slow(layer: LinearLayer, choice: Choice) -> int:
        asked.append((layer.name, choice))
        return 1

    built = space(slow)
    costs = built.costs()
    costs[:] = 99
    assert bool((built.costs() == 1).all()) and len(asked) == len(set(asked)) == 2 * len(built.choices)


def test_a_registered_cost_is_chosen_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry("cost"), "_targets", {**registry("cost")._targets, "latency": Latency})
    assert torch.equal(space("latency").costs(), space(Latency()).costs())
    assert Budget.resolve(space("latency"), value=500).document() == {
        "cost": "latency",
        "value": 500,
        "request": {"value": 500},
    }
    with pytest.raises(InputError, match=r"budget.cost=latence: there is no such cost \(did you mean 'latency'\?\)"):
        space("latence")


@pytest.mark.parametrize("wrong", [0.5, -1, float("nan"), None])
def test_what_is_no_whole_number_is_refused_by_layer_and_choice(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"budget.cost=.*: says .* for 'block.0.wide' with none; a cost is a whole"):
        space(lambda layer, choice: wrong).costs()


@pytest.mark.parametrize(
    ("request_", "value"), [({"value": 500}, 500), ({"lora_rank": 4}, 774), ({"lora_rank": 4, "fraction": 0.5}, 387)]
)
def test_a_budget_in_another_cost_is_a_value_or_a_share_of_a_loras_cost(request_: Any, value: int) -> None:
    budget = Budget.resolve(space(Latency()), **request_)
    assert (budget.params, budget.value, budget.limit, budget.request) == (None, value, value, request_)
    name = f"{__name__}:Latency"
    assert budget.document() == {"cost": {"name": name, "call": 7}, "value": value, "request": request_}
    assert str(budget) == f"{value} of {name}"


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "No budget was given: give budget.value=<number in the unit of .*Latency>, or budget.lora_rank"),
        ({"params": 500}, r"budget.params=500: the budget is counted in .*Latency \(budget.cost\); give budget.value"),
        ({"fraction": 0.1}, r"budget.fraction=0.1: the budget is counted in .*Latency"),
        ({"value": 500, "lora_rank": 4}, "budget.value already says the whole budget"),
        ({"value": -1}, "must be greater than 0"),
        ({"value": 10}, r"10 of .*Latency are below the smallest architecture of this search space \(27\)"),
    ],
)
def test_a_budget_in_the_wrong_unit_or_too_small_is_refused(request_: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Budget.resolve(space(Latency()), 10**6, **request_)


def test_a_value_where_parameters_are_counted_is_refused() -> None:
    with pytest.raises(InputError, match=r"budget.value=5: the budget is counted in params"):
        Budget.resolve(space("params"), value=5)


def test_the_smallest_architecture_has_an_adapter_where_no_adapter_costs_something_too() -> None:
    """1 and 3 for none; the cheapest adapter adds 5."""
    assert Budget.resolve(space(uneven), value=9).limit == 9
    with pytest.raises(InputError, match=r"\(9\)"):
        Budget.resolve(space(uneven), value=8)


@pytest.mark.parametrize("given", [(None, {}), (5, {}, "params", 5), (5, {}, "latency"), (None, {}, "params", 5)])
def test_a_budget_without_one_clear_number_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="give parameters, or another cost and a value"):
        Budget(*given)


@in_turn(start=STARTS, named=COSTS)
def test_a_search_stays_within_a_budget_in_another_cost_and_says_so(start: str, named: str, tmp_path: Path) -> None:
    model, cost = shallow(), COSTS[named]
    space = build_space(target_linears(model, "all-linear", ["classifier"]), [1, 2, 4], [0, 1, 2], cost=cost)
    least = int(space.costs().min(dim=1).values.sum())
    recorder, value = Recorder(), least + 60
    outcome = search(model, STARTS[start], space=space, budget=Budget.resolve(space, value=value), observer=recorder)
    assert spent(space, outcome.shapes, cost) <= value
    assert (
        outcome.params
        == outcome.architecture.num_parameters()
        == sum(num_parameters(*space.modules[name], *choice) for name, choice in outcome.shapes.items())
    )
    last = recorder.logged[12]
    assert 0 < last["search/expected_cost"] <= value * 1.0001 and last["search/expected_params"] > 0
    outcome.architecture.to_json(tmp_path / "architecture.json")
    said = json.loads((tmp_path / "architecture.json").read_text())
    assert said["budget"]["value"] == value and said["params"] == outcome.params and "params" not in said["budget"]
    assert Architecture.from_json(tmp_path / "architecture.json") == outcome.architecture


def test_a_number_is_a_budget_in_the_spaces_own_unit() -> None:
    model = shallow()
    space = build_space(target_linears(model, "all-linear", ["classifier"]), [1, 2], [0, 1], cost=Latency())
    outcome = search(model, STARTS["spectral alone"], space=space, budget=120)
    assert outcome.architecture.budget == Budget.resolve(space, value=120).document()
    assert spent(space, outcome.shapes, Latency()) <= 120
    with pytest.raises(InputError, match=r"counted in params, and the search space in .*Latency"):
        search(model, STARTS["spectral alone"], space=space, budget=Budget.resolve(tiny_space(model), params=300))


def test_by_parameters_nothing_is_said_of_a_cost() -> None:
    recorder = Recorder()
    outcome = search(shallow(), observer=recorder)
    assert outcome.architecture.budget == {"params": 300, "request": {"params": 300}}
    assert not any("search/expected_cost" in metrics for metrics in recorder.logged.values())


@pytest.mark.parametrize("schema", ["architecture", "results"])
@pytest.mark.parametrize(
    ("budget", "valid"),
    [
        ({"params": 5, "request": {"params": 5}}, True),
        ({"cost": "latency", "value": 5, "request": {"value": 5}}, True),
        ({"cost": {"name": "latency", "call": 7}, "value": 5, "request": {"value": 5}}, True),
        ({"cost": "latency", "value": 0.5, "request": {"value": 5}}, False),
        ({"latency": 5, "request": {"value": 5}}, False),
    ],
)
def test_files_hold_a_budget_in_either_unit(schema: str, budget: dict[str, Any], valid: bool) -> None:
    whole = validator(schema).schema
    assert isinstance(whole, dict)
    assert Draft202012Validator(whole["properties"]["budget"]).is_valid(budget) == valid
