"""Merging adds what the adapter computes, and unmerging takes it away without a trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_adapters import adapted, base_weights, linears, logits, same
from tiny_models import tiny_batch, tiny_classifier
from torch import nn

from morenas.adapters import MoReConfig, MoReLayer

FAMILIES = ["bert", "gpt2", "llama"]  # nn.Linear, Conv1D, rectangular projections


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hundred_cycles_with_dropout_leave_the_frozen_weights_bit_identical(family: str) -> None:
    model = adapted(family, dropout=0.1)
    before = base_weights(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for cycle in range(100):
        model.train()
        model(**tiny_batch(seed=cycle)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        model.merge_adapter()
        logits(model)
        model.unmerge_adapter()
    assert same(before, base_weights(model))


def test_a_base_in_half_precision_comes_back_bit_for_bit() -> None:
    model = adapted().to(torch.bfloat16)
    before, merged = base_weights(model), 0
    for _ in range(5):
        model.merge_adapter()
        merged += not same(before, base_weights(model))
        model.unmerge_adapter()
        assert same(before, base_weights(model))
    assert merged == 5


def test_a_model_that_changed_its_precision_while_merged_is_unmerged_in_the_new_one() -> None:
    model, plain = adapted(), tiny_classifier()
    model.merge_adapter()
    for either in (model, plain):
        nn.Module.to(either, torch.bfloat16)
    model.unmerge_adapter()
    found = {name.replace("base_layer.", ""): value for name, value in base_weights(model.get_base_model()).items()}
    assert same(found, dict(plain.state_dict()))


def test_a_half_precision_adapter_costs_a_float32_base_no_precision() -> None:
    model = adapted()
    before = base_weights(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "morenas_" in name:
                parameter.data = torch.zeros_like(parameter, dtype=torch.bfloat16)
    model.merge_adapter()
    assert same(before, base_weights(model))


def test_disabling_merged_adapters_gives_the_frozen_model_back() -> None:
    model = adapted()
    expected, before = logits(model), base_weights(model)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(tiny_classifier()))
    assert torch.equal(logits(model), expected) and same(before, base_weights(model))


def test_eval_does_not_merge_by_itself() -> None:
    model = adapted()
    before = base_weights(model)
    model.eval()
    assert same(before, base_weights(model))


def test_two_adapters_merge_to_the_sum_of_their_deltas() -> None:
    model = adapted()
    torch.manual_seed(1)
    model.add_adapter("second", MoReConfig(target_modules=linears(tiny_classifier()), nblocks=4, init_weights=False))
    layer: Any = next(module for module in model.modules() if isinstance(module, MoReLayer))
    before = layer.get_base_layer().weight.detach().clone()
    expected = before + layer.get_delta_weight("default") + layer.get_delta_weight("second")
    layer.merge(adapter_names=["default", "second"])
    torch.testing.assert_close(layer.get_base_layer().weight, expected)
    layer.unmerge()
    assert torch.equal(layer.get_base_layer().weight, before)


def test_two_active_adapters_add_up() -> None:
    model = adapted("gpt2")
    torch.manual_seed(1)
    model.add_adapter("second", MoReConfig(target_modules=linears(tiny_classifier("gpt2")), init_weights=False))
    alone = logits(model)
    model.base_model.set_adapter(["default", "second"])
    together = logits(model)
    assert not torch.allclose(together, alone)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), together, atol=1e-6, rtol=1e-5)


def test_merging_one_after_the_other_unmerges_to_the_start() -> None:
    model = adapted()
    torch.manual_seed(1)
    model.add_adapter("second", MoReConfig(target_modules=linears(tiny_classifier()), init_weights=False))
    before = base_weights(model)
    model.merge_adapter(["default"])
    model.merge_adapter(["second"])
    model.unmerge_adapter()
    assert same(before, base_weights(model))


def test_a_safe_merge_refuses_what_is_not_finite_and_changes_nothing() -> None:
    model = adapted()
    layer = next(module for module in model.modules() if isinstance(module, MoReLayer))
    before = base_weights(model)
    with torch.no_grad():
        layer.morenas_first["default"][0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        layer.merge(safe_merge=True)
    assert same(before, base_weights(model))


def test_unmerging_twice_warns() -> None:
    layer = next(module for module in adapted().modules() if isinstance(module, MoReLayer))
    with pytest.warns(UserWarning, match="Already unmerged"):
        layer.unmerge()


def test_a_merged_delta_equals_what_the_layer_computes() -> None:
    model = adapted("gpt2", target_modules=["c_attn"], nblocks=3)
    layer = next(module for module in model.modules() if isinstance(module, MoReLayer))
    x = torch.randn(5, layer.in_features)
    change = layer(x) - layer.get_base_layer()(x)
    torch.testing.assert_close(change, x @ layer.get_delta_weight("default"), atol=1e-5, rtol=1e-5)
