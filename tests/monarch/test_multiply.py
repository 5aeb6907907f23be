"""The Monarch product, each way it is computed, against the matrix written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from monarch_reference import TOLERANCE, dense, factors, relative_error
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from morenas.monarch import Link, multiply
from morenas.monarch.multiply import LOW_RANK_LIMIT, grouped_product, low_rank_product

SHAPES = [(48, 48), (24, 60), (50, 37), (7, 5)]  # square, rectangular, divided by hardly any N, narrower than most
Product = Callable[[Tensor, Tensor, Tensor, Link, int], Tensor]
WAYS: list[Product] = [multiply, grouped_product, low_rank_product]


@pytest.mark.parametrize("link", Link)
@pytest.mark.parametrize("blk_r", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("nblocks", [1, 2, 3, 4, 8, 16])
def test_values_and_gradients_equal_the_dense_reference(nblocks: int, blk_r: int, link: Link) -> None:
    for in_features, out_features in SHAPES:
        exact = factors(nblocks, blk_r, in_features, out_features)
        x = torch.randn(2, 3, in_features, dtype=torch.float64, requires_grad=True)
        expected = x @ dense(*exact, link, in_features, out_features).T
        weight = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, (x, *exact), weight)
        for way in WAYS:
            for dtype, tolerance in TOLERANCE.items():
                given = [value.detach().to(dtype).requires_grad_() for value in (x, *exact)]
                found = way(given[0], given[1], given[2], link, out_features)
                assert found.dtype == dtype
                assert relative_error(found, expected) < tolerance
                for gradient, reference in zip(
                    torch.autograd.grad(found, given, weight.to(dtype)), wanted, strict=True
                ):
                    assert relative_error(gradient, reference) < tolerance


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [(), (0,), (5,), (2, 3), (2, 1, 3)])
def test_any_batch_shape(batch: tuple[int, ...], way: Product) -> None:
    given = torch.randn(*batch, 24, dtype=torch.float64, requires_grad=True), *factors(4, 3, 24, 60)
    found = way(*given, Link.CYCLIC, 60)
    expected = given[0] @ dense(*given[1:], Link.CYCLIC, 24, 60).T
    assert found.shape == (*batch, 60)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(expected)
    for gradient, wanted in zip(
        torch.autograd.grad(found, given, weight), torch.autograd.grad(expected, given, weight), strict=True
    ):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("way", [grouped_product, low_rank_product])
@pytest.mark.parametrize("link", Link)
def test_it_can_be_differentiated_twice(way: Product, link: Link) -> None:
    first, second = factors(3, 2, 7, 8)
    x = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)

    def product(*given: Tensor) -> Tensor:
        return way(given[0], given[1], given[2], link, 8)

    assert gradcheck(product, (x, first, second))
    assert gradgradcheck(product, (x, first, second))


def test_both_ways_are_taken() -> None:
    """The cases above cross the limit, so that ``multiply`` is checked on either side of it."""
    assert 1 * 1 <= LOW_RANK_LIMIT < 16 * 8


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ((4, 2, 6), (4, 5, 3), "do not chain"),
        ((4, 2, 6), (3, 5, 2), "do not chain"),
        ((4, 12), (4, 5, 2), "do not chain"),
        ((4, 2, 5), (4, 5, 2), "do not fit 24 features"),
        ((4, 2, 7), (4, 5, 2), "do not fit 24 features"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(first: tuple[int, ...], second: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        multiply(torch.zeros(1, 24), torch.zeros(first), torch.zeros(second), Link.CYCLIC, 20)
