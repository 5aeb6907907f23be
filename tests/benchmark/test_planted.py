"""Planted problems: what they are made of, and that the planted architecture solves them."""

from __future__ import annotations

import math
import random
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from morenas.base.errors import InputError
from morenas.benchmark.planted import (
    FAMILIES,
    NBLOCKS,
    RANKS,
    SHARES,
    STRENGTH,
    TEST,
    PlantedProblem,
    ResidualNet,
    ShuffledBatches,
)
from morenas.benchmark.planted_transformer import PlantedTransformer
from morenas.benchmark.problem import Batch, cost
from morenas.monarch import Link, project
from morenas.space import Choice
from morenas.supernet.prepare import prepared
from morenas.supernet.spectrum import kept, projections

problem = lru_cache(maxsize=None)(PlantedProblem)
NUMBERS = (0, 1, 2)


def teacher_outputs(made: PlantedProblem, x: Tensor) -> Tensor:
    """The model's outputs with every module's change added to its weight, which is then taken out again."""
    weights = {name: made.model.get_submodule(name).get_parameter("weight") for name in made.changes}
    before = {name: weight.clone() for name, weight in weights.items()}
    for name, weight in weights.items():
        weight.add_(made.changes[name])
    y: Tensor = made.model(x)
    for name, weight in weights.items():
        weight.copy_(before[name])
    return y


def tensors(made: PlantedProblem) -> dict[str, Tensor]:
    splits = (*SHARES, "final", "test")
    data = {f"{split}.{key}": value for split in splits for key, value in made.examples(split).items()}
    return {**data, **made.model.state_dict(), **{f"change.{name}": c for name, c in made.changes.items()}}


def same(one: PlantedProblem, other: PlantedProblem) -> bool:
    if (one.planted, one.budget, one.space) != (other.planted, other.budget, other.space):
        return False
    ours, theirs = tensors(one), tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("table", "family"),
    [
        *((PlantedProblem, family) for family in FAMILIES),
        (PlantedTransformer, "mixed"),
        (PlantedTransformer, "mixed-noisy"),
    ],
)
def test_a_problem_is_a_function_of_its_family_and_number_alone(table: type[PlantedProblem], family: str) -> None:
    random.seed(4)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = table(family, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(table(family, 3), again)
    assert not same(table(family, 4), again)


def test_families_do_not_share_a_problem() -> None:
    sums = {family: float(problem(family, 0).examples("test")["x"].double().sum()) for family in FAMILIES}
    assert len(set(sums.values())) == len(FAMILIES)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_test_targets_are_the_teachers_without_noise_and_training_targets_have_the_noise(
    family: str, number: int
) -> None:
    made = problem(family, number)
    test, train = made.examples("test"), made.examples("final")
    assert len(test["x"]) == TEST
    torch.testing.assert_close(test["y"], teacher_outputs(made, test["x"]), atol=1e-5, rtol=1e-5)
    noise = train["y"] - teacher_outputs(made, train["x"])
    assert float(noise.std()) == pytest.approx(made.rules.noise, rel=0.02)
    assert abs(float(noise.mean())) < made.rules.noise / 50


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("family", [name for name, rules in FAMILIES.items() if not rules.dense])
def test_with_its_own_blocks_the_planted_architecture_has_no_loss(family: str, number: int) -> None:
    made = problem(family, number)
    test = made.examples("test")
    assert float(made.losses(made.model, test).mean()) > 1e-2
    with prepared(made.model, made.space, "per_nblocks", 0, made.head) as (supernet, _):
        for name, layer in supernet.layers.items():
            layer.load({c: project(made.changes[name], c, layer.max_rank, Link.CYCLIC) for c in layer.counts})
        supernet.draw(made.planted)
        with torch.no_grad():
            assert float(made.losses(made.model, test).max()) < 1e-8


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_changes_have_the_stated_norm_and_lie_in_the_planted_class_and_in_no_cheaper_one(
    family: str, number: int
) -> None:
    made = problem(family, number)
    for name, change in made.changes.items():
        n, m = made.space.modules[name]
        planted, dense = made.planted.get(name, Choice(1, 0)), made.rules.dense
        assert change.shape == (m, n)
        norm = STRENGTH * math.sqrt(m) * math.hypot(float(planted.blk_r > 0), dense)
        assert float(change.norm()) == pytest.approx(norm, rel=0.1 if dense else 1e-5)
        scores = kept(change, projections(change, made.space.choices), made.space.choices)
        shares = dict(zip(made.space.choices, (scores / change.square().sum()).tolist(), strict=True))
        if dense:
            assert all(share < 0.999 for share in shares.values())
        elif planted.blk_r:
            assert shares[planted] == pytest.approx(1, abs=1e-5)
            assert all(share < 0.99 for choice, share in shares.items() if choice.blk_r < planted.blk_r)
        else:
            assert not change.any()


@pytest.mark.parametrize("number", NUMBERS)
def test_the_dense_remainder_has_its_norm_on_every_module_and_no_class_holds_it(number: int) -> None:
    made = problem("outside", number)
    for name, change in made.changes.items():
        planted = made.planted.get(name, Choice(1, 0))
        scores = kept(change, projections(change, made.space.choices), made.space.choices)
        left = float((change.square().sum() - scores[made.space.choices.index(planted)]).sqrt())
        remainder = made.rules.dense * STRENGTH * math.sqrt(len(change))
        # The planted class takes in a part of what is random beside it.
        assert 0.4 * remainder < left < 1.001 * remainder


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_are_disjoint_and_of_the_stated_sizes(family: str) -> None:
    made = problem(family, 0)
    total = made.rules.per_module * len(made.space.modules) or made.rules.examples
    seen: set[tuple[float, ...]] = set()
    for split, share in {**SHARES, "test": None}.items():
        rows = {tuple(row) for row in made.examples(split)["x"].tolist()}
        size = TEST if share is None else share * total
        assert len(rows) == pytest.approx(size, abs=1)
        assert not rows & seen
        seen |= rows
    assert len(seen) == total + TEST


def test_final_is_the_two_splits_of_a_search() -> None:
    made = problem("plain", 0)
    for key in ("x", "y"):
        both = torch.cat([made.examples(split)[key] for split in ("search_train", "search_val")])
        assert torch.equal(made.examples("final")[key], both)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_budget_is_the_planted_cost_and_half_of_it_in_half(family: str, number: int) -> None:
    made = problem(family, number)
    assert made.budget == cost(made.space, made.planted) // (2 if family == "half" else 1)


def standard_deviations(family: str) -> Tensor:
    """Of the inputs along their principal axes, descending."""
    made = problem(family, 0)
    x = torch.cat([made.examples(split)["x"] for split in (*SHARES, "test")]).double()
    return torch.linalg.svdvals(x) / math.sqrt(len(x))


def test_correlated_inputs_have_the_stated_spectrum_and_others_are_white() -> None:
    found = standard_deviations("correlated")
    expected = torch.logspace(0, -FAMILIES["correlated"].decay, len(found), dtype=torch.float64)
    expected *= math.sqrt(len(found)) / expected.norm()
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0)
    white = standard_deviations("plain")
    torch.testing.assert_close(white, torch.ones_like(white), rtol=0.25, atol=0)


