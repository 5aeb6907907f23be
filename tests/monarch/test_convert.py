"""Other forms of a Monarch matrix."""

from __future__ import annotations

import pytest
import torch
from grids import pairs
from monarch_reference import TOLERANCE, dense, factors, relative_error

from morenas.monarch import Link, to_dense, to_lora

CASES = [(1, 3, 20, 12), (2, 2, 20, 12), (4, 3, 20, 12), (4, 2, 19, 13), (16, 8, 48, 50)]


@pairs(nblocks=[1, 2, 3, 4, 8, 16], blk_r=[1, 2, 3, 4, 6, 8], link=Link)
def test_the_dense_form_and_its_gradients_are_those_of_the_definition(nblocks: int, blk_r: int, link: Link) -> None:
    for shape in [(24, 36), (19, 13)]:  # rectangular; divided by no N but 1
        exact = factors(nblocks, blk_r, *shape)
        expected = dense(*exact, link, *shape)
        weight = torch.randn_like(expected)
        wanted = (expected, *torch.autograd.grad(expected, exact, weight))
        for dtype, tolerance in TOLERANCE.items():
            first, second = (value.detach().to(dtype).requires_grad_() for value in exact)
            found = to_dense(first, second, link, *shape)
            assert found.dtype == dtype
            gradients = torch.autograd.grad(found, (first, second), weight.to(dtype))
            for one, other in zip((found, *gradients), wanted, strict=True):
                assert relative_error(one, other) < tolerance


@pytest.mark.parametrize("link", Link)
@pytest.mark.parametrize("case", CASES)
def test_the_lora_form_is_the_same_matrix_at_rank_n_times_r(case: tuple[int, int, int, int], link: Link) -> None:
    nblocks, blk_r, in_features, out_features = case
    first, second = factors(*case)
    a, b = to_lora(first, second, link, in_features, out_features)
    assert a.shape == (nblocks * blk_r, in_features) and b.shape == (out_features, nblocks * blk_r)
    torch.testing.assert_close(b @ a, dense(first, second, link, in_features, out_features))
    assert int((a != 0).sum()) <= first.numel() and int((b != 0).sum()) <= second.numel()


def test_one_block_is_lora() -> None:
    first, second = factors(1, 3, 20, 12)
    a, b = to_lora(first, second, Link.CYCLIC, 20, 12)
    assert torch.equal(a, first[0]) and torch.equal(b, second[0])


@pytest.mark.parametrize("link", Link)
def test_the_rank_is_up_to_n_times_r(link: Link) -> None:
    first, second = factors(4, 2, 32, 32)
    assert int(torch.linalg.matrix_rank(to_dense(first, second, link, 32, 32))) == 8


def test_factors_that_do_not_chain_are_refused() -> None:
    with pytest.raises(ValueError, match="do not chain"):
        to_lora(torch.zeros(2, 3, 4), torch.zeros(2, 4, 2), Link.CYCLIC, 8, 8)
