"""Merged into the frozen weight or beside it, a relaxed adapter is the same function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from kept import kept_bytes
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from morenas.monarch import Link, to_dense
from morenas.space import Choice
from morenas.supernet import SHARINGS, SupernetLinear, layer, merged
from morenas.supernet.grid import Grid

POWERS = [Choice(1, 0), *(Choice(n, r) for n in (1, 2, 4, 8) for r in (1, 2, 3))]
MIXED = [Choice(1, 0), *(Choice(n, r) for n in (1, 3, 4) for r in (1, 4))]
SHAPES = [(16, 24, POWERS), (48, 12, MIXED), (13, 17, POWERS), (17, 9, MIXED), (7, 50, MIXED)]
WAYS = {"merged": True, "beside": False}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every pass goes this way, and the test fails if it does not."""
    force(monkeypatch, request.param)
    return cast(str, request.param)


def force(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(layer, "merging_is_cheaper", lambda *shape: WAYS[way])
    other = "linked_product" if way == "merged" else "merged_linear"
    monkeypatch.setattr(layer, other, None)


def built(n: int, m: int, choices: list[Choice], sharing: str, base: nn.Module | None = None) -> SupernetLinear:
    torch.manual_seed(0)
    base = base or nn.Linear(n, m, dtype=torch.float64)
    made = SupernetLinear(base.requires_grad_(False), (n, m), choices, sharing, torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.second.normal_(generator=torch.Generator().manual_seed(1))
    return made


def probabilities(choices: list[Choice]) -> Tensor:
    logits = torch.randn(len(choices), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return torch.softmax(logits, dim=0).requires_grad_()


def written_out(made: SupernetLinear, probs: Tensor) -> Tensor:
    """The sum over all candidates of their matrices, through which gradients flow."""
    n, m = made.grid.in_features, made.grid.out_features
    total = torch.zeros(m, n, dtype=torch.float64)
    for weight, choice in zip(probs, made.choices, strict=True):
        if choice.blk_r:
            total = total + weight * to_dense(*made._blocks(choice), Link.CYCLIC, n, m)
    return total


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize(("n", "m", "choices"), SHAPES)
def test_values_and_gradients_equal_those_of_the_matrices_written_out(
    n: int, m: int, choices: list[Choice], sharing: str, way: str
) -> None:
    made, probs = built(n, m, choices, sharing), probabilities(choices)
    x = torch.randn(2, 3, n, dtype=torch.float64, requires_grad=True)
    inputs = [x, made.first, made.second, probs]
    expected = made.base(x) + x @ written_out(made, probs).T
    made.mix(probs)
    found = made(x)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    weight = torch.randn_like(expected)
    for gradient, wanted in zip(
        torch.autograd.grad(found, inputs, weight), torch.autograd.grad(expected, inputs, weight), strict=True
    ):
        torch.testing.assert_close(gradient, wanted, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("wanted", [("x",), ("first",), ("second",), ("probs",), ("x", "probs"), ("first", "second")])
def test_each_gradient_is_the_same_where_it_is_asked_for_alone(wanted: tuple[str, ...], way: str) -> None:
    found = []
    for names in (("x", "first", "second", "probs"), wanted):
        made, probs = built(16, 24, POWERS, "full"), probabilities(POWERS)
        x = torch.linspace(-1, 1, 32, dtype=torch.float64).view(2, 16).requires_grad_()
        inputs = {"x": x, "first": made.first, "second": made.second, "probs": probs}
        for name, tensor in inputs.items():
            tensor.requires_grad_(name in names)
        made.mix(probs)
        grads = torch.autograd.grad(made(x).square().sum(), [inputs[name] for name in names])
        found.append(dict(zip(names, grads, strict=True)))
    assert all(torch.equal(found[1][name], found[0][name]) for name in wanted)


@pytest.mark.parametrize("bias", [True, False])
def test_a_bias_and_a_transposed_weight_are_taken_as_they_are(bias: bool, way: str) -> None:
    conv = Conv1D(24, 16).double()
    for base in (conv, nn.Linear(16, 24, bias=bias, dtype=torch.float64)):
        made, probs = built(16, 24, POWERS, "full", base), probabilities(POWERS)
        x = torch.randn(3, 16, dtype=torch.float64)
        made.mix(probs)
        torch.testing.assert_close(made(x), base(x) + x @ written_out(made, probs).T, atol=1e-12, rtol=1e-12)


def test_it_can_be_differentiated_twice(way: str) -> None:
    made = built(12, 8, [Choice(1, 0), Choice(2, 1), Choice(4, 2)], "full")
    x = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)

    def output(x: Tensor, probs: Tensor, first: Tensor, second: Tensor) -> Tensor:
        made.mix(probs)
        return torch.func.functional_call(made, {"first": first, "second": second}, (x,))

    given = (x, probabilities(list(made.choices)), made.first, made.second)
    assert torch.autograd.gradcheck(output, given)
    assert torch.autograd.gradgradcheck(output, given)


def test_checkpointing_and_compiling_give_the_same(way: str) -> None:
    made, probs = built(16, 24, POWERS, "per_nblocks"), probabilities(POWERS)
    x = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    inputs = [x, made.first, made.second]
    made.mix(probs.detach())
    expected = torch.autograd.grad(made(x).square().sum(), inputs)
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    calls: list[Callable[[Tensor], Any]] = [lambda x: checkpoint(made, x, use_reentrant=False), compiled]
    for call in calls:
        for gradient, wanted in zip(torch.autograd.grad(call(x).square().sum(), inputs), expected, strict=True):
            torch.testing.assert_close(gradient, wanted, atol=1e-12, rtol=1e-12)


def test_a_pass_in_inference_mode_leaves_nothing_behind_that_training_cannot_use(way: str) -> None:
    choices = [Choice(1, 0), Choice(3, 2), Choice(5, 2)]  # of no other test: what is cached is made here
    made, probs = built(22, 26, choices, "full"), probabilities(choices)
    x = torch.randn(3, 22, dtype=torch.float64)
    with torch.inference_mode():
        made.mix(probs)
        made(x)
    made.mix(probs)
    grads = torch.autograd.grad(made(x).square().sum(), [made.first, made.second, probs])
    assert all(bool((grad != 0).any()) for grad in grads)


def test_of_a_pass_no_more_than_the_input_is_kept(way: str) -> None:
    made = built(64, 64, POWERS, "per_nblocks")
    x = torch.randn(4096, 64, dtype=torch.float64, requires_grad=True)
    made.mix(probabilities(POWERS))
    factors = made.first.nbytes + made.second.nbytes + made.weight.nbytes + 8 * 2 * 12 * 64  # and the link tensor
    assert kept_bytes(lambda: made(x)) <= x.nbytes + factors


@pytest.mark.parametrize("reason", ["hook", "backward hook", "autocast", "half", "subclass", "weight"])
def test_a_base_that_is_more_than_its_weight_is_never_merged(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, "beside")
    monkeypatch.setattr(layer, "merging_is_cheaper", lambda *shape: True)

    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    base = Doubled(16, 24) if reason == "subclass" else nn.Linear(16, 24)
    if reason == "half":
        base.to(torch.bfloat16)
    if reason == "backward hook":
        base.register_full_backward_pre_hook(lambda module, grad: None)
    if reason == "weight":
        base.weight = type("Quantized", (nn.Parameter,), {})(base.weight.data)
    if reason == "hook":
        base.register_forward_hook(lambda module, given, out: out + 1)
    made = built(16, 24, POWERS, "full", base)
    with torch.no_grad():
        made.second.zero_()
    made.mix(probabilities(POWERS).detach().float())
    x = torch.randn(3, 16, dtype=base.weight.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=reason == "autocast"):
        assert torch.equal(made(x), base(x))


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_under_autocast_a_relaxed_and_a_drawn_adapter_compute_in_half_precision(kind: type[nn.Module]) -> None:
    base = nn.Linear(16, 24) if kind is nn.Linear else Conv1D(24, 16)
    made, probs = built(16, 24, POWERS, "per_nblocks", base), probabilities(POWERS).detach().float()
    x = torch.randn(3, 16)
    for setting in (lambda: made.mix(probs), lambda: made.draw(Choice(4, 2))):
        setting()
        inputs = [made.first, made.second]
        exact = made(x)
        wanted = torch.autograd.grad(exact.sum(), inputs, retain_graph=True, materialize_grads=True, allow_unused=True)
        with torch.autocast("cpu", torch.bfloat16):
            half = made(x)
        assert half.dtype == torch.bfloat16
        assert float((half - exact).norm() / exact.norm()) < 3e-2
        found = torch.autograd.grad(half.float().sum(), inputs, materialize_grads=True, allow_unused=True)
        for gradient, other in zip(found, wanted, strict=True):
            assert gradient.dtype == torch.float32
            assert float((gradient - other).norm() / other.norm()) < 3e-2


def test_the_rule_merges_where_a_dense_gradient_is_cheaper() -> None:
    narrow, wide = Grid.build(384, 384, [1, 48]), Grid.build(768, 3072, [1, 16])
    assert merged.merging_is_cheaper(narrow, 8, 2048)
    assert not merged.merging_is_cheaper(wide, 8, 2048)
    assert not merged.merging_is_cheaper(narrow, 8, 1)  # a weight made anew for one token
