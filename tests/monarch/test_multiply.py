"""The Monarch product, each way it is computed, against the matrix written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from grids import pairs
from kept import kept_bytes
from monarch_reference import TOLERANCE, dense, factors, relative_error
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

from morenas.monarch import Link, multiply
from morenas.monarch.multiply import WAYS as MULTIPLY_WAYS
from morenas.monarch.multiply import quickest_way

SHAPES = [(48, 48), (24, 60), (50, 37), (7, 5)]  # square, rectangular, divided by hardly any N, narrower than most
Product = Callable[..., Tensor]
WAYS: list[Product] = [multiply, *MULTIPLY_WAYS.values()]


@pairs(nblocks=[1, 2, 3, 4, 8, 16], blk_r=[1, 2, 3, 4, 6, 8], link=Link)
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


@pytest.mark.parametrize("way", MULTIPLY_WAYS.values())
@pytest.mark.parametrize("link", Link)
def test_it_can_be_differentiated_twice(way: Product, link: Link) -> None:
    first, second = factors(3, 2, 7, 8)
    x = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)

    def product(*given: Tensor) -> Tensor:
        return way(given[0], given[1], given[2], link, 8)

    assert gradcheck(product, (x, first, second))
    assert gradgradcheck(product, (x, first, second))


def test_the_way_depends_on_the_rank_and_where_it_is_large_on_the_size_of_the_output() -> None:
    """The cases above cross the first limit, so that ``multiply`` is checked on either side of it."""
    small, large = 2**20, 2**26
    assert quickest_way(1, 64, small) == quickest_way(4, 4, small) == quickest_way(8, 8, large) == "low_rank"
    assert quickest_way(8, 4, small) == quickest_way(16, 8, small) == quickest_way(16, 8, large) == "grouped"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("in_features", "out_features"), [(24, 60), (7, 5)])
def test_what_is_added_is_added_exactly_and_gets_its_gradient(
    way: Product, in_features: int, out_features: int
) -> None:
    first, second = factors(4, 3, in_features, out_features)
    x = torch.randn(2, 3, in_features, dtype=torch.float64)
    plus = torch.randn(2, 3, out_features, dtype=torch.float64, requires_grad=True)
    found = way(x, first, second, Link.CYCLIC, out_features, plus)
    torch.testing.assert_close(found, plus + way(x, first, second, Link.CYCLIC, out_features), atol=1e-13, rtol=1e-13)
    weight = torch.randn_like(found)
    assert torch.equal(torch.autograd.grad(found, plus, weight)[0], weight)
    no_adapter = torch.zeros_like(second)
    assert torch.equal(way(x, first, no_adapter, Link.CYCLIC, out_features, plus), plus)


def test_the_sum_has_the_dtype_of_what_is_added() -> None:
    first, second = factors(4, 3, 24, 60, torch.float32)
    plus = torch.randn(5, 60, dtype=torch.bfloat16)
    assert multiply(torch.randn(5, 24), first, second, Link.CYCLIC, 60, plus).dtype == torch.bfloat16


@pytest.mark.parametrize(("nblocks", "blk_r"), [(1, 4), (4, 4), (16, 8)])
def test_it_keeps_no_more_than_lora_does(nblocks: int, blk_r: int) -> None:
    """LoRA of equal parameters keeps ``x`` and ``r`` values a token; whatever N is, only ``x`` is kept here."""
    tokens, features = 512, 64
    first, second = factors(nblocks, blk_r, features, features, torch.float32)
    x = torch.randn(tokens, features, requires_grad=True)
    kept = kept_bytes(lambda: multiply(x, first, second, Link.CYCLIC, features))
    a, b = torch.randn(blk_r, features, requires_grad=True), torch.randn(features, blk_r, requires_grad=True)
    lora = kept_bytes(lambda: x @ a.T @ b.T)
    weights = 4 * nblocks * blk_r * features + 8 * features * blk_r  # the output side, written out; places of it
    assert kept - lora <= weights - 4 * tokens * blk_r


@pytest.mark.parametrize(("nblocks", "blk_r"), [(4, 3), (16, 8)])
def test_under_autocast_it_computes_as_a_linear_layer_does(nblocks: int, blk_r: int) -> None:
    first, second = factors(nblocks, blk_r, 24, 60, torch.float32)
    x, plus = torch.randn(5, 24, requires_grad=True), torch.randn(5, 60, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = multiply(x, first, second, Link.CYCLIC, 60, plus)
    assert found.dtype == torch.bfloat16
    expected = x.double() @ dense(first.double(), second.double(), Link.CYCLIC, 24, 60).T
    assert relative_error(found.double() - plus, expected) < 3e-2
    gradients = torch.autograd.grad(found.float().sum(), (x, first, second))
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected.sum(), (x, first, second)), strict=True):
        assert gradient.dtype == torch.float32
        assert relative_error(gradient, wanted.double()) < 3e-2


@pytest.mark.parametrize("way", WAYS)
def test_a_backward_pass_under_autocast_works_on_a_forward_pass_without(way: Product) -> None:
    exact = factors(4, 3, 24, 60, torch.float32)
    x = torch.randn(5, 24, requires_grad=True)
    expected = torch.autograd.grad(way(x, *exact, Link.CYCLIC, 60).square().sum(), (x, *exact))
    out = way(x, *exact, Link.CYCLIC, 60)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(out.square().sum(), (x, *exact))
    for gradient, wanted in zip(found, expected, strict=True):
        assert gradient.dtype == torch.float32
        assert relative_error(gradient, wanted) < 3e-2


@pytest.mark.parametrize("way", WAYS)
def test_under_another_default_device_nothing_mixes_devices(way: Product) -> None:
    first, second = factors(7, 3, 21, 35)  # of no other test: what is cached is made here
    with torch.device("meta"):
        found = way(torch.ones(2, 21, dtype=torch.float64, device="cpu"), first, second, Link.CYCLIC, 35)
    assert found.device.type == "cpu"


@pytest.mark.parametrize("way", WAYS)
def test_shapes_alone_are_computed_on_the_meta_device(way: Product) -> None:
    x, first, second = (torch.empty(shape, device="meta") for shape in ((3, 24), (4, 2, 6), (4, 5, 2)))
    assert way(x, first, second, Link.CYCLIC, 20).shape == (3, 20)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("nblocks", "blk_r", "in_features"), [(4, 3, 24), (16, 8, 24), (5, 2, 24)])
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_compiled_in_one_graph_it_gives_the_same(nblocks: int, blk_r: int, in_features: int, backend: str) -> None:
    exact = factors(nblocks, blk_r, in_features, 60)
    x = torch.randn(2, 3, in_features, dtype=torch.float64, requires_grad=True)
    plus = torch.randn(2, 3, 60, dtype=torch.float64)

    def product(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return multiply(x, first, second, Link.CYCLIC, 60, plus)

    compiled = torch.compile(product, fullgraph=True, backend=backend)
    found, expected = compiled(x, *exact), product(x, *exact)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    weight = torch.randn_like(expected)
    for gradient, wanted in zip(
        torch.autograd.grad(found, (x, *exact), weight), torch.autograd.grad(expected, (x, *exact), weight), strict=True
    ):
        torch.testing.assert_close(gradient, wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_functional_transforms_and_checkpointing_give_the_same_gradients(way: Product) -> None:
    exact = factors(4, 3, 24, 60)
    x = torch.randn(5, 24, dtype=torch.float64)

    def loss(first: Tensor, second: Tensor) -> Tensor:
        return way(x, first, second, Link.CYCLIC, 60).square().sum()

    expected = torch.autograd.grad(loss(*exact), exact)
    functional = torch.func.grad(loss, argnums=(0, 1))(*(value.detach() for value in exact))
    checkpointed = torch.autograd.grad(checkpoint(loss, *exact, use_reentrant=False), exact)
    for wanted, one, other in zip(expected, functional, checkpointed, strict=True):
        assert torch.equal(one, wanted) and torch.equal(other, wanted)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ((4, 2, 6), (4, 5, 3), "do not chain"),
        ((4, 2, 6), (3, 5, 2), "do not chain"),
        ((4, 12), (4, 5, 2), "do not chain"),
        ((4, 2, 5), (4, 5, 2), "do not fit 24 features"),
        ((4, 2, 7), (4, 5, 2), "do not fit 24 features"),
        ((4, 2, 6), (4, 4, 2), "do not fit 20 output features"),
        ((4, 2, 6), (4, 6, 2), "do not fit 20 output features"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(first: tuple[int, ...], second: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        multiply(torch.zeros(1, 24), torch.zeros(first), torch.zeros(second), Link.CYCLIC, 20)
