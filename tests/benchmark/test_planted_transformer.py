"""Planted transformers: what they are made of, and that the block count matters in them, on the side that is stated."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from morenas.base.errors import InputError
from morenas.benchmark.alone import mean_loss, train_alone
from morenas.benchmark.planted import PlantedProblem
from morenas.benchmark.planted_transformer import (
    HEADS,
    SIDES,
    TOKENS,
    PlantedTransformer,
    TransformerLayer,
    frozen,
)
from morenas.benchmark.problem import Shapes, cost
from morenas.monarch import Link, project
from morenas.space import Choice
from morenas.supernet.prepare import prepared
from morenas.supernet.spectrum import kept, projections

problem = lru_cache(maxsize=None)(PlantedTransformer)


def with_blocks(shapes: Shapes, count: int) -> Shapes:
    """The same ranks, and so the same parameters, with so many blocks everywhere."""
    return {name: Choice(count, choice.blk_r) for name, choice in shapes.items()}


def test_the_planted_block_counts_are_the_familys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlantedProblem, "_teach", lambda *given: None)
    for family, rules in SIDES.items():
        for number in (*range(4), *range(1100, 1104)):
            made = PlantedTransformer(family, number)
            assert {choice.nblocks for choice in made.planted.values()} == set(rules.nblocks)
            assert made.budget == cost(made.space, made.planted) and len(made.space.modules) in (6, 12)


def test_with_its_own_blocks_the_planted_architecture_has_no_loss() -> None:
    made = problem("mixed", 1)
    assert mean_loss(made, "test") > 0.1
    with prepared(made.model, made.space, "per_nblocks", 0, made.head) as (supernet, _):
        for name, layer in supernet.layers.items():
            layer.load({c: project(made.changes[name], c, layer.max_rank, Link.CYCLIC) for c in layer.counts})
        supernet.draw(made.planted)
        assert mean_loss(made, "test") < 1e-8


@pytest.mark.parametrize("family", ["mixed", "mixed-noisy"])
def test_at_equal_parameters_the_other_side_holds_a_part_of_every_change_alone(family: str) -> None:
    made = problem(family, 1)
    for name, (count, rank) in made.planted.items():
        change, other = made.changes[name], Choice(1 if count > 1 else 4, rank)
        [whole, part] = kept(change, projections(change, (made.planted[name], other)), (made.planted[name], other))
        assert float(whole / change.square().sum()) == pytest.approx(1, abs=1e-5)
        assert float(part / change.square().sum()) < 0.75


@pytest.mark.parametrize(("family", "number", "right"), [("blocks", 0, 4), ("low-rank", 1, 1)])
def test_trained_alone_the_right_block_count_is_better_at_equal_parameters(
    family: str, number: int, right: int
) -> None:
    made = PlantedTransformer(family, number)
    made.recipe = replace(made.recipe, steps=60, batch_size=16, learning_rate=2e-2)
    one, four = (trained.test for trained in train_alone(made, [with_blocks(made.planted, n) for n in (1, 4)]))
    best, worst = (one, four) if right == 1 else (four, one)
    assert best < 0.7 * worst


def test_a_layer_is_what_its_formula_says() -> None:
    width = 8
    layer = frozen(TransformerLayer(width, 0.5), torch.Generator().manual_seed(0))
    x = torch.randn(3, TOKENS, width)

    def norm(values: Tensor) -> Tensor:
        return (values - values.mean(-1, keepdim=True)) / (values.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    def linear(name: str, values: Tensor) -> Tensor:
        return values @ layer.get_parameter(f"{name}.weight").T + layer.get_parameter(f"{name}.bias")

    q, k, v = (linear(name, norm(x)).chunk(HEADS, dim=-1) for name in "qkv")
    size = width // HEADS
    heads = [(qi @ ki.transpose(1, 2) / size**0.5).softmax(-1) @ vi for qi, ki, vi in zip(q, k, v, strict=True)]
    middle = x + 0.5 * linear("o", torch.cat(heads, dim=-1))
    expected = middle + 0.5 * linear("down", F.gelu(linear("up", norm(middle))))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_losses_are_means_over_tokens_and_features() -> None:
    made = problem("mixed", 1)
    batch = made.batches("search_val", 0)[0]
    expected = (made.model(batch["x"]) - batch["y"]).square().mean(dim=(1, 2))
    torch.testing.assert_close(made.losses(made.model, batch), expected)


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'blocks'"):
        PlantedTransformer("block", 0)
