"""Whether searches of several seeds spend the budget in the same places."""

from __future__ import annotations

from pathlib import Path

import pytest

from morenas.compare.agreement import agreement, by_kind, by_module
from morenas.compare.table import compare, to_markdown
from morenas.run.results import write_results
from morenas.space import Architecture

from .test_table import results

LINEARS = {f"layer.{depth}.{kind}": (8, 8) for depth in (0, 1) for kind in ("query", "value")}


def found(**ranks: int) -> Architecture:
    """Query or value of a layer to its rank: ``q0=2`` is layer.0.query at rank 2, 32 parameters."""
    names = {"q": "query", "v": "value"}
    shapes = {f"layer.{key[1]}.{names[key[0]]}": (1, rank) for key, rank in ranks.items()}
    return Architecture.from_shapes(shapes, LINEARS, "tiny", 1000)


def test_the_share_is_what_two_spend_in_the_same_places_and_the_mean_is_over_pairs() -> None:
    one, other, third = found(q0=2, v0=2), found(q0=1, q1=1, v0=2), found(q1=4)
    assert agreement([one, one], by_module) == 1
    assert agreement([one, other], by_module) == 3 / 4  # one rank of the query and two of the value
    assert agreement([one, other], by_kind) == 1
    assert agreement([one, other, third], by_module) == pytest.approx((3 / 4 + 0 + 1 / 4) / 3)
    assert agreement([one, other, third], by_kind) == pytest.approx((1 + 2 / 4 + 2 / 4) / 3)


def test_blocks_do_not_count_and_what_is_left_unspent_does() -> None:
    blocks = Architecture.from_shapes({"layer.0.query": (4, 2)}, LINEARS, "tiny", 1000)
    assert agreement([blocks, found(q0=2)], by_module) == 1
    assert agreement([found(q0=1), found(q0=4)], by_module) == 1 / 4
    assert agreement([found(), found()], by_module) == 1
    assert agreement([found(), found(q0=1)], by_module) == 0


def test_one_search_agrees_with_nobody() -> None:
    assert agreement([found(q0=1)], by_module) is None
    assert agreement([], by_kind) is None


def test_the_table_says_it_for_searches_alone(tmp_path: Path) -> None:
    for seed, architecture in enumerate((found(q0=2, v0=2), found(q0=1, q1=1, v0=2))):
        write_results(tmp_path / f"found-{seed}" / "results.json", results(seed, 0.9))
        architecture.to_json(tmp_path / f"found-{seed}" / "architecture.json")
        write_results(tmp_path / f"lora-{seed}" / "results.json", results(seed, 0.8, "lora", 32, 2000))
    lora, searched = sorted(compare([tmp_path]), key=lambda row: row.method)
    assert (searched.agreement, searched.agreement_by_kind) == (0.75, 1)
    assert (lora.agreement, lora.agreement_by_kind) == (None, None)
    assert "| 75%, by kind 100% |" in to_markdown([searched])
    assert compare([tmp_path / "found-0"])[0].agreement is None
