"""The best Monarch approximation of a dense matrix."""

from __future__ import annotations

import pytest
import torch
from grids import pairs
from monarch_reference import TOLERANCE, factors, relative_error

from morenas.monarch import Link, project, to_dense

SHAPES = [(20, 12), (19, 13)]  # rectangular; divided by no N but 1
over_the_classes = pairs(nblocks=[1, 2, 3, 4, 8, 16], blk_r=[1, 2, 3, 4, 6, 8], shape=SHAPES, link=Link)


@over_the_classes
def test_a_matrix_of_the_class_is_its_own_projection(
    nblocks: int, blk_r: int, shape: tuple[int, int], link: Link
) -> None:
    in_features, out_features = shape
    matrix = to_dense(*factors(nblocks, blk_r, *shape), link, in_features, out_features).detach()
    found = to_dense(*project(matrix, nblocks, blk_r, link), link, in_features, out_features)
    torch.testing.assert_close(found, matrix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_as_near_as_the_precision_allows(dtype: torch.dtype) -> None:
    matrix = torch.randn(13, 19, dtype=torch.float64)
    best = to_dense(*project(matrix, 4, 3, Link.CYCLIC), Link.CYCLIC, 19, 13)
    first, second = project(matrix.to(dtype), 4, 3, Link.CYCLIC)
    assert first.dtype == second.dtype == dtype
    assert relative_error(to_dense(first, second, Link.CYCLIC, 19, 13), best) < TOLERANCE[dtype]


@over_the_classes
def test_the_error_is_the_energy_that_truncated_svds_leave(
    nblocks: int, blk_r: int, shape: tuple[int, int], link: Link
) -> None:
    in_features, out_features = shape
    matrix = torch.randn(out_features, in_features, dtype=torch.float64)
    found = to_dense(*project(matrix, nblocks, blk_r, link), link, in_features, out_features)
    width = -(-in_features // nblocks)
    left = 0.0
    for k in range(nblocks):
        for l in range(nblocks):  # noqa: E741
            piece = matrix[l::nblocks, k * width : (k + 1) * width]
            if link is Link.CYCLIC:
                slots = sum((k + j) % nblocks == l for j in range(blk_r))
            else:
                slots = sum((k * blk_r + j) % nblocks == l for j in range(blk_r))
            left += float(torch.linalg.svdvals(piece)[slots:].square().sum()) if piece.numel() else 0.0
    assert float((matrix - found).square().sum()) == pytest.approx(left, rel=1e-10, abs=1e-12)


def test_the_gradient_of_the_error_vanishes_at_the_projection() -> None:
    matrix = torch.randn(12, 20, dtype=torch.float64)
    first, second = (factor.requires_grad_() for factor in project(matrix, 4, 3, Link.CYCLIC))
    error = (to_dense(first, second, Link.CYCLIC, 20, 12) - matrix).square().sum()
    for gradient in torch.autograd.grad(error, (first, second)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0)
