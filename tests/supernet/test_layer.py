"""The one-pass layer against the sum over all candidates, built from discrete Monarch products."""

from __future__ import annotations

import pytest
import torch
from monarch_reference import dense
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from morenas.monarch import Link, multiply, project, to_dense
from morenas.space import Choice
from morenas.supernet import SupernetLinear

POWERS = [Choice(1, 0), *(Choice(n, r) for n in (1, 2, 4, 8) for r in (1, 2, 3, 6))]
MIXED = [Choice(1, 0), *(Choice(n, r) for n in (1, 3, 4) for r in (1, 4))]
SHAPES = [(16, 24, POWERS), (48, 12, MIXED), (13, 17, POWERS), (17, 9, MIXED), (7, 50, MIXED)]


def trained_layer(n: int, m: int, choices: list[Choice], sharing: str, seed: int = 0) -> SupernetLinear:
    base = nn.Linear(n, m, dtype=torch.float64)
    layer = SupernetLinear(base, (n, m), choices, sharing, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        layer.second.normal_(generator=torch.Generator().manual_seed(seed + 1))
    return layer


def probabilities(choices: list[Choice], seed: int = 2) -> Tensor:
    logits = torch.randn(len(choices), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.softmax(logits, dim=0)


def enumerated(layer: SupernetLinear, x: Tensor, probs: Tensor) -> Tensor:
    """The weighted sum over candidates, each computed alone."""
    out = torch.zeros(*x.shape[:-1], layer.grid.out_features, dtype=x.dtype)
    for weight, choice in zip(probs, layer.choices, strict=True):
        if choice.blk_r:
            out = out + weight * multiply(x, *layer.factors(choice), Link.CYCLIC, layer.grid.out_features)
    return out


@pytest.mark.parametrize("sharing", ["full", "per_nblocks"])
@pytest.mark.parametrize(("n", "m", "choices"), SHAPES)
def test_one_pass_equals_the_weighted_sum_over_all_candidates(
    n: int, m: int, choices: list[Choice], sharing: str
) -> None:
    layer = trained_layer(n, m, choices, sharing)
    x = torch.randn(2, 5, n, dtype=torch.float64)
    probs = probabilities(choices)
    layer.mix(probs)
    torch.testing.assert_close(layer(x) - layer.base(x), enumerated(layer, x, probs), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("sharing", ["full", "per_nblocks"])
@pytest.mark.parametrize(("n", "m", "choices"), SHAPES)
def test_one_hot_is_exactly_the_discrete_adapter(n: int, m: int, choices: list[Choice], sharing: str) -> None:
    layer = trained_layer(n, m, choices, sharing).float()
    # Small whole numbers, whose sums and products are exact in float32 whatever their order.
    with torch.no_grad():
        layer.first.copy_(torch.randint(-4, 5, layer.first.shape))
        layer.second.copy_(torch.randint(-4, 5, layer.second.shape))
    x = torch.randint(-4, 5, (3, n)).float()
    for index, choice in enumerate(choices):
        link = layer.link_tensor(torch.eye(len(choices))[index])
        alone = layer.adapter(x, link)
        if choice.blk_r == 0:
            assert torch.equal(alone, torch.zeros_like(alone))
        else:
            assert torch.equal(alone, multiply(x, *layer.factors(choice), Link.CYCLIC, m)), str(choice)


@pytest.mark.parametrize("sharing", ["full", "per_nblocks"])
def test_gradients_equal_those_of_the_sum_and_reach_every_choice(sharing: str) -> None:
    n, m, choices = 16, 24, POWERS
    layer = trained_layer(n, m, choices, sharing)
    x = torch.randn(6, n, dtype=torch.float64, requires_grad=True)
    out_weights = torch.randn(6, m, dtype=torch.float64)
    probs = probabilities(choices).requires_grad_()
    relaxed = (layer.adapter(x, layer.link_tensor(probs)) * out_weights).sum()
    grad_probs, grad_x, grad_first = torch.autograd.grad(relaxed, [probs, x, layer.first])
    reference = (enumerated(layer, x, probs) * out_weights).sum()
    expected_probs, expected_x = torch.autograd.grad(reference, [probs, x])
    torch.testing.assert_close(grad_probs, expected_probs)
    torch.testing.assert_close(grad_x, expected_x)
    assert (grad_probs[1:] != 0).all()
    assert grad_probs[0] == 0  # "none" adds nothing; the other choices' gradients push it through the softmax
    assert (grad_first.abs().sum(dim=1) > 0).all()


def test_double_backward_agrees_with_finite_differences() -> None:
    layer = trained_layer(12, 8, [Choice(1, 0), Choice(2, 1), Choice(4, 2)], "full")
    x = torch.randn(3, 12, dtype=torch.float64)

    def output(probs: Tensor, first: Tensor) -> Tensor:
        layer_first = layer.first
        layer._parameters["first"] = first  # type: ignore[assignment]
        try:
            return layer.adapter(x, layer.link_tensor(probs))
        finally:
            layer._parameters["first"] = layer_first

    probs = probabilities(list(layer.choices)).requires_grad_()
    assert torch.autograd.gradgradcheck(output, (probs, layer.first.detach().clone().requires_grad_()))


def test_starts_as_the_identity() -> None:
    base = nn.Linear(10, 6)
    layer = SupernetLinear(base, (10, 6), POWERS[:5])
    layer.mix(probabilities(POWERS[:5]))
    x = torch.randn(4, 10)
    assert torch.equal(layer(x), base(x))


def test_padding_takes_no_part() -> None:
    """Blocks cut from a width they do not divide are padded with zeros, which the dense form does not see."""
    layer = trained_layer(13, 17, POWERS, "full")
    choice = Choice(8, 3)
    first, second = layer.factors(choice)
    assert first.shape == (8, 3, 2)
    assert second.shape == (8, 3, 3)
    x = torch.randn(4, 13, dtype=torch.float64)
    dense = to_dense(first, second, Link.CYCLIC, 13, 17)
    probs = torch.eye(len(POWERS), dtype=torch.float64)[POWERS.index(choice)]
    torch.testing.assert_close(layer.adapter(x, layer.link_tensor(probs)), x @ dense.T)


def test_a_bfloat16_base_keeps_float32_adapters_and_its_own_output_dtype() -> None:
    base = nn.Linear(8, 8, dtype=torch.bfloat16)
    layer = SupernetLinear(base, (8, 8), POWERS[:5])
    layer.mix(probabilities(POWERS[:5]).float())
    assert layer.first.dtype == torch.float32
    assert layer(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_calling_before_mixing_and_unknown_sharing_are_refused() -> None:
    with pytest.raises(RuntimeError, match="mix"):
        SupernetLinear(nn.Linear(4, 4), (4, 4), [Choice(1, 1)])(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="sharing='half'"):
        SupernetLinear(nn.Linear(4, 4), (4, 4), [Choice(1, 1)], "half")


def test_it_shows_the_weight_and_bias_of_the_layer_it_wraps() -> None:
    # T5 reads the dtype of a linear layer's weight in its forward pass.
    layer = trained_layer(16, 24, POWERS, "full")
    assert layer.weight is layer.base.weight and layer.bias is layer.base.bias


def test_under_autocast_it_gives_what_the_wrapped_layer_gives() -> None:
    layer = SupernetLinear(nn.Linear(16, 24), (16, 24), POWERS)
    layer.mix(probabilities(POWERS))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 16)).dtype == layer.base(torch.randn(3, 16)).dtype == torch.bfloat16


IRREGULAR = [Choice(1, 0), Choice(2, 1), Choice(3, 4), Choice(5, 2)]
OPENED = [*SHAPES, (31, 10, IRREGULAR), (4, 40, IRREGULAR), (5, 3, POWERS)]


def all_of(layer: SupernetLinear) -> Tensor:
    """The sum over block counts of their adapters at the largest rank, written out."""
    n, m = layer.grid.in_features, layer.grid.out_features
    return sum(
        (dense(*layer.factors(Choice(count, layer.max_rank)), Link.CYCLIC, n, m) for count in layer.counts),
        torch.zeros(m, n, dtype=layer.first.dtype),
    )


@pytest.mark.parametrize("sharing", ["full", "per_nblocks"])
@pytest.mark.parametrize("tokens", [3, 400])
@pytest.mark.parametrize(("n", "m", "choices"), OPENED)
def test_open_adds_the_adapters_of_every_block_count_at_the_largest_rank(
    n: int, m: int, choices: list[Choice], tokens: int, sharing: str
) -> None:
    layer = trained_layer(n, m, choices, sharing)
    layer.open()
    x = torch.randn(tokens, n, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer.base(x) + x @ all_of(layer).T, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("sharing", ["full", "per_nblocks"])
@pytest.mark.parametrize(("n", "m", "choices"), OPENED)
def test_change_is_the_matrix_that_the_pass_adds(n: int, m: int, choices: list[Choice], sharing: str) -> None:
    layer = trained_layer(n, m, choices, sharing)
    layer.open()
    assert not layer.change().requires_grad
    torch.testing.assert_close(layer.change(), all_of(layer), atol=1e-12, rtol=1e-12)
    probs = probabilities(choices)
    layer.mix(probs)
    expected = enumerated(layer, torch.eye(n, dtype=torch.float64), probs).T
    torch.testing.assert_close(layer.change(), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("sharing", ["full", "per_nblocks"])
def test_change_of_whole_numbers_is_exact(sharing: str) -> None:
    layer = trained_layer(13, 17, POWERS, sharing)
    with torch.no_grad():
        layer.first.copy_(torch.randint(-4, 5, layer.first.shape))
        layer.second.copy_(torch.randint(-4, 5, layer.second.shape))
    layer.open()
    assert torch.equal(layer.change(), all_of(layer))


def test_open_reaches_every_slot_with_gradients() -> None:
    layer = trained_layer(16, 24, POWERS, "per_nblocks")
    layer.open()
    grads = torch.autograd.grad(
        layer(torch.randn(5, 16, dtype=torch.float64)).square().sum(), [*layer.parameters()][:2]
    )
    assert all((grad.abs().sum(dim=1) > 0).all() for grad in grads)


@pytest.mark.parametrize("tokens", [2, 300])
def test_open_and_drawn_passes_serve_conv1d(tokens: int) -> None:
    base = Conv1D(24, 16).double()
    layer = SupernetLinear(base, (16, 24), POWERS, "per_nblocks").double()
    torch.nn.init.normal_(layer.second)
    x = torch.randn(tokens, 16, dtype=torch.float64)
    layer.open()
    torch.testing.assert_close(layer(x), base(x) + x @ all_of(layer).T)
    torch.testing.assert_close(layer.change(), all_of(layer))
    layer.draw(Choice(4, 2))
    adapter = dense(*layer.factors(Choice(4, 2)), Link.CYCLIC, 16, 24)
    torch.testing.assert_close(layer(x), base(x) + x @ adapter.T)


def test_change_of_a_half_precision_layer_is_float32() -> None:
    layer = SupernetLinear(nn.Linear(8, 8, dtype=torch.bfloat16), (8, 8), POWERS)
    layer.open()
    assert layer.change().dtype == torch.float32


@pytest.mark.parametrize("last", ["nothing", "draw"])
def test_change_without_a_mixture_is_refused(last: str) -> None:
    layer = trained_layer(16, 24, POWERS, "full")
    if last == "draw":
        layer.open()
        layer.draw(Choice(2, 1))
    with pytest.raises(RuntimeError, match="open"):
        layer.change()


@pytest.mark.parametrize(("n", "m", "choices"), OPENED)
def test_loaded_blocks_are_what_is_drawn_and_what_factors_return(n: int, m: int, choices: list[Choice]) -> None:
    layer = trained_layer(n, m, choices, "per_nblocks")
    target = torch.randn(m, n, dtype=torch.float64)
    blocks = {count: project(target, count, layer.max_rank, Link.CYCLIC) for count in layer.counts}
    layer.load(blocks)
    x = torch.randn(4, n, dtype=torch.float64)
    for choice in choices[1:]:
        first, second = blocks[choice.nblocks]
        first, second = first[:, : choice.blk_r], second[:, :, : choice.blk_r]
        found = layer.factors(choice)
        assert torch.equal(found[0], first) and torch.equal(found[1], second)
        layer.draw(choice)
        expected = layer.base(x) + x @ dense(first, second, Link.CYCLIC, n, m).T
        torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=1e-12)
    layer.open()
    torch.testing.assert_close(layer.change(), all_of(layer), atol=1e-12, rtol=1e-12)


def test_loading_drops_what_lies_in_the_padding() -> None:
    layer = trained_layer(13, 17, MIXED, "per_nblocks")
    ones = {
        count: (torch.ones(count, 4, -(-13 // count)), torch.ones(count, -(-17 // count), 4)) for count in (1, 3, 4)
    }
    layer.load(ones)
    first, second = layer.factors(Choice(4, 4))
    assert float(first.sum()) == 13 * 4 and float(second.sum()) == 17 * 4


def test_blocks_that_do_not_fit_are_refused_and_change_nothing() -> None:
    shared, layer = (trained_layer(16, 24, POWERS[:9], sharing) for sharing in ("full", "per_nblocks"))
    blocks = {count: project(torch.randn(24, 16), count, 6, Link.CYCLIC) for count in (1, 2)}
    with pytest.raises(ValueError, match="sharing='full'"):
        shared.load(blocks)
    before = layer.first.detach().clone(), layer.second.detach().clone()
    first, second = blocks[2]
    for wrong in ({1: blocks[1]}, {**blocks, 2: (first[:, :1], second[:, :, :1])}, {**blocks, 2: blocks[1]}):
        with pytest.raises(ValueError, match="nblocks=2"):
            layer.load(wrong)
    assert torch.equal(layer.first, before[0]) and torch.equal(layer.second, before[1])
