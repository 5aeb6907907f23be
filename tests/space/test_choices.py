from __future__ import annotations

import pytest
import torch

from morenas.base.errors import InputError
from morenas.bilevel import expected_cost
from morenas.space import Choice, SearchSpace, build_space

MODULES = {
    f"encoder.layer.{depth}.{kind}": shape
    for depth in (0, 1)
    for kind, shape in {"attention.query": (16, 16), "attention.value": (16, 8), "mlp.0": (16, 24)}.items()
}


def space(granularity: str = "module", pad: bool = True) -> SearchSpace:
    return build_space(MODULES, [1, 2, 4], [0, 1, 2], granularity, pad)


def test_choices_are_none_and_every_pair_once() -> None:
    choices = build_space(MODULES, [4, 1, 4], [2, 0, 1]).choices
    assert choices == (Choice(1, 0), Choice(1, 1), Choice(1, 2), Choice(4, 1), Choice(4, 2))
    assert [str(choice) for choice in choices[:3]] == ["none", "N1r1", "N1r2"]


@pytest.mark.parametrize(
    ("granularity", "groups"),
    [
        ("module", list(MODULES)),
        ("type", ["encoder.layer.*.attention.query", "encoder.layer.*.attention.value", "encoder.layer.*.mlp.0"]),
        ("layer", ["encoder.layer.0", "encoder.layer.1"]),
        ("all", ["all"]),
    ],
)
def test_groups_partition_the_modules(granularity: str, groups: list[str]) -> None:
    built = space(granularity)
    assert list(built.groups) == groups
    assert sorted(name for names in built.groups.values() for name in names) == sorted(MODULES)


@pytest.mark.parametrize("granularity", ["module", "type", "layer", "all"])
def test_costs_are_parameters_of_whole_groups(granularity: str) -> None:
    built = space(granularity)
    costs = built.costs()
    assert costs.shape == (len(built.groups), len(built.choices))
    for row, names in zip(costs.tolist(), built.groups.values(), strict=True):
        features = sum(sum(MODULES[name]) for name in names)
        assert row == [choice.blk_r * features for choice in built.choices]


def test_padded_blocks_cost_what_is_stored() -> None:
    assert build_space({"a": (10, 7)}, [4], [1]).costs().tolist() == [[4 * (3 + 2)]]


def test_without_padding_only_dividing_counts_are_admissible() -> None:
    built = build_space({"a": (12, 18)}, [1, 3, 4, 6], [0, 1], pad=False)
    counts = [choice.nblocks for choice, ok in zip(built.choices, built.admissible()[0], strict=True) if ok]
    assert counts == [1, 1, 3, 6]


def test_counts_above_a_width_are_not_admissible_even_padded() -> None:
    built = build_space({"a": (3, 50)}, [1, 2, 4], [1])
    assert built.admissible().tolist() == [[True, True, False]]


def test_a_module_that_nothing_fits_is_named() -> None:
    with pytest.raises(InputError, match=r"'b'.*\[4\].*space\.pad=false.*set space\.pad=true"):
        build_space({"a": (8, 8), "b": (10, 8)}, [4], [0, 1], pad=False)


def test_shapes_leave_out_modules_without_an_adapter() -> None:
    built = space("layer")
    shapes = built.shapes([0, 3])
    assert set(shapes) == {name for name in MODULES if ".1." in name}
    assert set(shapes.values()) == {built.choices[3]}


@pytest.mark.parametrize(
    ("nblocks", "ranks", "granularity", "message"),
    [
        ([], [1], "module", r"space\.nblocks=\[\]"),
        ([0], [1], "module", r"space\.nblocks=\[0\].*at least 1"),
        ([1], [-1], "module", r"space\.ranks=\[-1\].*at least 0"),
        ([1], [0], "module", "rank 0 alone"),
        ([1], [1], "modul", "did you mean 'module'"),
    ],
)
def test_bad_values_are_refused(nblocks: list[int], ranks: list[int], granularity: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_space(MODULES, nblocks, ranks, granularity)


def test_expected_cost_of_a_distribution_equals_the_sum_by_enumeration() -> None:
    built = build_space(dict(list(MODULES.items())[:2]), [1, 2], [0, 1, 2])
    costs = built.costs().double()
    probs = torch.softmax(torch.randn(costs.shape, generator=torch.Generator().manual_seed(0)).double(), dim=-1)
    total = sum(
        float(probs[0, i] * probs[1, j] * (costs[0, i] + costs[1, j]))
        for i in range(costs.shape[1])
        for j in range(costs.shape[1])
    )
    assert float(expected_cost(probs, costs)) == pytest.approx(total, rel=1e-12)
