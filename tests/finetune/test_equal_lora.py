"""The LoRA of equal parameters spends the budget to the last parameter that fits, evenly."""

from __future__ import annotations

import itertools
import random

import pytest

from morenas.base.errors import InputError
from morenas.finetune.methods import EqualLora, RankedLora, Targets, equal_parameter_lora


def cost(ranks: dict[str, int], targets: Targets) -> int:
    return sum(rank * sum(targets[name]) for name, rank in ranks.items())


def transformer(layers: int = 6, width: int = 384, inner: int = 1536) -> dict[str, tuple[int, int]]:
    shapes = {"q": (width, width), "k": (width, width), "v": (width, width), "o": (width, width)}
    shapes |= {"up": (width, inner), "down": (inner, width)}
    return {f"{layer}.{name}": shape for layer in range(layers) for name, shape in shapes.items()}


@pytest.mark.parametrize("seed", range(30))
def test_no_choice_of_raised_modules_comes_closer(seed: int) -> None:
    rng = random.Random(seed)
    targets = {str(i): (rng.randint(1, 9), rng.randint(1, 9)) for i in range(8)}
    unit = sum(map(sum, targets.values()))
    params = rng.randint(min(map(sum, targets.values())), 3 * unit)
    ranks = equal_parameter_lora(params, targets)
    floor = params // unit
    sums = [
        sum(sum(targets[name]) for name in subset) for k in range(9) for subset in itertools.combinations(targets, k)
    ]
    assert cost(ranks, targets) == floor * unit + max(s for s in sums if s <= params - floor * unit)
    assert {ranks.get(name, 0) for name in targets} <= {floor, floor + 1}


@pytest.mark.parametrize("rank", [1, 2, 8, 32])
def test_a_whole_rank_is_uniform(rank: int) -> None:
    targets = transformer()
    params = rank * sum(map(sum, targets.values()))
    assert equal_parameter_lora(params, targets) == dict.fromkeys(targets, rank)


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5, 0.8])
def test_below_rank_one_the_modules_are_spread_over_depth_and_types(share: float) -> None:
    targets = transformer(layers=12)
    ranks = equal_parameter_lora(int(share * sum(map(sum, targets.values()))), targets)
    assert set(ranks.values()) == {1}
    halves = [sum(name.split(".")[0] in map(str, layers) for name in ranks) for layers in (range(6), range(6, 12))]
    assert abs(halves[0] - halves[1]) <= 2
    assert {name.split(".")[1] for name in ranks} == {"q", "k", "v", "o", "up", "down"}


def test_a_budget_below_the_smallest_adapter_is_refused() -> None:
    targets = {"a": (4, 4), "b": (2, 3)}
    assert equal_parameter_lora(5, targets) == {"b": 1}
    with pytest.raises(InputError, match="smallest adapter"):
        equal_parameter_lora(4, targets)


def test_a_large_model_is_quick() -> None:
    targets = {f"{i}": (4096 + i % 7, 11008) for i in range(224)}
    ranks = equal_parameter_lora(5_000_001, targets)
    assert 0 <= 5_000_001 - cost(ranks, targets) < 4096 + 11008


def test_as_a_method_it_is_the_ranked_lora_of_its_parameters() -> None:
    targets = transformer()
    ranks = equal_parameter_lora(50_000, targets)
    config = EqualLora(params=50_000, dropout=0.1).peft_config(targets, ("head",), 10)
    assert config == RankedLora(rank=max(ranks.values()), ranks=ranks, dropout=0.1).peft_config(targets, ("head",), 10)
    assert config.lora_alpha == 2 * config.r and EqualLora(1, alpha=3).peft_config({"a": (1, 0)}, (), 1).lora_alpha == 3


def test_as_a_method_it_wants_a_number_of_parameters() -> None:
    with pytest.raises(InputError, match=r"method\.params: give"):
        EqualLora().peft_config({"a": (4, 4)}, (), 10)
    with pytest.raises(InputError, match=r"method\.params=0: must be at least 1"):
        EqualLora(params=0)
