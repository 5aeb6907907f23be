"""What a search expects of its architecture beside a LoRA that costs as much."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from peft import get_peft_model
from scipy import stats
from tiny_models import shallow
from tiny_search import STARTS, TinyBatches, found, search
from torch import Tensor

from morenas.adapters import MoReConfig
from morenas.adapters.factors import set_factors
from morenas.models.heads import find_head
from morenas.search.engine import SearchOutcome
from morenas.search.worth import FEWEST_BATCHES, Worth, uniform_lora
from morenas.space import Choice, SearchSpace, build_space

ALONE = STARTS["spectral alone"]
SPACE = build_space({"a": (4, 4), "b": (4, 8), "c": (8, 4), "d": (6, 4)}, [1, 2], [0, 1, 2, 4])


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    lora, own = [0.9, 1.1, 1.0, 1.3], [0.8, 1.05, 1.0, 1.1]
    worth = Worth.of(lora, own)
    interval = stats.ttest_rel(lora, own).confidence_interval(0.95)
    assert worth.gain == pytest.approx(0.0875)
    assert (worth.low, worth.high) == pytest.approx((interval.low, interval.high))
    assert worth.batches == 4


@pytest.mark.parametrize(
    ("lora", "said"),
    [((1.0, 1.1), "better than LoRA"), ((-1.0, -1.1), "worse than LoRA"), ((1.0, -1.1), "not to be told from LoRA")],
)
def test_it_says_in_words_what_the_interval_allows(lora: tuple[float, float], said: str) -> None:
    assert said in str(Worth.of(lora, (0.0, 0.0)))


def by_enumeration(space: SearchSpace, budget: int) -> set[tuple[int, ...]]:
    """Every LoRA of two neighbouring ranks, the lower one the highest that all can have, that spends the most."""
    costs = space.costs()
    loras = [index for index, choice in enumerate(space.choices) if choice.nblocks == 1]
    low = max(place for place, index in enumerate(loras) if int(costs[:, index].sum()) <= budget)
    spent = {
        picks: sum(int(costs[group, pick]) for group, pick in enumerate(picks))
        for picks in itertools.product(loras[low : low + 2], repeat=len(space.groups))
    }
    most = max(cost for cost in spent.values() if cost <= budget)
    return {picks for picks, cost in spent.items() if cost == most}


@pytest.mark.parametrize("budget", [8, 41, 42, 60, 83, 100, 170, 500])
def test_the_lora_is_as_uniform_as_the_space_allows_and_spends_what_it_can(budget: int) -> None:
    assert uniform_lora(SPACE, budget) in by_enumeration(SPACE, budget)


def test_a_space_without_lora_has_none() -> None:
    assert uniform_lora(build_space(SPACE.modules, [2, 4], [1, 2]), 500) is None
    assert uniform_lora(build_space(SPACE.modules, [1, 2], [1, 2]), 20) is None  # all must have one, and cannot


def found_losses(outcome: SearchOutcome) -> list[float]:
    """Batch by batch, of a model with the adapters and the head that the search left."""
    model = shallow()
    model.load_state_dict(outcome.head, strict=False)
    config = MoReConfig.from_architecture(outcome, modules_to_save=list(find_head(model)))
    adapted = get_peft_model(model, config).eval()
    set_factors(adapted, outcome.factors)
    with torch.no_grad():
        return [float(adapted(**TinyBatches(1000)[number]).loss) for number in range(FEWEST_BATCHES)]


def test_it_is_measured_in_the_weights_that_the_search_leaves() -> None:
    measured: list[list[float]] = []

    def inspect(supernet, outcome, measurement) -> None:  # type: ignore[no-untyped-def]
        space = supernet.space
        chosen = [outcome.shapes.get(names[0], Choice(1, 0)) for names in space.groups.values()]
        lora = uniform_lora(space, outcome.params)
        for picks in (lora, [space.choices.index(choice) for choice in chosen]):
            measured.append(measurement.on_decisive(picks, range(FEWEST_BATCHES)))

    outcome = search(shallow(), ALONE, inspect=inspect)
    assert outcome.worth == Worth.of(*measured)
    assert outcome.architecture.search["worth"] == outcome.worth.document()
    assert found_losses(outcome) == pytest.approx(measured[1], abs=1e-6)


def test_the_batches_are_those_that_chose_nothing() -> None:
    asked: list[int] = []

    class Watched(TinyBatches):
        def __getitem__(self, number: int) -> Mapping[str, Tensor]:
            asked.append(number)
            return super().__getitem__(number)

    search(shallow(), ALONE, select_batches=Watched(2000))
    assert asked == [*range(FEWEST_BATCHES)] * 2


def test_architectures_that_were_trained_alone_have_no_lora_to_be_compared_with() -> None:
    assert found(ALONE).worth is not None
    assert search(shallow(), replace(ALONE, selection="playoff", playoff_steps=1, playoff=2)).worth is None
