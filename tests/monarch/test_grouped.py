"""The linked product under a mixing tensor, against the sum written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from morenas.monarch import linked_product
from morenas.monarch.blocks import deinterleave, gather, interleave, outer, scatter, scatter_interleaved

SHAPES = [(2, 3, 7, 4, 2, 13, 10), (4, 1, 3, 21, 8, 12, 21), (3, 5, 2, 4, 1, 5, 16), (1, 2, 7, 5, 3, 7, 10)]
"""Input blocks K, output blocks N, their widths p and s, rank r, and n and m of which they may be wider."""


def written_out(x: Tensor, first: Tensor, link: Tensor, second: Tensor, out_features: int) -> Tensor:
    """``y[i N + l] = sum over j, k of second[l, i, j] link[j, l, k] first[k, j] . x[slice k]``."""
    nblocks, height, _ = second.shape
    cells, _, width = first.shape
    padded = torch.nn.functional.pad(x, (0, cells * width - x.shape[-1])).unflatten(-1, (cells, width))
    hidden = torch.einsum("...kp,kjp->...kj", padded, first)
    out = torch.einsum("lij,jlk,...kj->...il", second, link, hidden)
    return out.reshape(*x.shape[:-1], height * nblocks)[..., :out_features]


def given(shape: tuple[int, ...]) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], int]:
    """``x``, the blocks and the link between them, and ``m``."""
    cells, nblocks, width, height, rank, n, m = shape
    generator = torch.Generator().manual_seed(sum(shape))
    sizes = [(2, 3, n), (cells, rank, width), (rank, nblocks, cells), (nblocks, height, rank)]
    x, first, link, second = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    return (x.requires_grad_(), first.requires_grad_(), link.requires_grad_(), second.requires_grad_()), m


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("adding", [True, False])
def test_values_and_all_gradients_equal_the_sum_written_out(shape: tuple[int, ...], adding: bool) -> None:
    tensors, m = given(shape)
    plus = torch.randn(2, 3, m, dtype=torch.float64, requires_grad=True)
    found = linked_product(*tensors, m, plus if adding else None)
    expected = written_out(*tensors, m) + (plus if adding else 0)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    weight = torch.randn_like(expected)
    inputs = [*tensors, *([plus] if adding else [])]
    for gradient, wanted in zip(
        torch.autograd.grad(found, inputs, weight), torch.autograd.grad(expected, inputs, weight), strict=True
    ):
        torch.testing.assert_close(gradient, wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_can_be_differentiated_twice(shape: tuple[int, ...]) -> None:
    (several, *blocks), m = given(shape)
    tensors = (several[0, :2].detach().requires_grad_(), *blocks)

    def product(x: Tensor, first: Tensor, link: Tensor, second: Tensor) -> Tensor:
        return linked_product(x, first, link, second, m)

    assert gradcheck(product, tensors)
    assert gradgradcheck(product, tensors)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (0, 2), (1, 3)])
def test_each_gradient_is_the_same_where_it_is_asked_for_alone(wanted: tuple[int, ...]) -> None:
    tensors, m = given(SHAPES[0])
    expected = torch.autograd.grad(linked_product(*tensors, m).square().sum(), tensors)
    alone = [tensor.detach().requires_grad_(index in wanted) for index, tensor in enumerate(tensors)]
    x, first, link, second = alone
    asked = [alone[index] for index in wanted]
    found = torch.autograd.grad(linked_product(x, first, link, second, m).square().sum(), asked)
    assert all(torch.equal(gradient, expected[index]) for gradient, index in zip(found, wanted, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dealing_out_is_exact_and_is_undone(dtype: torch.dtype) -> None:
    x = torch.randn(5, 24).to(dtype)
    dealt = interleave(x, 4)
    assert torch.equal(dealt, x.view(5, 4, 6).transpose(1, 2).reshape(5, 24))
    assert torch.equal(deinterleave(dealt, 4), x)


@pytest.mark.parametrize("width", [5, 64, 512])
@pytest.mark.parametrize("nblocks", [1, 2, 8])
def test_rows_moved_apart_hold_the_same_and_so_does_what_autograd_sees(nblocks: int, width: int) -> None:
    """Float64 rows of 256 features and of multiples of them would lie on a cache alias."""
    hidden = torch.randn(nblocks * 3, 7, dtype=torch.float64)
    blocks = torch.randn(nblocks, 3, width, dtype=torch.float64)
    expected = hidden.T @ torch.block_diag(*blocks)
    with torch.no_grad():
        apart, dealt = scatter(hidden, blocks), scatter_interleaved(hidden, blocks)
    assert (apart.stride(0) > nblocks * width) == (nblocks * width % 256 == 0)
    for found in (apart, scatter(hidden, blocks)):
        torch.testing.assert_close(found, expected)
    for found in (dealt, scatter_interleaved(hidden, blocks)):
        torch.testing.assert_close(found, interleave(expected, nblocks))


@pytest.mark.parametrize("nblocks", [1, 3])
def test_gather_and_outer_are_the_adjoints_of_scatter(nblocks: int) -> None:
    hidden = torch.randn(nblocks * 2, 7, dtype=torch.float64, requires_grad=True)
    blocks = torch.randn(nblocks, 2, 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(7, nblocks * 5, dtype=torch.float64)
    by_hidden, by_blocks = torch.autograd.grad(scatter(hidden, blocks), (hidden, blocks), upstream)
    torch.testing.assert_close(gather(upstream, blocks), by_hidden)
    torch.testing.assert_close(outer(hidden, upstream, nblocks), by_blocks)
