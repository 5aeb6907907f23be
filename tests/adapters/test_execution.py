"""However an adapted model is executed, it computes the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_adapters import adapted
from tiny_models import tiny_batch
from torch import Tensor

SHAPES = [(1, 2), (4, 2), (8, 4)]  # either side of the limit between the ways of the product


def gradients(model: Any) -> list[Tensor]:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    assert weights
    torch.manual_seed(0)  # dropout
    grads: tuple[Tensor, ...] = torch.autograd.grad(model(**tiny_batch()).loss, weights)
    return list(grads)


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("nblocks", "blk_r"), SHAPES)
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_compiled_without_a_graph_break_an_adapted_layer_gives_the_same(nblocks: int, blk_r: int) -> None:
    model = adapted(nblocks=nblocks, blk_r=blk_r)
    layer = model.base_model.model.bert.encoder.layer[0].attention.self.query
    x = torch.randn(2, 3, layer.in_features, requires_grad=True)
    inputs = [x, layer.morenas_first["default"], layer.morenas_second["default"]]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    expected, found = layer(x), compiled(x)
    torch.testing.assert_close(found, expected)
    assert_close(
        list(torch.autograd.grad(found.square().sum(), inputs)),
        list(torch.autograd.grad(expected.square().sum(), inputs)),
    )


@pytest.mark.parametrize(("nblocks", "blk_r"), SHAPES)
def test_gradient_checkpointing_gives_the_same_gradients(nblocks: int, blk_r: int) -> None:
    model = adapted(nblocks=nblocks, blk_r=blk_r, pad=True).train()
    expected = gradients(model)
    model.base_model.model.gradient_checkpointing_enable({"use_reentrant": False})
    assert_close(gradients(model), expected)


@pytest.mark.parametrize(("nblocks", "blk_r"), SHAPES)
def test_functional_call_gives_the_same_gradients(nblocks: int, blk_r: int) -> None:
    model = adapted(nblocks=nblocks, blk_r=blk_r)
    given = {name: weight.detach().clone().requires_grad_() for name, weight in model.named_parameters()}
    wanted = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    out = torch.func.functional_call(model, given, kwargs=tiny_batch())
    found = torch.autograd.grad(out.loss, [given[name] for name in wanted])
    assert_close(list(found), gradients(model))


@pytest.mark.parametrize(("nblocks", "blk_r"), SHAPES)
def test_under_autocast_adapters_take_part_in_half_precision(nblocks: int, blk_r: int) -> None:
    model = adapted(nblocks=nblocks, blk_r=blk_r)
    exact = gradients(model)
    with torch.autocast("cpu", torch.bfloat16):
        half = gradients(model)
    for one, other in zip(half, exact, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm()) <= 0.1 * float(other.norm()) + 1e-4