def test_correlated_inputs_are_rotated() -> None:
    made = problem("correlated", 0)
    correlations = torch.corrcoef(made.examples("final")["x"].T).fill_diagonal_(0)
    assert float(correlations.abs().mean()) > 0.1


def test_sizes_stay_within_what_is_stated_over_all_numbers_of_development(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlantedProblem, "_make_data", lambda *given: None)
    modules, widths, planted = set(), set(), set()
    for number in range(100):
        made = PlantedProblem("plain", number)
        modules.add(len(made.space.modules))
        widths |= {width for features in made.space.modules.values() for width in features}
        planted |= set(made.planted.values())
        grid = {Choice(1, 0), *(Choice(n, r) for n in NBLOCKS for r in RANKS if r)}
        assert set(made.space.choices) == grid and bool(made.space.admissible().all())
        assert len(made.planted) >= 2 and set(made.planted.values()) <= grid
        assert 0 < made.budget < int(made.space.costs().max(dim=1).values.sum()) + 1
    assert modules == {4, 6, 8, 12, 16, 24}
    assert min(widths) == 32 and max(widths) == 128
    assert planted == grid - {Choice(1, 0)}


def test_batches_are_a_function_of_seed_and_number_and_an_epoch_holds_no_example_twice() -> None:
    examples: Batch = {"x": torch.arange(50.0).view(50, 1), "y": torch.arange(50)}
    batches, again, other = (ShuffledBatches(examples, 16, seed) for seed in (1, 1, 2))
    epoch = torch.cat([batches[number]["y"] for number in range(3)])
    assert len(epoch) == len(set(epoch.tolist())) == 48
    assert all(torch.equal(batches[n]["x"][:, 0].long(), batches[n]["y"]) for n in range(7))
    assert torch.equal(batches[5]["y"], again[5]["y"]) and not torch.equal(batches[5]["y"], other[5]["y"])
    assert not torch.equal(batches[0]["y"], batches[3]["y"])
    assert len(ShuffledBatches(examples, 128, 0)[9]["y"]) == 50


def test_losses_are_mean_squared_errors_of_each_example() -> None:
    made = problem("plain", 0)
    batch = made.batches("search_val", 0)[0]
    losses = made.losses(made.model, batch)
    torch.testing.assert_close(losses, (made.model(batch["x"]) - batch["y"]).square().mean(dim=1))
    assert losses.shape == (made.recipe.batch_size,)


def test_a_residual_net_is_what_its_formula_says() -> None:
    net = ResidualNet(4, [None, 6])
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 4)
    w, w_bias, u, u_bias, v, v_bias = net.parameters()
    middle = x + 2**-0.5 * torch.tanh(x @ w.T + w_bias)
    expected = middle + 2**-0.5 * (torch.tanh(middle @ u.T + u_bias) @ v.T + v_bias)
    torch.testing.assert_close(net(x), expected)


def test_models_are_frozen() -> None:
    assert not any(parameter.requires_grad for parameter in problem("plain", 0).model.parameters())


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'plain'"):
        PlantedProblem("plane", 0)
